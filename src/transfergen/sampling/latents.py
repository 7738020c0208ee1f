"""Latents that a generator takes in place of seeds, such as that of a picture, and their files."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import SupportsIndex

import torch
from safetensors.torch import save
from torch import Tensor

from transfergen.errors import counted
from transfergen.networks.class_mixtures import to_labels, to_weights
from transfergen.networks.generators.base import Generator
from transfergen.networks.weights import read_state_dict
from transfergen.runs.artefacts import write

LATENT = "latent.safetensors"
"""File that `transfergen generate invert=PICTURE` writes."""


@dataclass(frozen=True, eq=False)
class Latent:
    """A latent, and the class that it was found for.

    Attributes:
        z: (1, Z) float32.
        y: class (1,) int64, or weights (1, `num_classes`) float32 of a mixture; None: the generator has no classes, or
            the class is given with `classes` wherever the latent is used.
    """

    z: Tensor = field(repr=False)
    y: Tensor | None = field(default=None, repr=False)

    def save(self, path: Path) -> None:
        """Write it as safetensors of the names `z` and `y`, whole or not at all."""
        tensors = {"z": self.z} if self.y is None else {"z": self.z, "y": self.y}
        write(path, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))

    def check(self, network: Generator, given: str = "latent") -> None:
        """Check that a generator can take it.

        Raises:
            ValueError: it is damaged, or of another generator. The message begins with what it was `given` as.
        """
        wanted = f"(1, {network.z_dim}) of torch.float32"
        found = f"{tuple(self.z.shape)} of {self.z.dtype}"
        if found != wanted:
            raise ValueError(f"{given}: z is {found}, but this generator takes {wanted}; give a latent of its own")
        if not torch.isfinite(self.z).all():
            raise ValueError(f"{given}: damaged: z contains NaN or infinity")
        if self.y is not None and not _is_label(self.y, network.num_classes):
            has = counted(network.num_classes, "class", "classes")
            raise ValueError(f"{given}: y is no class of this generator, which has {has}; give a latent of its own")


def read_latent(path: Path, network: Generator, override: str = "latent") -> Latent:
    """The latent in a file that `Latent.save` wrote.

    Args:
        path: of the file.
        network: that is to take the latent.
        override: what the path was given as, which error messages begin with.

    Raises:
        ValueError: there is no such file, it is damaged or holds something else, or the latent is of another generator.
    """
    tensors = read_state_dict(path, override) if path.suffix == ".safetensors" else {}
    if not {"z"} <= tensors.keys() <= {"z", "y"}:
        raise ValueError(f"{override}={path}: is no latent; give a {LATENT} that generate invert=PICTURE has written")
    latent = Latent(**tensors)
    latent.check(network, f"{override}={path}")
    return latent


def inputs_of(
    network: Generator,
    seeds: Iterable[SupportsIndex | Latent],
    labels: Tensor | None,
    *,
    truncation: float | None = None,
    in_turn: bool = False,
) -> list[Tensor]:
    """The inputs of a generator for N seeds or latents: latents (N, Z) and their labels, see `to_labels`.

    Args:
        network: the generator.
        seeds: of latents, or latents.
        labels: classes or mixtures for them. None: a latent has its own, and seed s has class s modulo their number.
        truncation: of the seeds' latents.
        in_turn: whether the first seed has the first of the labels, and so on, as latents always have; else seed s has
            `labels[s % len(labels)]`.

    Raises:
        ValueError: a latent is of another generator, or its class is not known.
    """
    every = to_labels((), network.num_classes)
    z, y = [], []
    for place, seed in enumerate(seeds):
        if isinstance(seed, Latent):
            seed.check(network)
            if labels is None and seed.y is None and network.num_classes:
                raise ValueError("classes=[]: the class of the latent is not known; give it, as in classes=[3]")
            z.append(seed.z.cpu())
            own, turn = every[:1] if seed.y is None else seed.y.cpu(), place
        else:
            number = index(seed)
            z.append(network.latents([number], truncation))
            own, turn = every[[number % len(every)]], place if in_turn else number
        y.append(own if labels is None else labels[[turn % len(labels)]])
    if any(label.is_floating_point() for label in y):
        y = [to_weights(label, network.num_classes) for label in y]
    return [torch.cat(z), torch.cat(y)]


def _is_label(y: Tensor, num_classes: int) -> bool:
    """Whether it is what `to_labels` makes of one class, or of one mixture."""
    if y.dtype == torch.int64:
        return y.shape == (1,) and 0 <= int(y) < num_classes
    of_mixture = y.dtype == torch.float and y.shape == (1, num_classes)
    return of_mixture and bool((y >= 0).all() and (y.sum() - 1).abs() < 1e-3)
