"""Losses: pure functions of logits, features or images. They know nothing of Lightning or Hydra."""
