"""Heads that judge one feature map, with spectral normalisation."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from transfergen.networks.layers.resampling import WholeMapConv2d


class Head(nn.Sequential):
    """Layers of which the first is a convolution. They can judge reals and fakes as one batch."""

    def forward(self, maps: Tensor, before: Tensor | None = None) -> Tensor:
        """Logits of the maps (B, C, h, w), or of `before` (B', C, h, w) and the maps as one batch (B' + B).

        The two are joined behind the first convolution, the costliest: if `before` needs no gradient, none is computed.
        """
        first, *others = self
        if before is None:
            x: Tensor = first(maps)
        else:
            first = cast(nn.Conv2d, first)
            weight = first.weight  # once: each time is an iteration of the spectral norm
            x = torch.cat([first._conv_forward(m, weight, first.bias) for m in (before, maps)])
        for layer in others:
            x = layer(x)
        return x


class ScaleHead(Head):
    """Feature map (B, `c_in`, size, size) -> logits (B, 1, h, h). Sauer 2021, arXiv:2111.01007, and its release.

    [Convolution 4x4 of stride 2 to `width` channels, batch normalisation, LeakyReLU 0.2] until the map is no larger
    than 7x7; then a convolution 4x4, or over all that is there if that is less, to one channel.
    """

    def __init__(self, c_in: int, size: int, *, width: int) -> None:
        layers, size = _halvings(c_in, size, width, largest=7)
        c_in = width if layers else c_in
        super().__init__(*layers, spectral_norm(WholeMapConv2d(c_in, 1, min(4, size))))


class FullyConnectedHead(Head):
    """Feature map (B, `c_in`, size, size) -> logits (B, 1).

    [Convolution 4x4 of stride 2 to `width` channels, batch normalisation, LeakyReLU 0.2] until the map is no larger
    than 4x4, or one convolution 3x3 if it is not; then Linear to `hidden`, LeakyReLU 0.2, Linear to 1.
    """

    def __init__(self, c_in: int, size: int, *, width: int, hidden: int) -> None:
        layers, size = _halvings(c_in, size, width, largest=4)
        if not layers:
            layers = _normalised(nn.Conv2d(c_in, width, 3, 1, 1, bias=False))
        super().__init__(
            *layers,
            nn.Flatten(),
            spectral_norm(nn.Linear(width * size**2, hidden)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(hidden, 1)),
        )


def _halvings(c_in: int, size: int, width: int, *, largest: int) -> tuple[list[nn.Module], int]:
    """Layers that halve a map until its side is at most `largest`, and that side."""
    layers: list[nn.Module] = []
    while size > largest:
        layers += _normalised(nn.Conv2d(c_in, width, 4, 2, 1, bias=False))
        c_in, size = width, size // 2
    return layers, size


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [spectral_norm(convolution), nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(0.2)]
