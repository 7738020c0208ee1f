"""Generators, one architecture a file: `generator(z, y=None) -> images`, with `z_dim`, `resolution`, `num_classes`."""
