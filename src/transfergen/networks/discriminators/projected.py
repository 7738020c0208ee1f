"""The discriminator of Projected GANs: random projections of frozen features. Sauer 2021, arXiv:2111.01007."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.image_shape import image_shape
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.discriminators.heads import ScaleHead
from transfergen.networks.discriminators.trunk import MultiHeadDiscriminator


class ProjectedDiscriminator(MultiHeadDiscriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, N) of all positions of all scales.

    The frozen trunk gives feature maps at several scales. Cross-channel mixing: a random 1x1 convolution brings each to
    a number of channels that doubles from scale to scale. Cross-scale mixing: from the deepest scale up, the mixed map
    is enlarged twofold, brought to the number of channels of the next shallower one by another random 1x1 convolution,
    and added to it. The mixing is never trained and belongs to the frozen prefix. A head for each scale gives the
    logits (section 3.2 and figure 2).

    With the defaults, the trunk EfficientNet-Lite0 and four taps of images of 224 px it is that of the authors' code:
    each head takes what is enlarged, and has as many channels as there, 10.3 million parameters in all; the four maps
    have 112, 56, 28 and 14 px, and each gives 16 logits. Deviations:

    - The random convolutions have no biases. Before batch normalisation they would change the maps' borders alone.
    - Before any batch normalisation, convolutions have no bias, which it removes.
    - Sizes of maps need not be powers of two: an enlarged map gets the size of the one that it is added to.
    - The size of images is the trunk's `input_size`, and the augmentation is not part of the discriminator.

    Small heads suit a CPU, and few pictures: `width=64 enlarge=False standardize_features=True`. There the heads take
    the sums as they are, divided by the root of 2 so that all scales keep about unit variance, and enlarging does not
    align corners.

    Like theirs, the heads' batch normalisation treats reals and fakes separately, unless `joint_batchnorm` is set.

    Args:
        backbone: the trunk; each of its taps is a scale.
        resolution: R, in pixels, the shorter side.
        aspect: width and height, as in (3, 2).
        channels: of the shallowest scale after mixing.
        width: channels in the heads; None: twice as many after each convolution, up to 512.
        mix_scales: whether there is cross-scale mixing.
        enlarge: whether the heads take the maps that cross-scale mixing has enlarged.
        standardize_features: whether `calibrate` standardises the trunk's channels, since some trunks have large
            features.
        joint_batchnorm: whether the heads normalise reals and fakes as one batch.
        num_classes: number of classes that the heads are told of; 0: none.

    Raises:
        ValueError: there is no trunk, or it is too deep for such images.
    """

    trunk_can_train = False  # the random projections are meant for fixed features
    freeze = Discriminator.freeze

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        channels: int = 64,
        width: int | None = None,
        mix_scales: bool = True,
        enlarge: bool = True,
        standardize_features: bool = False,
        joint_batchnorm: bool = False,
        num_classes: int = 0,
    ) -> None:
        size = image_shape(resolution, aspect).size
        super().__init__(backbone, size=size, standardize_features=standardize_features, prepare=fold_batchnorm)
        self.joint_batchnorm, self.enlarge = joint_batchnorm, enlarge and mix_scales
        self.num_classes = num_classes
        shapes = backbone.shapes(size)
        backbone.eval().requires_grad_(False)
        self.frozen_blocks = self.blocks
        gain = 3**-0.5 if self.enlarge else 1.0  # that of PyTorch's default, which the authors' code has
        widths = [channels * 2**i for i in range(len(shapes))]
        pairs = [*([(channels, channels)] if self.enlarge else []), *((deep, w) for w, deep in pairwise(widths))]
        sizes = [(h, w) for _, h, w in shapes]
        self.mix_channels = nn.ModuleList(
            _random_projection(c, w, gain) for c, w in zip(backbone.channels, widths, strict=True)
        )
        self.mix_scales = nn.ModuleList(_random_projection(deep, w, gain) for deep, w in pairs if mix_scales)
        if self.enlarge:
            widths, sizes = [w for _, w in pairs], [(2 * sizes[0][0], 2 * sizes[0][1]), *sizes[:-1]]
        self.heads = nn.ModuleList(
            ScaleHead(*seen, width=width, num_classes=num_classes) for seen in zip(widths, sizes, strict=True)
        )

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Standardise the trunk's channels by their statistics on real images (B, C, H, W) in [-1, 1].

        The statistics become part of the cross-channel mixing. A mixing that was calibrated in another run, and loaded
        with that run's heads, stays as it is.
        """
        if self.standardize_features and not any(cast(Tensor, mix.bias).any() for mix in self.mix_channels):
            super().calibrate(images)
            for mix, (mean, std) in zip(self.mix_channels, self.feature_statistics(), strict=True):
                weight, bias = cast(Tensor, mix.weight), cast(Tensor, mix.bias)
                weight.div_(std[:, None, None])
                bias.copy_(-(weight.flatten(1) @ mean))

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the heads."""
        yield from self.heads.parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) in [-1, 1] -> the mixed maps (B, C, h, w), shallow first."""
        mixed: list[Tensor] = [mix(m) for mix, m in zip(self.mix_channels, self.backbone(images), strict=True)]
        if self.enlarge:
            return self._enlarged(mixed)
        for i, mix in reversed(list(enumerate(self.mix_scales))):
            below = F.interpolate(mix(mixed[i + 1]), size=mixed[i].shape[-2:], mode="bilinear")
            mixed[i] = (mixed[i] + below) / math.sqrt(2)
        return mixed

    def _enlarged(self, maps: list[Tensor]) -> list[Tensor]:
        """Add to each scale's map (B, C, h, w) the result of the next deeper scale, mix and enlarge the sum."""
        for i, mix in reversed(list(enumerate(self.mix_scales))):
            total = maps[i] if i == len(maps) - 1 else maps[i] + maps[i + 1]
            size = maps[i - 1].shape[-2:] if i else [2 * side for side in total.shape[-2:]]
            # A 1x1 convolution gives the same before enlarging as after it, for a quarter of the work.
            maps[i] = F.interpolate(mix(total), size=size, mode="bilinear", align_corners=True)
        return maps


def _random_projection(c_in: int, c_out: int, gain: float) -> FrozenConv2d:
    """A frozen random 1x1 convolution. It scales the deviation of independent channels by `gain`."""
    convolution = nn.Conv2d(c_in, c_out, 1)
    nn.init.normal_(convolution.weight, std=gain * c_in**-0.5)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return FrozenConv2d(convolution.requires_grad_(False))
