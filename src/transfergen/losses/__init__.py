"""Losses: pure functions of logits, features or images. They import neither Lightning nor Hydra."""
