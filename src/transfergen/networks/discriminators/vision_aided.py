"""A discriminator from scratch that pretrained networks join one by one. Kumari 2022, arXiv:2112.09130."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from transfergen.distributed import all_gather_objects
from transfergen.errors import counted
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, LogitGroup
from transfergen.networks.discriminators.projected import ProjectedDiscriminator

RIDGE = 1e-2
"""Weight of a probe's squared norm, beside its mean squared error."""


class VisionAidedDiscriminator(Discriminator):
    """Images (B, C, H, W) in [-1, 1] -> logits (B, N): the ordinary discriminator's, then each joined network's.

    After `start_images` real images, and then every `every_images`, one more network joins: the one whose features let
    a linear probe tell held-out reals from held-out fakes best (algorithm 1). Each network is frozen, has trainable
    heads on its scales, and adds a loss of its own to the ordinary discriminator's. Any network tells the noise of an
    untrained generator from reals, so the choice means something only after a while: the authors' StyleGAN2 trains for
    500,000 images before the first joins, their BigGAN on CIFAR-10 for 400,000.

    Deviations from the paper: the heads are a ProjectedDiscriminator's, so that a network can have any number of
    scales; the probe is a ridge regression on the means of the channels, and where two are right equally often its
    smaller error decides; and networks can have less `weight`.

    Args:
        ordinary: a discriminator without a pretrained trunk. The heads have its `joint_batchnorm`, and are told
            of the classes that it knows.
        backbones: networks to choose from, by name. Those that are None are left out.
        resolution: R, in pixels, the shorter side.
        aspect: width and height, as in (3, 2).
        count: number of networks that join in all; None: all of them.
        start_images: real images seen before the first network joins.
        every_images: real images between one network and the next.
        weight: of each network's loss, where the ordinary discriminator's has 1.
        channels, width: see ProjectedDiscriminator.

    Raises:
        ValueError: there is no network to choose from, one is too deep for such images, the ordinary discriminator has
            a pretrained trunk, or `count` is out of range.
    """

    trunk_can_train = False

    def __init__(
        self,
        ordinary: Discriminator,
        backbones: Mapping[str, Backbone | None],
        *,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        count: int | None = None,
        start_images: int = 500_000,
        every_images: int = 100_000,
        weight: float = 1.0,
        channels: int = 64,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.joint_batchnorm, self.num_classes = ordinary.joint_batchnorm, ordinary.num_classes
        self.image_channels = ordinary.image_channels
        given = {name: backbone for name, backbone in backbones.items() if backbone is not None}
        if not given:
            raise ValueError("backbones: there is no network to choose from; give at least one")
        if ordinary.blocks:
            raise ValueError("ordinary: this discriminator has a pretrained trunk; choose one without, such as dcgan")
        if count is None:
            count = len(given)
        if not 1 <= count <= len(given):
            found = f"there {'is' if len(given) == 1 else 'are'} {counted(len(given), 'network')}, {', '.join(given)}"
            raise ValueError(f"count={count}: {found}")
        self.ordinary = ordinary
        small: dict[str, Any] = {"enlarge": False, "standardize_features": True, "channels": channels, "width": width}
        small["num_classes"] = self.num_classes
        self.judges = nn.ModuleDict(
            {
                name: ProjectedDiscriminator(backbone, resolution=resolution, aspect=aspect, **small)
                for name, backbone in given.items()
            }
        )
        self.backbones = tuple(given.values())
        self.count, self.start_images, self.every_images, self.weight = count, start_images, every_images, weight
        self.joined: list[str] = []
        self.blocks = self.frozen_blocks = 1  # all networks count as one block, which stays frozen

    @property
    def num_logits(self) -> int:
        """N, which grows with each network that joins."""
        return self.ordinary.num_logits + sum(self._judge(name).num_logits for name in self.joined)

    def lowest_layers(self) -> list[nn.Module]:
        """The lowest layers of the ordinary discriminator."""
        return self.ordinary.lowest_layers()

    @property
    def grows_at(self) -> float:
        """The number of images seen at which the next network joins; infinity: none does."""
        done = len(self.joined)
        return self.start_images + done * self.every_images if done < self.count else math.inf

    def grow(self, real: Tensor, fake: Tensor) -> None:
        """Let the network join that tells these reals from these fakes best, both (B, C, H, W) in [-1, 1].

        All ranks must call it, with the same images.
        """
        waiting = [name for name in self.judges if name not in self.joined]
        results = {name: probe(self._judge(name).backbone, real, fake) for name in waiting}
        best = max(results, key=lambda name: (results[name].accuracy, -results[name].error))
        self.joined.append(all_gather_objects(best)[0])  # rounding may differ between devices

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Standardise each network's channels by their statistics on real images (B, C, H, W) in [-1, 1]."""
        for name in self.judges:
            self._judge(name).calibrate(images)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the ordinary discriminator and of all heads, also where the network has not joined yet."""
        yield from self.ordinary.parameters()
        for name in self.judges:
            yield from self._judge(name).trainable_parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """The images (B, C, H, W), and the mixed maps (B, C, h, w) of each joined network."""
        return [images, *chain.from_iterable(self._judge(name).features(images) for name in self.joined)]

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """The output of `features`, and classes (B,) if it is conditional -> logits (B, N)."""
        logits = [self.ordinary.score(features[:1], y)]
        start = 1
        for name in self.joined:
            judge = self._judge(name)
            end = start + len(judge.heads)
            logits.append(judge.score(features[start:end], y))
            start = end
        return torch.cat(logits, dim=1)

    def logit_groups(self) -> Sequence[LogitGroup]:
        """The logits of the ordinary discriminator, and those of each joined network."""
        counts = [d.num_logits for d in (self.ordinary, *map(self._judge, self.joined))]
        columns = [slice(start, end) for start, end in pairwise(accumulate(counts, initial=0))]
        return list(zip(columns, [1.0, *[self.weight] * len(self.joined)], strict=True))

    def get_extra_state(self) -> list[str]:
        """Names of the networks that have joined, in order, to be saved with the weights."""
        return list(self.joined)

    def set_extra_state(self, state: list[str]) -> None:
        """Let the networks join that had joined when the weights were saved."""
        self.joined = list(state)

    def _judge(self, name: str) -> ProjectedDiscriminator:
        judge = self.judges[name]
        assert isinstance(judge, ProjectedDiscriminator)
        return judge


class Probe(NamedTuple):
    """How well a linear probe tells held-out reals from held-out fakes."""

    accuracy: float
    """0 to 1."""
    error: float
    """Mean squared distance of its answers from 1 for reals and from -1 for fakes."""


@torch.no_grad()
def probe(backbone: Backbone, real: Tensor, fake: Tensor) -> Probe:
    """Fit a linear probe that tells reals from fakes to one half of the images, and measure it on the other.

    Args:
        backbone: the mean of each channel over positions is a feature, standardised on the half that is fitted.
        real: images (B, C, H, W) in [-1, 1].
        fake: images (B, C, H, W) in [-1, 1].
    """
    batches = [*torch.split(real, 64), *torch.split(fake, 64)]  # a trunk's first maps are large
    means = [torch.cat([m.mean(dim=(2, 3)) for m in backbone(images)], dim=1) for images in batches]
    features = torch.cat(means).cpu().double()  # MPS has no float64
    labels = features.new_ones(len(features))
    labels[len(real) :] = -1
    fitted, held_out = slice(0, None, 2), slice(1, None, 2)
    mean, std = features[fitted].mean(0), features[fitted].std(0)
    x = (features - mean) / std.clamp(min=1e-6)
    a = x[fitted]
    # The dual form of ridge regression, whose unknowns are as many as the images.
    weights = a.T @ torch.linalg.solve(
        a @ a.T + RIDGE * len(a) * torch.eye(len(a), dtype=a.dtype, device=a.device), labels[fitted]
    )
    answers, right = x[held_out] @ weights, labels[held_out]
    return Probe(float((answers.sign() == right).double().mean()), float((answers - right).square().mean()))
