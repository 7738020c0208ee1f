"""A small generator learns from a large one."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.transfer.initialisation import load_source_generator
from transfergen.transfer.strategy import Pairs, Strategy


class Distillation(Strategy):
    """The generator in training, the student, is to make of each latent what a teacher makes of it.

    Its loss is `adversarial` times the adversarial one, `output` times the mean absolute difference of the pixels from
    the teacher's, and `perceptual` times their distance in the features of a frozen trunk. Output terms with an
    adversarial one: Chang and Lu 2020, arXiv:2009.13829 (TinyGAN), equations 2 to 5; output alone: Aguinaldo 2019,
    arXiv:1902.00159. The teacher is frozen and in eval mode, and is asked once a batch.

    Args:
        teacher: a run directory, or a name on the hub.
        backbone: the trunk of the perceptual term; not trained, whatever the discriminator does with its own.
        output, perceptual, adversarial: weights; 0 leaves a term out.
        trunk: see Strategy.

    Raises:
        ValueError: a weight below 0, or a perceptual term without a trunk.
    """

    def __init__(
        self,
        *,
        teacher: str,
        backbone: Backbone | None = None,
        output: float = 1.0,
        perceptual: float = 1.0,
        adversarial: float = 1.0,
        **trunk: Any,
    ) -> None:
        super().__init__(**trunk)
        for name, weight in {"output": output, "perceptual": perceptual, "adversarial": adversarial}.items():
            if weight < 0:
                raise ValueError(f"transfer.{name}={weight}: a weight is 0 or more")
        if perceptual and not isinstance(backbone, Backbone):  # the nothing that backbone=none leaves
            raise ValueError(
                f"transfer.perceptual={perceptual}: there is no pretrained trunk to compare features of; set "
                "backbone=efficientnet_lite0, or transfer.perceptual=0"
            )
        self.where, self.output, self.perceptual, self.adversarial = teacher, output, perceptual, adversarial
        self.has_terms = bool(output or perceptual)
        hidden: tuple[Backbone, ...] = (self.add_frozen(backbone),) if backbone is not None and perceptual else ()
        self._trunk = hidden  # in a tuple, which modules do not look into

    @property
    def teacher(self) -> Generator:
        """The teacher, once attached."""
        return self._teacher[0]

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Read the teacher, and see that it makes images like the student's of latents like the student's.

        Raises:
            ValueError: it cannot be read, or does not.
        """
        teacher = load_source_generator(self.where, "transfer.teacher")
        for name, here in {"resolution": "data", "z_dim": "generator", "num_classes": "data"}.items():
            its, ours = getattr(teacher, name), getattr(generator, name)
            if its != ours:
                raise ValueError(
                    f"transfer.teacher={self.where}: its {name} is {its}, and the student's is {ours}; set "
                    f"{here}.{name}={its}"
                )
        self._teacher = (self.add_frozen(teacher),)
        for backbone in self._trunk:
            fold_batchnorm(backbone, generator.resolution)

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """`output` and `perceptual`."""
        with torch.no_grad():
            target = self.teacher(pairs.z, pairs.y)
        terms = {}
        if self.output:
            terms["output"] = self.output * F.l1_loss(pairs.fake.float(), target.float())
        for backbone in self._trunk:
            with torch.no_grad():
                wanted = backbone(target)
            terms["perceptual"] = self.perceptual * perceptual_distance(backbone(pairs.fake), wanted)
        return terms
