"""Generators whose blocks are conditioned, and style mixing: coarse forms of one latent, details of another."""

from collections.abc import Sequence

from torch import Tensor

from transfergen.networks.generators.base import Generator


class StyledGenerator(Generator):
    """A generator in two steps: inputs -> what conditions each of its layers -> images.

    Attributes:
        blocks: each takes a condition.
    """

    def conditions(self, z: Tensor, y: Tensor | None = None) -> Sequence[Tensor | None]:
        """Latents (B, Z), classes (B,) -> the input of the first layer, and the condition of each block, or None."""
        raise NotImplementedError

    def synthesize(self, conditions: Sequence[Tensor | None]) -> Tensor:
        """The input of the first layer and the condition of each block -> images (B, C, H, W) in [-1, 1]."""
        raise NotImplementedError

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents (B, Z), classes (B,) -> images (B, C, H, W) in [-1, 1]. An unconditional generator ignores `y`.

        Weights (B, `num_classes`) of float in place of the classes make mixtures of them.
        """
        return self.synthesize(self.conditions(z, y))


def mix_styles(
    generator: Generator, coarse_z: Tensor, coarse_y: Tensor, fine_z: Tensor, fine_y: Tensor, *, block: int
) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] with the coarse forms of some latents and classes, and the details of others.

    Karras 2019, arXiv:1812.04948, section 3.1, where the training mixes styles, too. BigGAN's training does not, but
    its blocks can take different latents all the same: Härkönen 2020, arXiv:2004.02546.

    Args:
        generator: in eval mode.
        coarse_z: latents (B, Z) of all layers before the block.
        coarse_y: their classes (B,), or weights of classes.
        fine_z: latents (B, Z) of the block and of all after it.
        fine_y: their classes (B,), or weights of classes.
        block: 1 to `latent_blocks`.

    Raises:
        ValueError: no block takes the latent, or not this one.
    """
    if not isinstance(generator, StyledGenerator) or not generator.latent_blocks:
        name = type(generator).__name__
        raise ValueError(f"coarse, fine: the latent of this {name} enters before its blocks only, so it has no styles")
    if not 1 <= block <= generator.latent_blocks:
        raise ValueError(f"block={block}: choose 1 to {generator.latent_blocks}, the blocks that take the latent")
    coarse, fine = generator.conditions(coarse_z, coarse_y), generator.conditions(fine_z, fine_y)
    return generator.synthesize([*coarse[:block], *fine[block:]])
