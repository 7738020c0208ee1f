"""What a pretrained network, or a source generator, gives to a training."""

from typing import Literal, NamedTuple, get_args

from torch import Tensor

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.unregistered import UnregisteredModules

Mode = Literal["frozen", "trainable", "last_k", "gradual"]


class Pairs(NamedTuple):
    """What the losses of a strategy are computed on."""

    z: Tensor
    """(B, Z)."""
    y: Tensor | None
    """(B,), where the generator is conditional."""
    fake: Tensor
    """(B, 3, R, R) in [-1, 1], not augmented: of `z` and `y`. With its graph in the generator's turn alone."""
    real: Tensor
    """(B, 3, R, R) in [-1, 1], not augmented."""


class Strategy(UnregisteredModules):
    """Which blocks of the discriminator's trunk train, from when on and how fast. The base of all other strategies.

    Args:
        trunk: `frozen` (none train), `trainable` (all train), `last_k` (the deepest `last_k` train), or `gradual` (all are
            frozen at first, and one more thaws, the deepest first, each `unfreeze_every_images`).
        last_k: blocks that train; for `last_k` alone.
        unfreeze_every_images: real images between two thaws; for `gradual` alone.
        cache_mib: memory for the frozen blocks' features of real images, which then are computed once and not in each
            epoch; 0 turns this off. Where all the features would not fit, none are kept.
        trunk_lr_scale: learning rate of the trunk, as a multiple of the other layers'.
        freeze_d: lowest layers of an ordinary discriminator that keep the weights of `init_from`. Mo 2020,
            arXiv:2002.10964 (FreezeD).

    Raises:
        ValueError: an unknown mode, or a number out of range.
    """

    adversarial: float = 1.0
    """Weight of the adversarial loss in the generator's."""
    has_terms: bool = False
    """Whether there are losses of its own, and `Pairs` to be made for them."""

    def __init__(
        self,
        *,
        trunk: Mode = "frozen",
        last_k: int = 1,
        unfreeze_every_images: int = 100_000,
        cache_mib: int = 2048,
        trunk_lr_scale: float = 1.0,
        freeze_d: int = 0,
    ) -> None:
        super().__init__()
        if trunk not in get_args(Mode):
            raise ValueError(f"transfer.trunk={trunk}: choose one of {', '.join(get_args(Mode))}")
        if last_k < 1 or unfreeze_every_images < 1:
            raise ValueError("transfer.last_k and transfer.unfreeze_every_images are at least 1")
        if trunk_lr_scale <= 0 or freeze_d < 0:
            raise ValueError(
                f"transfer.trunk_lr_scale={trunk_lr_scale}, transfer.freeze_d={freeze_d}: above 0, and at least 0"
            )
        self.trunk, self.last_k, self.unfreeze_every_images, self.cache_mib = (
            trunk,
            last_k,
            unfreeze_every_images,
            cache_mib,
        )
        self.trunk_lr_scale, self.freeze_d = trunk_lr_scale, freeze_d

    def frozen_blocks(self, blocks: int, images_seen: int) -> int:
        """How many of a trunk's first `blocks` are frozen after `images_seen` real images.

        Raises:
            ValueError: more blocks are to train than there are.
        """
        if self.trunk == "trainable":
            return 0
        if self.trunk == "last_k":
            if blocks == 0:
                raise ValueError("transfer.trunk=last_k: nothing in this discriminator is pretrained; set frozen")
            if self.last_k > blocks:
                raise ValueError(
                    f"transfer.last_k={self.last_k}: the trunk has {blocks} block(s) up to its cut; set "
                    f"transfer.last_k={blocks} or transfer.trunk=trainable"
                )
            return blocks - self.last_k
        if self.trunk == "gradual":
            return max(0, blocks - images_seen // self.unfreeze_every_images)
        return blocks

    def freeze_lowest(self, discriminator: Discriminator) -> None:
        """Freeze the `freeze_d` lowest layers, for good.

        Raises:
            ValueError: there are not so many.
        """
        layers = discriminator.lowest_layers()
        if self.freeze_d > len(layers):
            raise ValueError(
                f"transfer.freeze_d={self.freeze_d}: this discriminator has {len(layers)} layer(s) that can be frozen "
                "one by one; set less, or transfer.trunk for a pretrained trunk"
            )
        for layer in layers[: self.freeze_d]:
            layer.requires_grad_(False)

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Get to know the networks, once they are built; build what they need for this strategy.

        Raises:
            ValueError: they do not go with it.
        """

    def start(self, generator: Generator, discriminator: Discriminator) -> None:
        """Before the first batch of a new run, on its device."""

    def discriminator_terms(self, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the discriminator's loss. They train this strategy's own weights too."""
        return {}

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the generator's loss."""
        return {}
