"""Discriminators: `discriminator(images, y=None) -> logits (B, N)`, split into `features` and `score`."""
