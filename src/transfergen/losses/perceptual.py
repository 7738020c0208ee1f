"""How different two batches of images look to a pretrained network."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def perceptual_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Feature maps (B, C, h, w) of two batches, the same layers of both -> a scalar from 0 to 4.

    At each position the channels are scaled to unit length, so that layers of any scale count alike; then their squared
    distance, averaged over positions, images and layers. LPIPS without its learned weights: Zhang 2018,
    arXiv:1801.03924, equation 1 with w = 1.
    """
    layers = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(dim=1).mean()
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(layers).mean()
