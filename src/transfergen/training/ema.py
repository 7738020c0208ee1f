"""Exponential moving average of a network. Karras 2018, arXiv:1710.10196; half-life and ramp-up as in StyleGAN2-ADA."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class EMA(nn.Module, Generic[Network]):
    """A copy of a network whose weights and buffers are the moving average of the network's.

    Args:
        network: is averaged.
        halflife_images: after how many real images the weight of what was averaged has halved.
        rampup: the half-life is at most this fraction of the images seen so far, so that short runs do not keep their
            untrained start; 0: it is the same from the start on.
    """

    def __init__(self, network: Network, *, halflife_images: float, rampup: float = 0.05) -> None:
        super().__init__()
        self.network: Network = copy.deepcopy(network).eval().requires_grad_(False)
        self.halflife_images, self.rampup = halflife_images, rampup

    def train(self, mode: bool = True) -> "EMA[Network]":
        """Do nothing: the average stays in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: Network, *, images: int, images_seen: int) -> None:
        """Move towards `network`, which has seen `images` real images since the last update, `images_seen` in all."""
        halflife = min(self.halflife_images, self.rampup * images_seen) if self.rampup else self.halflife_images
        weight = 1 - 0.5 ** (images / max(halflife, 1e-8))
        ours, theirs = [], []
        for (name, mine), its in zip(self.network.state_dict().items(), network.state_dict().values(), strict=True):
            # Spectral norm's singular vectors turn, and their average is too short: weights would come out too large.
            if mine.is_floating_point() and not name.endswith(("._u", "._v")):
                ours.append(mine)
                theirs.append(its)
            else:
                mine.copy_(its)  # one of those, or a counter of batches
        torch._foreach_lerp_(ours, theirs, weight)
