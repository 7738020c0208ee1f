"""Networks, one architecture a file, in plain PyTorch. They import neither Lightning nor Hydra.

An argument that a network cannot be built with raises a ValueError that begins with it: `resolution=48: ...`.
"""
