"""The head that judges one feature map. Sauer 2021, arXiv:2111.01007, and its release."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from transfergen.networks.layers.resampling import WholeMapConv2d


class ScaleHead(nn.Sequential):
    """Feature map (B, `c_in`, size, size) -> logits (B, 1, h, h), with spectral normalisation.

    [Convolution 4x4 of stride 2 to `width` channels, batch normalisation, LeakyReLU 0.2] until the map is no larger
    than 7x7; then a convolution 4x4, or over all that is there if that is less, to one channel.
    """

    def __init__(self, c_in: int, size: int, *, width: int) -> None:
        layers: list[nn.Module] = []
        while size > 7:
            layers += [
                spectral_norm(nn.Conv2d(c_in, width, 4, 2, 1, bias=False)),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
            c_in, size = width, size // 2
        super().__init__(*layers, spectral_norm(WholeMapConv2d(c_in, 1, min(4, size))))

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
