"""Heads: small networks from a feature map to logits, with spectral normalisation."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from transfergen.images import Size, height_and_width
from transfergen.networks.layers.resampling import WholeMapConv2d

Statistics = tuple[Tensor, Tensor]
"""The mean and the standard deviation (C,) of each channel."""


class Head(nn.Sequential):
    """Layers from maps (B, C, h, w), or tokens (B, C, L), to logits. The first of them is a convolution."""

    num_logits: int = 1
    """Logits for each image."""

    def forward(
        self,
        maps: Tensor,
        before: Tensor | None = None,
        statistics: Statistics | None = None,
        y: Tensor | None = None,
    ) -> Tensor:
        """The logits of the maps (B, C, h, w); with `before` (B', C, h, w), of both as one batch of B' + B.

        A head that is told of classes takes those of all, `y` (B,) or (B' + B,).

        The two are concatenated after the first convolution, which costs the most. If `before` needs no gradient, that
        convolution computes none for it. With `statistics`, the maps are standardised by them, which takes no pass over
        the maps: the first convolution's weights are divided by the deviations, and what it makes of the means is
        subtracted.
        """
        first, *others = cast(tuple[nn.Conv2d, ...], tuple(self))
        weight = first.weight  # read once, since each reading is a power iteration of the spectral norm
        if statistics:
            mean, std = (s[:, None, None] for s in statistics)
            weight = weight / std
        inputs = [m for m in (before, maps) if m is not None]
        x = _joined([first._conv_forward(m, weight, first.bias) for m in inputs])
        if isinstance(first, ClassConv2d):
            x = x + first.fit(_joined(inputs), y)
        if statistics:
            # A map and not a number for each channel: at the borders, the kernel sees less of the means.
            x += first._conv_forward(-mean.expand(1, *maps.shape[1:]), weight, None)
        for layer in others:
            x = layer(x) + layer.fit(x, y) if isinstance(layer, ClassConv2d) else layer(x)
        return x


class ClassConv2d(WholeMapConv2d):
    """A convolution from maps (B, C, h, w) to logits (B, 1, h', w'), to which `fit` adds how well they fit a class.

    Miyato and Koyama 2018, arXiv:1802.05637, eq. 3, for each window of the convolution and not for the whole map.
    """

    def __init__(self, c_in: int, kernel: tuple[int, int], num_classes: int, *, bias: bool) -> None:
        super().__init__(c_in, 1, kernel, bias=bias)
        self.embedding = spectral_norm(nn.Embedding(num_classes, c_in))

    def fit(self, maps: Tensor, y: Tensor | None) -> Tensor:
        """Maps (B, C, h, w) and their classes (B,) -> (B, 1, h', w').

        The product of a class's embedding (C,) with the sum of the maps over each window, over the root of its area.
        """
        height, width = self.kernel_size
        windows = F.avg_pool2d(maps, (height, width), stride=1) * math.sqrt(height * width)
        embedding: Tensor = self.embedding(y)
        return (embedding[:, :, None, None] * windows).sum(dim=1, keepdim=True)


class ScaleHead(Head):
    """Maps (B, C, H, W) -> logits (B, 1, h, w). Sauer 2021, arXiv:2111.01007, and the authors' code.

    Convolutions 4x4 of stride 2, each followed by batch normalisation and LeakyReLU 0.2, until the maps' shorter side
    is at most 8, or 7 with a `width`; then a convolution 4x4 to one channel, or over the whole map if that is smaller.

    Args:
        c_in: C.
        size: H and W.
        width: channels of the convolutions of stride 2. None, as in the authors' code: the last of them has 512, each
            before it half as many as the next, but at least 64; and the convolution to one channel has no bias.
        num_classes: number of classes that the head is told of, by a `ClassConv2d`; 0: none.
    """

    def __init__(self, c_in: int, size: Size, *, width: int | None, num_classes: int = 0) -> None:
        size, largest = height_and_width(size), 7 if width else 8
        halvings = next(n for n in range(min(size)) if min(size) >> n <= largest)
        widths = [width or max(64, 512 >> i) for i in reversed(range(halvings))]
        layers, size = _halvings(c_in, size, widths)
        c_in = widths[-1] if layers else c_in
        kernel = min(4, size[0]), min(4, size[1])
        bias = width is not None
        last = (
            ClassConv2d(c_in, kernel, num_classes, bias=bias)
            if num_classes
            else WholeMapConv2d(c_in, 1, kernel, bias=bias)
        )
        super().__init__(*layers, spectral_norm(last))
        self.num_logits = (size[0] - kernel[0] + 1) * (size[1] - kernel[1] + 1)


class FullyConnectedHead(Head):
    """Maps (B, C, H, W) -> logits (B, 1).

    Convolutions 4x4 of stride 2, each followed by batch normalisation and LeakyReLU 0.2, until the maps' shorter side
    is at most 4, or one convolution 3x3 if it is so already; then Linear, LeakyReLU 0.2, Linear.

    Args:
        c_in: C.
        size: H and W.
        width: channels after each convolution.
        hidden: width of the hidden layer.
    """

    def __init__(self, c_in: int, size: Size, *, width: int, hidden: int) -> None:
        size = height_and_width(size)
        halvings = next(n for n in range(min(size)) if min(size) >> n <= 4)
        layers, size = _halvings(c_in, size, [width] * halvings)
        if not layers:
            layers = _normalised(nn.Conv2d(c_in, width, 3, 1, 1, bias=False))
        super().__init__(
            *layers,
            nn.Flatten(),
            spectral_norm(nn.Linear(width * size[0] * size[1], hidden)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Linear(hidden, 1)),
        )


class TokenHead(Head):
    """Tokens (B, C, L) -> logits (B, 1, L), one for each token. Sauer 2023, arXiv:2301.09515, and the authors' code.

    A convolution of width 1, and one of width 9 along the tokens, to whose output its input is added, the sum divided
    by the root of 2; each is followed by `GhostBatchNorm` and LeakyReLU 0.2. Then a convolution of width 1 to one
    channel. The last token is the first one's neighbour. The convolutions before the normalisations have no biases,
    which normalisation would remove.

    Args:
        channels: C.
        tokens: L, 4 or more.
    """

    def __init__(self, channels: int, tokens: int) -> None:
        wide = nn.Conv1d(channels, channels, 9, padding=4, padding_mode="circular", bias=False)
        super().__init__(
            *_ghost_normalised(nn.Conv1d(channels, channels, 1, bias=False)),
            _Residual(*_ghost_normalised(wide)),
            spectral_norm(nn.Conv1d(channels, 1, 1)),
        )
        self.num_logits = tokens


class GhostBatchNorm(nn.Module):
    """Batch normalisation in groups of at most `size` consecutive images: tokens (B, C, L) -> the same shape.

    The groups are equal, so there may be more of them than B / `size`. It is the same in training and evaluation, since
    there are no running statistics. Hoffer 2017, arXiv:1705.08741.

    Args:
        channels: C.
        size: of a group.
    """

    def __init__(self, channels: int, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, C, L) -> (B, C, L), float32."""
        count = len(tokens)
        groups = next(n for n in range(math.ceil(count / self.size), count + 1) if count % n == 0)
        x = tokens.float().reshape(groups, -1, *tokens.shape[1:])
        variance, mean = torch.var_mean(x, (1, 3), correction=0, keepdim=True)
        x = ((x - mean) * (variance + 1e-5).rsqrt()).flatten(0, 1)
        return x * self.weight[:, None] + self.bias[:, None]


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return (x + added) / math.sqrt(2)


def _ghost_normalised(convolution: nn.Conv1d) -> list[nn.Module]:
    return [spectral_norm(convolution), GhostBatchNorm(convolution.out_channels), nn.LeakyReLU(0.2)]


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _halvings(c_in: int, size: tuple[int, int], widths: Sequence[int]) -> tuple[list[nn.Module], tuple[int, int]]:
    """Layers that halve maps of this size once for each number of channels, and the size that is left."""
    pairs = pairwise([c_in, *widths])
    layers = [layer for c_in, c_out in pairs for layer in _normalised(nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False))]
    return layers, (size[0] >> len(widths), size[1] >> len(widths))


def _normalised(convolution: nn.Conv2d) -> list[nn.Module]:
    return [spectral_norm(convolution), nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(0.2, inplace=True)]
