"""Distillation: a small generator learns from a large one."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.errors import counted
from transfergen.images import to_rgb
from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.runs.generator_files import load_pretrained
from transfergen.transfer.initialisation import check_same_images
from transfergen.transfer.strategy import Pairs, Strategy


class Distillation(Strategy):
    """Trains the generator, the student, to make the same image of each latent as a teacher.

    The student's loss is `adversarial` times the adversarial loss, plus `output` times the mean absolute difference
    between its pixels and the teacher's, plus `perceptual` times their distance in the features of a frozen trunk. The
    teacher is frozen and in eval mode. With an adversarial loss: Chang and Lu 2020, arXiv:2009.13829 (TinyGAN),
    equations 2 to 5; without: Aguinaldo 2019, arXiv:1902.00159.

    Args:
        teacher: a run directory, or what else `load_pretrained` finds.
        backbone: the trunk of the perceptual term; it stays frozen, even if the discriminator's own trunk trains.
        output, perceptual, adversarial: weights; a term of weight 0 is not computed.
        settings: those of `Strategy`.

    Raises:
        ValueError: a weight below 0, or a perceptual term without a backbone.
    """

    teacher: Generator
    """`attach` reads it."""

    def __init__(
        self,
        *,
        teacher: str,
        backbone: Backbone | None = None,
        output: float = 1.0,
        perceptual: float = 1.0,
        adversarial: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._take_trunk(backbone, {"perceptual": perceptual})
        self.path, self.output, self.perceptual, self.adversarial = teacher, output, perceptual, adversarial
        self.has_terms = bool(output or perceptual)

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Read the teacher, and check that its latents, classes and images have the sizes of the student's.

        Raises:
            ValueError: it cannot be read, or has other sizes.
        """
        teacher, *_ = load_pretrained(self.path, "transfer.teacher")
        check_same_images(teacher, generator, f"transfer.teacher={self.path}")
        if teacher.z_dim != generator.z_dim:
            raise ValueError(
                f"transfer.teacher={self.path}: its z_dim is {teacher.z_dim}, and the student's is {generator.z_dim}; "
                f"set generator.z_dim={teacher.z_dim}"
            )
        _check_same_classes(teacher, generator, f"transfer.teacher={self.path}")
        self.add_frozen("teacher", teacher)
        self._fold_trunk(generator)

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted terms `output` and `perceptual`."""
        with torch.no_grad():
            target = self.teacher(pairs.z, pairs.y)
        terms = {}
        if self.output:
            terms["output"] = self.output * F.l1_loss(pairs.fake.float(), target.float())
        if self._trunk is not None:
            with torch.no_grad():
                target_features = self._trunk(to_rgb(target))
            features = self._trunk(to_rgb(pairs.fake))
            terms["perceptual"] = self.perceptual * perceptual_distance(features, target_features)
        return terms


def _check_same_classes(teacher: Generator, student: Generator, setting: str) -> None:
    """Check that the student is told of as many classes as the teacher.

    Raises:
        ValueError: it is not. The message begins with the `setting` that names the teacher.
    """
    theirs, ours = teacher.num_classes, student.num_classes
    if theirs == ours:
        return
    if theirs > 1:
        mend = f"give pictures of {theirs} classes, in the teacher's order, and set data.num_classes=null"
    else:
        mend = f"set data.num_classes={theirs}"
    if theirs and "num_classes" not in signature(type(student)).parameters:
        mend = f"choose a student that can be told of classes, as generator=biggan is, and {mend}"
    raise ValueError(f"{setting}: it knows {counted(theirs, 'class', 'classes')}, and the student {ours}; {mend}")
