"""Networks, one architecture a file, in plain PyTorch. They import neither Lightning nor Hydra.

What a network cannot be built with raises a ValueError that begins with the argument: `resolution=48: ...`.
"""
