"""Heads: small networks from a feature map to logits, with spectral normalisation."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from transfergen.networks.layers.resampling import WholeMapConv2d


class Head(nn.Sequential):
    """Layers from maps (B, C, h, w) to logits, the first of which is a convolution."""

    num_logits: int = 1
    """Logits for each image."""

    def forward(self, maps: Tensor, before: Tensor | None = None) -> Tensor:
        """The logits of the maps (B, C, h, w); with `before` (B', C, h, w), of both as one batch of B' + B.

        The two are concatenated after the first convolution, which costs the most. If `before` needs no gradient, that
        convolution computes none for it.
        """
        first, *others = self
        if before is None:
            x: Tensor = first(maps)
        else:
            first = cast(nn.Conv2d, first)
            weight = first.weight  # read once, since each reading is a power iteration of the spectral norm
            x = torch.cat([first._conv_forward(m, weight, first.bias) for m in (before, maps)])
        for layer in others:
            x = layer(x)
        return x


class ScaleHead(Head):
    """Maps (B, C, S, S) -> logits (B, 1, h, h). Sauer 2021, arXiv:2111.01007, and the authors' code.

    Convolutions 4x4 of stride 2, each followed by batch normalisation and LeakyReLU 0.2, until the maps are at most
    7x7; then a convolution 4x4 to one channel, or over the whole map if that is smaller.

    Args:
        c_in: C.
        size: S.
        width: channels after the first convolution.
    """

    def __init__(self, c_in: int, size: int, *, width: int) -> None:
        layers, size = _halvings(c_in, size, width, largest=7)
        c_in = width if layers else c_in
        kernel = min(4, size)
        super().__init__(*layers, spectral_norm(WholeMapConv2d(c_in, 1, kernel)))
        self.num_logits = (size - kernel + 1) ** 2


class FullyConnectedHead(Head):
    """Maps (B, C, S, S) -> logits (B, 1).

    Convolutions 4x4 of stride 2, each followed by batch normalisation and LeakyReLU 0.2, until the maps are at most
    4x4, or one convolution 3x3 if they are so already; then Linear, LeakyReLU 0.2, Linear.

    Args:
        c_in: C.
        size: S.
        width: channels after each convolution.
        hidden: width of the hidden layer.
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
    """Layers that halve maps until their side is at most `largest`, and that side."""
    layers: list[nn.Module] = []
    while size > largest:
        layers += _normalised(nn.Conv2d(c_in, width, 4, 2, 1, bias=False))
        c_in, size = width, size // 2
    return layers, size


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [spectral_norm(convolution), nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(0.2)]
