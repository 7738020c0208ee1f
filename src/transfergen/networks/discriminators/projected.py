"""The discriminator of Projected GANs: random projections of frozen features. Sauer 2021, arXiv:2111.01007."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, channel_statistics, check_backbone
from transfergen.networks.discriminators.heads import ScaleHead


class ProjectedDiscriminator(Discriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, N) of all positions of all scales.

    The frozen trunk gives feature maps at several scales. Cross-channel mixing: a random 1x1 convolution brings each to
    a number of channels that doubles from scale to scale. Cross-scale mixing: from the deepest scale up, the mixed map
    is enlarged to the size of the next shallower one, brought to its number of channels by another random 1x1
    convolution, and added to it. The mixing is never trained and belongs to the frozen prefix. A head for each scale
    gives the logits (section 3.2 and figure 2).

    Deviations from the authors' code, whose numbers are for their four scales at 224 px:

    - The heads are smaller. Theirs take the mixed maps enlarged twofold, to 112, 56, 28 and 14 px, go down to 8 px with
      up to 512 channels, and have 10.3 million parameters in all. Here they take the maps as they are, go down to 7 px
      at most, and have `width` channels throughout. Both give 16 logits a scale.
    - The trunk's channels are standardised first (`standardize_features`), since some trunks have large features.
    - A sum of two maps is divided by the root of 2, so that all scales keep about unit variance.
    - The bilinear enlargement between scales does not align corners; theirs does.
    - Images keep their size unless the backbone's `input_size` says otherwise; theirs are enlarged to 224 px.
    - Augmentation is chosen elsewhere, and DiffAugment's cutout takes a square of half the side; theirs takes 0.2.

    Like theirs, the heads' batch normalisation treats reals and fakes separately, unless `joint_batchnorm` is set.

    Args:
        backbone: the trunk; each of its taps is a scale.
        resolution: R, in pixels.
        channels: of the shallowest scale after mixing.
        width: channels in the heads.
        mix_scales: whether there is cross-scale mixing.
        standardize_features: whether `calibrate` standardises the trunk's channels.
        joint_batchnorm: whether the heads normalise reals and fakes as one batch.

    Raises:
        ValueError: there is no trunk, or it is too deep for R.
    """

    frozen_blocks: int
    trunk_can_train = False  # the random projections are meant for fixed features

    def __init__(
        self,
        backbone: Backbone,
        *,
        resolution: int = 64,
        channels: int = 64,
        width: int = 64,
        mix_scales: bool = True,
        standardize_features: bool = True,
        joint_batchnorm: bool = False,
    ) -> None:
        super().__init__()
        self.joint_batchnorm = joint_batchnorm
        check_backbone(backbone)
        fold_batchnorm(backbone.eval(), resolution)
        self.backbone = backbone.requires_grad_(False)
        self.backbones = (backbone,)
        self.blocks = self.frozen_blocks = len(backbone.blocks)
        self.standardize_features = standardize_features
        shapes = backbone.shapes(resolution)
        widths = [channels * 2**i for i in range(len(shapes))]
        self.mix_channels = nn.ModuleList(_random_projection(c, w) for (c, _, _), w in zip(shapes, widths, strict=True))
        self.mix_scales = nn.ModuleList(_random_projection(deep, w) for w, deep in pairwise(widths) if mix_scales)
        self.heads = nn.ModuleList(ScaleHead(w, h, width=width) for w, (_, h, _) in zip(widths, shapes, strict=True))

    @property
    def num_logits(self) -> int:
        """N, of all scales."""
        return sum(cast(ScaleHead, head).num_logits for head in self.heads)

    def train(self, mode: bool = True) -> "ProjectedDiscriminator":
        """Set the mode of the heads; the trunk stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Standardise the trunk's channels by their statistics on real images (B, 3, R, R) in [-1, 1].

        The cross-channel mixing takes it over. A mixing that was loaded from another run, with weights for the heads,
        and was calibrated there stays as it is.
        """
        if self.standardize_features and not any(cast(Tensor, mix.bias).any() for mix in self.mix_channels):
            means, stds = channel_statistics(self.backbone, images)
            for mix, mean, std in zip(self.mix_channels, means, stds, strict=True):
                weight, bias = cast(Tensor, mix.weight), cast(Tensor, mix.bias)
                weight.div_(std[:, None, None])
                bias.copy_(-(weight.flatten(1) @ mean))

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of the heads."""
        yield from self.heads.parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, R, R) in [-1, 1] -> the mixed maps (B, C, h, w), shallow first."""
        mixed: list[Tensor] = [mix(m) for mix, m in zip(self.mix_channels, self.backbone(images), strict=True)]
        for i, mix in reversed(list(enumerate(self.mix_scales))):
            below = F.interpolate(mix(mixed[i + 1]), size=mixed[i].shape[-2:], mode="bilinear")
            mixed[i] = (mixed[i] + below) / math.sqrt(2)
        return mixed

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The mixed maps (B, C, h, w) -> logits (B, N), all scales concatenated. `y` is ignored."""
        return torch.cat([head(m).flatten(1).float() for head, m in zip(self.heads, features, strict=True)], dim=1)

    def score_jointly(self, real: list[Tensor], fake: list[Tensor], y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score reals and fakes as one batch, without computing a gradient for the reals in the generator's turn."""
        if not any(m.requires_grad for m in fake):
            return super().score_jointly(real, fake, y)
        logits = [head(f, r).flatten(1).float() for head, r, f in zip(self.heads, real, fake, strict=True)]
        real_logits, fake_logits = torch.cat(logits, dim=1).chunk(2)
        return real_logits, fake_logits


def _random_projection(c_in: int, c_out: int) -> FrozenConv2d:
    """A frozen random 1x1 convolution, whose output has the variance of its input if channels are independent."""
    convolution = nn.Conv2d(c_in, c_out, 1)
    nn.init.normal_(convolution.weight, std=c_in**-0.5)
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return FrozenConv2d(convolution.requires_grad_(False))
