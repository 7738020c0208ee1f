"""An ordinary discriminator that pretrained networks join one by one. Kumari 2022, arXiv:2112.09130."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor, nn

from transfergen.distributed import all_gather_objects
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator, Part
from transfergen.networks.discriminators.projected import ProjectedDiscriminator


class VisionAidedDiscriminator(Discriminator):
    """Images (B, 3, R, R) in [-1, 1] -> logits (B, N): the ordinary discriminator's, then each joined network's.

    At `start_images`, and then each `every_images`, one more of the networks joins: the one whose features, under a
    linear probe, best tell reals from fakes that the probe was not fitted to (algorithm 1). Each is frozen, with
    trainable heads on its scales, and adds its own loss to the ordinary one.

    Deviations from the paper: the heads stand on random projections, as in ProjectedDiscriminator, so that a network
    may give any number of scales; the probe is a ridge regression on the means of the channels; what joins may have
    less `weight`.

    Args:
        ordinary: nothing in it is pretrained. If it is `joint_batchnorm`, the heads are, too.
        backbones: networks to choose from, by name; null ones are left out.
        resolution: R, in pixels.
        count: how many join in all; null: each of them.
        start_images: real images seen before the first joins.
        every_images: and between two of them.
        weight: of each network's loss, beside 1 for the ordinary discriminator's.
        channels, width: as in ProjectedDiscriminator.

    Raises:
        ValueError: no network to choose from, one too deep for R, one in the ordinary discriminator, or a number out of
            range.
    """

    def __init__(
        self,
        ordinary: Discriminator,
        backbones: Mapping[str, Backbone | None],
        *,
        resolution: int = 64,
        count: int | None = None,
        start_images: int = 0,
        every_images: int = 100_000,
        weight: float = 1.0,
        channels: int = 64,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.joint_batchnorm, self.num_classes = ordinary.joint_batchnorm, ordinary.num_classes
        given = {name: backbone for name, backbone in backbones.items() if backbone is not None}
        if not given:
            raise ValueError("discriminator.backbones has no network; give one, or set model=dcgan")
        if ordinary.blocks:
            raise ValueError(
                "discriminator.ordinary has a pretrained network; set discriminator@discriminator.ordinary=dcgan"
            )
        if count is None:
            count = len(given)
        if not 1 <= count <= len(given):
            raise ValueError(f"discriminator.count={count}: there are {len(given)} networks, {', '.join(given)}")
        if start_images < 0 or every_images < 1 or weight <= 0:
            raise ValueError(
                f"discriminator.start_images={start_images}, every_images={every_images}, weight={weight}: at least 0, "
                "at least 1, and above 0"
            )
        self.ordinary = ordinary
        self.judges = nn.ModuleDict(
            {
                name: ProjectedDiscriminator(backbone, resolution=resolution, channels=channels, width=width)
                for name, backbone in given.items()
            }
        )
        self.backbones = tuple(given.values())
        self.count, self.start_images, self.every_images, self.weight = count, start_images, every_images, weight
        self.joined: list[str] = []
        self.blocks = self.frozen_blocks = 1  # all the networks: none or all of them are frozen

    def freeze(self, blocks: int) -> None:
        """Raises ValueError if the pretrained networks are to train."""
        if blocks != self.blocks:
            raise ValueError("the vision-aided discriminator's networks stay frozen; set transfer=feature_extraction")

    def lowest_layers(self) -> list[nn.Module]:
        """The ordinary discriminator's."""
        return self.ordinary.lowest_layers()

    @property
    def grows_at(self) -> float:
        """When the next network joins."""
        done = len(self.joined)
        return self.start_images + done * self.every_images if done < self.count else math.inf

    def grow(self, real: Tensor, fake: Tensor) -> None:
        """Take in the network that tells these reals from these fakes best, (B, 3, R, R) in [-1, 1] each.

        To be called on all ranks, with the same images.
        """
        waiting = [name for name in self.judges if name not in self.joined]
        accuracies = {name: probe_accuracy(self._judge(name).backbone, real, fake) for name in waiting}
        best = max(accuracies, key=lambda name: accuracies[name])
        self.joined.append(all_gather_objects(best)[0])  # rounding, which differs by device, must not divide them

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Standardise each network's channels on real images (B, 3, R, R) in [-1, 1]."""
        for name in self.judges:
            self._judge(name).calibrate(images)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The ordinary discriminator's and all heads', whether their networks have joined or not."""
        yield from self.ordinary.parameters()
        for name in self.judges:
            yield from self._judge(name).trainable_parameters()

    def features(self, images: Tensor) -> list[Tensor]:
        """The images, and the mixed maps of each joined network."""
        return [images, *chain.from_iterable(self._judge(name).features(images) for name in self.joined)]

    def score(self, features: list[Tensor], y: Tensor | None = None) -> Tensor:
        """What `features` gave -> logits (B, N)."""
        logits = [self.ordinary.score(features[:1], y)]
        start = 1
        for name in self.joined:
            judge = self._judge(name)
            end = start + len(judge.heads)
            logits.append(judge.score(features[start:end], y))
            start = end
        self._columns = list(accumulate((part.shape[1] for part in logits), initial=0))
        return torch.cat(logits, dim=1)

    def parts(self) -> Sequence[Part]:
        """The ordinary discriminator's columns, and each joined network's."""
        return [
            (slice(start, end), self.weight if i else 1.0) for i, (start, end) in enumerate(pairwise(self._columns))
        ]

    def networks(self) -> Iterator[nn.Module]:
        """The ordinary one, and all that each judge has."""
        yield from self.ordinary.networks()
        for name in self.judges:
            yield from self._judge(name).networks()

    def get_extra_state(self) -> list[str]:
        """Which networks have joined, in order; saved with the weights."""
        return list(self.joined)

    def set_extra_state(self, state: list[str]) -> None:
        """Take it back."""
        self.joined = list(state)

    def _judge(self, name: str) -> ProjectedDiscriminator:
        judge = self.judges[name]
        assert isinstance(judge, ProjectedDiscriminator)
        return judge


@torch.no_grad()
def probe_accuracy(backbone: Backbone, real: Tensor, fake: Tensor, *, ridge: float = 1e-2) -> float:
    """How often a linear probe on a network's features is right, on the halves of both sets that it was not fitted to.

    Args:
        backbone: its channels' means over each map are the features, standardised on the fitted half.
        real: images (B, 3, R, R) in [-1, 1].
        fake: as many of them.
        ridge: weight of the squared norm of the probe, against features of unit variance.
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
    # The dual form: as many unknowns as images, whatever the number of channels.
    weights = a.T @ torch.linalg.solve(
        a @ a.T + ridge * len(a) * torch.eye(len(a), dtype=a.dtype, device=a.device), labels[fitted]
    )
    return float((torch.sign(x[held_out] @ weights) == labels[held_out]).double().mean())
