"""The base of all transfer strategies: which pretrained weights train, from when on, and how fast."""

from typing import Literal, NamedTuple

from torch import Tensor

from transfergen.errors import counted
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.unregistered import UnregisteredModules
from transfergen.transfer.generator_weights import Selection

Mode = Literal["frozen", "trainable", "last_k", "gradual"]


class Pairs(NamedTuple):
    """A batch of B fakes and B reals, on which a strategy computes its own loss terms."""

    z: Tensor
    """(B, Z), the latents of the fakes."""
    y: Tensor | None
    """(B,), their classes, if the generator is conditional."""
    fake: Tensor
    """(B, C, H, W) in [-1, 1], not augmented; detached from the generator in the discriminator's turn."""
    real: Tensor
    """(B, C, H, W) in [-1, 1], not augmented."""


class Strategy(UnregisteredModules):
    """Decides which pretrained weights of both networks train. Subclasses add loss terms of their own.

    Args:
        trunk: the blocks that train: `frozen` (none), `trainable` (all), `last_k` (the `last_k` deepest), or `gradual`
            (none at first, then one more each `unfreeze_every_images`, the deepest first).
        last_k: number of blocks, for `last_k`.
        unfreeze_every_images: number of real images, for `gradual`, of the trunk and of the generator.
        cache_mib: memory for the frozen blocks' features of real images, which are then computed once instead of in
            each epoch; 0, or too little for all images: they are not kept.
        trunk_lr_scale: learning rate of the trunk, as a multiple of that of the discriminator's other layers.
        freeze_d: number of the lowest layers of a discriminator without a pretrained trunk that keep their initial
            weights. Mo 2020, arXiv:2002.10964 (FreezeD).
        generator: the generator's weights that train, see `select_weights`; or `gradual`: `norms` at first, then one
            more block each `unfreeze_every_images`, from the pixels on, and at last everything. Embeddings of classes
            always train.
        generator_last_k: number of blocks, for `last_k`.
        generator_lr_scale: learning rate of the generator's weights, as a multiple of that of its class embeddings.
        new_classes: what the generator's class embeddings are where `init_from.generator` has others: tables that
            start from the `mean` of the source's rows, or a `mixture` of these, whose coefficients train (Shahbazi
            2021, arXiv:2102.06696).
    """

    adversarial: float = 1.0
    """Weight of the adversarial loss in the generator's loss."""
    has_terms: bool = False
    """Whether the strategy has loss terms of its own, and needs `Pairs`."""
    min_images: int = 1
    """The smallest batch that these terms can be computed on."""
    _trunk: Backbone | None = None
    """The frozen network whose features the loss terms compare; None if no term compares features."""

    def __init__(
        self,
        *,
        trunk: Mode = "frozen",
        last_k: int = 1,
        unfreeze_every_images: int = 100_000,
        cache_mib: int = 2048,
        trunk_lr_scale: float = 1.0,
        freeze_d: int = 0,
        generator: Selection = "all",
        generator_last_k: int = 1,
        generator_lr_scale: float = 1.0,
        new_classes: Literal["mean", "mixture"] = "mean",
    ) -> None:
        super().__init__()
        self.trunk, self.last_k, self.unfreeze_every_images = trunk, last_k, unfreeze_every_images
        self.cache_mib, self.trunk_lr_scale, self.freeze_d = cache_mib, trunk_lr_scale, freeze_d
        self.generator, self.generator_last_k = generator, generator_last_k
        self.generator_lr_scale, self.new_classes = generator_lr_scale, new_classes

    def frozen_blocks(self, blocks: int, images_seen: int) -> int:
        """How many of a trunk's `blocks`, counted from the lowest, are frozen after `images_seen` real images.

        Raises:
            ValueError: the trunk has fewer blocks than are to train.
        """
        if self.trunk == "trainable":
            return 0
        if self.trunk == "last_k":
            if blocks == 0:
                raise ValueError("transfer.trunk=last_k: nothing in this discriminator is pretrained; set frozen")
            if self.last_k > blocks:
                raise ValueError(
                    f"transfer.last_k={self.last_k}: the trunk has {counted(blocks, 'block')} up to its cut; set "
                    f"transfer.last_k={blocks} or transfer.trunk=trainable"
                )
            return blocks - self.last_k
        if self.trunk == "gradual":
            return max(0, blocks - images_seen // self.unfreeze_every_images)
        return blocks

    def freeze_lowest(self, discriminator: Discriminator) -> None:
        """Freeze the discriminator's `freeze_d` lowest layers for the whole training.

        Raises:
            ValueError: it has fewer such layers.
        """
        layers = discriminator.lowest_layers()
        if self.freeze_d > len(layers):
            raise ValueError(
                f"transfer.freeze_d={self.freeze_d}: this discriminator has {counted(len(layers), 'layer')} that can "
                "be frozen one by one; set less, or transfer.trunk for a pretrained trunk"
            )
        for layer in layers[: self.freeze_d]:
            layer.requires_grad_(False)

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Prepare for these networks, once they are built. May change the generator's weights.

        Raises:
            ValueError: the strategy cannot be used with these networks.
        """

    def start(self, generator: Generator, discriminator: Discriminator) -> None:
        """Prepare for the first batch of a new training, on its device. A resumed training does not call it."""

    def discriminator_terms(self, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the discriminator's loss. They also train this strategy's parameters."""
        return {}

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """Weighted scalars by name, added to the generator's loss."""
        return {}

    def _take_trunk(self, backbone: Backbone | None, weights: dict[str, float]) -> None:
        """Keep the trunk of the loss terms with these weights, unless all of them are 0."""
        used = [name for name, weight in weights.items() if weight]
        if not used:
            return
        if not isinstance(backbone, Backbone):  # backbone=none gives an empty dict
            raise ValueError(
                f"{used[0]}={weights[used[0]]}: this term needs the features of a pretrained trunk; set "
                "backbone=efficientnet_lite0, or a weight of 0"
            )
        self.add_frozen("_trunk", backbone)

    def _fold_trunk(self, generator: Generator) -> None:
        """Make the trunk, if there is one, faster on images of the generator's size."""
        if self._trunk is not None:
            fold_batchnorm(self._trunk, generator.image_shape.size)
