"""The base of all generators, and how images are sampled from them."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.image_shape import ImageShape, image_shape
from transfergen.networks.layers.checkpointing import checkpointed


class Generator(nn.Module):
    """Latents (B, Z) ~ N(0, 1), and classes (B,) where `num_classes` is not 0 -> images (B, C, H, W) in [-1, 1].

    Weights (B, `num_classes`) of float, in place of the classes, make mixtures of these: see `ClassEmbedding`.
    """

    z_dim: int
    """Z."""
    resolution: int
    """The shorter side of an image, in pixels."""
    aspect: Sequence[int] = (1, 1)
    """Width and height of an image, as the smallest whole numbers or multiples of these."""
    image_channels: int = 3
    """C, the number of an image's channels: 1, 3 or 4."""
    num_classes: int = 0
    """Number of classes; 0 if the generator is unconditional."""
    latent_blocks: int = 0
    """Number of blocks that take the latent or a part of it; 0: it enters before the blocks only."""
    checkpointing: bool = False
    """Whether the backward pass computes each block once more, for whose gradients less is kept then."""

    @property
    def image_shape(self) -> ImageShape:
        """C, H and W."""
        return image_shape(self.resolution, self.aspect, self.image_channels)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The blocks in their order, each with all that follows it before the next one; the last makes the pixels.

        No stage holds what comes before the first block, nor an embedding of classes that blocks share.
        """
        return ()

    def apply_block(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        """`block(*inputs)`, by `checkpointed` if `checkpointing` is set. To be used for all that takes much memory."""
        return checkpointed(block, *inputs) if self.checkpointing else cast(Tensor, block(*inputs))

    def regularization(self) -> Tensor | None:
        """A scalar to be added to the generator's loss, or None."""
        return None

    def latent_weight(self) -> Tensor:
        """The matrix (N, Z) that the latent is multiplied by first; that of several layers is stacked, row by row.

        Raises:
            ValueError: this generator does not say which weights take the latent.
        """
        raise ValueError(f"directions: this {type(self).__name__} does not say which of its weights take the latent")

    def latents(self, seeds: Iterable[int], truncation: float | None = None) -> Tensor:
        """Latents (number of seeds, Z), one for each seed; for the truncation, see the function `latents`."""
        return latents(seeds, self.z_dim, truncation=truncation)

    def truncate(self, truncation: float | None) -> None:
        """Prepare for latents of this truncation, until the next call. None: latents that are not truncated."""


def latents(seeds: Iterable[int], z_dim: int, *, truncation: float | None = None) -> Tensor:
    """Latents (number of seeds, Z) from N(0, 1). A seed always gives the same latent, whatever the other seeds are.

    Args:
        seeds: one for each latent.
        z_dim: Z.
        truncation: draw from N(0, 1) truncated to [-truncation, truncation], which gives better images of less variety
            (Brock 2019, arXiv:1809.11096, section 3.1). None: no truncation.
    """
    sources = [torch.Generator().manual_seed(seed) for seed in seeds]
    if truncation is None:
        return torch.stack([torch.randn(z_dim, generator=source) for source in sources])
    z = torch.empty(len(sources), z_dim)
    for row, source in zip(z, sources, strict=True):
        nn.init.trunc_normal_(row, a=-truncation, b=truncation, generator=source)
    return z


@torch.no_grad()
def offset_latent(z: Tensor, offsets: Tensor) -> Tensor:
    """A latent (1, Z) plus each of the offsets (N, Z), or plus one (Z,) -> (N, Z).

    Raises:
        ValueError: the offsets have another shape.
    """
    if offsets.ndim not in (1, 2) or not len(offsets) or offsets.shape[-1] != z.shape[1]:
        size = z.shape[1]
        raise ValueError(f"offsets of shape {tuple(offsets.shape)}: give (N, {size}), or ({size},) for one")
    return z + offsets


def slerp(a: Tensor, b: Tensor, part: Tensor) -> Tensor:
    """Spherical interpolation from latents a (S, Z) to b (S, Z) at parts (S, 1) in [0, 1] of the way -> (S, Z)."""
    angle = torch.acos(F.cosine_similarity(a, b)[:, None].clamp(-1, 1))
    arc = (torch.sin((1 - part) * angle) * a + torch.sin(part * angle) * b) / angle.sin()
    return torch.where(angle.sin() < 1e-4, torch.lerp(a, b, part), arc)


def latent_directions(generator: Generator, count: int) -> Tensor:
    """The unit vectors (count, Z) in the latent space along which the generator changes its images most, most first.

    They are the eigenvectors of A'A with the largest eigenvalues, A being the matrix that takes the latent: a step of
    length t changes the outputs of these layers by t times the root of the eigenvalue. Shen and Zhou 2021,
    arXiv:2007.06600, sec. 3 (SeFa). Their code also scales each row of A to a length of 1, which the paper does not.
    Of the two directions along a line, the one whose largest entry is positive is given.

    Args:
        generator: in eval mode.
        count: number of directions, 1 to Z.

    Raises:
        ValueError: there are not as many, or the generator does not say which weights take the latent.
    """
    if not 1 <= count <= generator.z_dim:
        raise ValueError(f"directions={count}: choose 1 to {generator.z_dim}, the dimensions of the latent")
    weight = generator.latent_weight().cpu().double()  # MPS has no float64
    vectors: Tensor = torch.linalg.eigh(weight.T @ weight).eigenvectors.T.flip(0)[:count]  # that of the largest is last
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return (vectors * largest.sign()).float()


@torch.no_grad()
def sample(
    generator: Generator,
    seeds: Sequence[int],
    device: torch.device,
    *,
    batch_size: int = 64,
    truncation: float | None = None,
    classes: Sequence[int] | Tensor = (),
) -> Tensor:
    """Images (number of seeds, C, H, W) in [-1, 1], one for each seed, made in eval mode.

    Args:
        generator: is left in the mode, training or eval, that it was in.
        seeds: of the latents, see `Generator.latents`.
        device: where the generator is.
        batch_size: images at a time.
        truncation: see `Generator.latents`.
        classes: of a conditional generator, integers or weights (N, `num_classes`); empty: all of its classes. Seed s
            gets classes[s % len(classes)].
    """
    was_training = generator.training
    generator.eval().truncate(truncation)
    try:
        z = generator.latents(seeds, truncation).to(device)
        wanted = torch.as_tensor(classes if len(classes) else range(generator.num_classes or 1))
        y = wanted[[seed % len(wanted) for seed in seeds]].to(device)
        parts = zip(torch.split(z, batch_size), torch.split(y, batch_size), strict=True)
        return torch.cat([generator(*part) for part in parts])
    finally:
        generator.train(was_training).truncate(None)
