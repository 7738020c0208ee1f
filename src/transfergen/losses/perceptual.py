"""Perceptual distance: the difference between images in the features of a pretrained network."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def perceptual_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Feature maps (B, C, h, w) of two batches of images, from the same layers -> a scalar from 0 to 4.

    The channels at each position are normalised to unit length, so that layers of any scale have equal weight. The
    distance is the squared difference, averaged over positions, images and layers. It is LPIPS without learned weights:
    Zhang 2018, arXiv:1801.03924, equation 1 with w = 1.
    """
    layers = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(dim=1).mean()
        for a, b in zip(ours, theirs, strict=True)
    ]
    return torch.stack(layers).mean()
