"""A trained generator in use: loaded from a run, a file or the hub, it turns seeds into images."""

import json
import logging
from collections.abc import Iterable
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from PIL import Image
from torch import Tensor

from transfergen.images import to_grid, to_pil, to_uint8
from transfergen.networks.generators.base import Generator as Network
from transfergen.networks.generators.base import latent_directions, sample
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_pretrained, save_generator

_CARD = """---
library_name: transfergen
pipeline_tag: unconditional-image-generation
tags: [gan, image-generation]
---

# {title}

Images of {shape}{classes}, from {network} with {parameters:,} parameters, {origin}.

![Samples of seeds 0 to 63](grid.png)

```python
from transfergen import Generator

pictures = Generator.from_pretrained("PATH_OR_NAME")(seeds=[1, 2])
```

{metrics}"""

_ROW = "| {name} | {value:.4g} | {extractor} | {generated:,} | {real:,} {split} |\n"

log = logging.getLogger(__name__)


class PretrainedGenerator(ModelHubMixin):
    """Seeds in, images out. A seed gives the same image whatever the other seeds and the batch size are.

    Args:
        network: frozen and in eval mode.
        metadata: see `transfergen.runs.generator_files.read_metadata`.
        metrics: records of metrics.json: each number with its extractor, counts, split and seed.

    Attributes:
        z_dim: dimensions of a latent.
        resolution: the shorter side of an image, in pixels.
        image_shape: channels, height and width of an image.
        num_classes: number of classes; 0 for an unconditional generator.
    """

    def __init__(self, network: Network, metadata: dict[str, Any], metrics: Iterable[dict[str, Any]] = ()) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self.z_dim, self.resolution, self.num_classes = network.z_dim, network.resolution, network.num_classes
        self.image_shape = network.image_shape
        self.metadata, self.metrics = metadata, list(metrics)
        self.device = torch.device("cpu")
        self._hub_mixin_config = None  # else the mixin writes a config.json

    @property
    def origin(self) -> str:
        """How it was trained, or where it comes from, in words."""
        its = self.metadata
        return f"from {its['origin']}" if "origin" in its else f"trained on {its['images_seen']:,} images"

    def to(self, device: str | torch.device) -> "PretrainedGenerator":
        """Move the network to a device, where all that follows is computed."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def pixels(
        self,
        seeds: Iterable[SupportsIndex],
        *,
        classes: Iterable[SupportsIndex] = (),
        truncation: float | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Seeds (N) -> pixels (N, C, H, W) uint8, on the CPU.

        Args:
            seeds: of the latents, one for each image: integers of any kind, or a tensor or an array of them.
            classes: those of a conditional generator to make; seed s gets `classes[s % len(classes)]`. None are given:
                all that it has.
            truncation: draw latents from N(0, 1) truncated at this distance from 0, for better images of less variety;
                a BigGAN-deep has latents and statistics of its own for it, see `BigGANDeep`.
            batch_size: images computed at once.

        Raises:
            ValueError: there is no seed, the generator has no such class, or another option is out of range.
        """
        numbers, wanted = [index(seed) for seed in seeds], [index(y) for y in classes]
        if not numbers:
            raise ValueError("seeds=[]: give at least one")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give at least 1")
        self._check("classes", wanted, truncation)
        images = sample(
            self.network, numbers, self.device, batch_size=batch_size, truncation=truncation, classes=wanted
        )
        return to_uint8(images).cpu()

    def _check(self, option: str, classes: list[int], truncation: float | None) -> None:
        if any(y not in range(self.num_classes) for y in classes):
            raise ValueError(f"{option}={classes}: this generator has {self.num_classes} classes, counted from 0")
        if truncation is not None and not truncation > 0:
            raise ValueError(f"truncation={truncation}: give a number above 0, or None for none")

    def __call__(self, seeds: Iterable[SupportsIndex], **options: Any) -> list[Image.Image]:
        """Images of these seeds, grey, RGB or RGBA; the options are those of `pixels`."""
        return [to_pil(each) for each in self.pixels(seeds, **options)]

    def grid(self, seeds: Iterable[SupportsIndex], **options: Any) -> Image.Image:
        """The images of these seeds in one grid; the options are those of `pixels`."""
        return to_grid(self.pixels(seeds, **options))

    def interpolate(
        self, seeds: Iterable[SupportsIndex], *, frames: int = 30, label: int = 0, truncation: float | None = None
    ) -> Tensor:
        """Images between the latents of N seeds -> pixels (frames * (N - 1) + 1, C, H, W) uint8, on the CPU.

        The interpolation is spherical: Gaussian latents of many dimensions lie near a sphere, which a straight line
        between two of them leaves. White 2016, arXiv:1609.04468, section 2.1.

        Args:
            seeds: of the latents, two or more.
            frames: from one seed to the next.
            label: class of a conditional generator.
            truncation: see `pixels`.

        Raises:
            ValueError: there are fewer than two seeds or less than one frame, or an option is out of range.
        """
        numbers = [index(seed) for seed in seeds]
        if len(numbers) < 2 or frames < 1:
            raise ValueError(f"interpolate={numbers}, frames={frames}: give at least two seeds, and at least one frame")
        self._check("label", [label] if label or self.num_classes else [], truncation)
        ends = self.network.latents(numbers, truncation)
        fractions = torch.arange(frames) / frames
        z = torch.cat([slerp(a, b, fractions) for a, b in pairwise(ends)] + [ends[-1:]])
        return self._pixels_of(z, label, truncation)

    def directions(self, count: int) -> Tensor:
        """The unit vectors (count, Z) in the latent space that change the images most, see `latent_directions`."""
        return latent_directions(self.network, count)

    def vary(self, seed: SupportsIndex, offsets: Tensor, *, label: int = 0, truncation: float | None = None) -> Tensor:
        """Images of one seed's latent plus each of the offsets (N, Z) -> pixels (N, C, H, W) uint8, on the CPU.

        Args:
            seed: of the latent.
            offsets: added to it, such as multiples of `directions`. Along each, latents have a standard deviation of 1.
            label: class of a conditional generator.
            truncation: see `pixels`.

        Raises:
            ValueError: an option is out of range.
        """
        self._check("label", [label] if label or self.num_classes else [], truncation)
        z = self.network.latents([index(seed)], truncation)
        return self._pixels_of(z + offsets.cpu(), label, truncation)

    @torch.inference_mode()
    def _pixels_of(self, z: Tensor, label: int, truncation: float | None) -> Tensor:
        """Latents (N, Z) of this truncation -> pixels (N, C, H, W) uint8 of one class, on the CPU."""
        self.network.truncate(truncation)
        try:
            parts = [
                self.network(part, torch.full((len(part),), label, device=self.device))
                for part in torch.split(z.to(self.device), 64)
            ]
        finally:
            self.network.truncate(None)
        return to_uint8(torch.cat(parts)).cpu()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "PretrainedGenerator":
        """Load a generator of a run, of this package, of the Hugging Face hub, or of another project.

        Args:
            pretrained_model_name_or_path: a run directory; a `generator.safetensors` with its JSON beside it;
                `builtin:cifar10`, which comes with this package; a model of the hub, as `owner/model`; or another
                project's file, as `studiogan:FILE`, `biggan_pytorch:FILE` or `biggan_deep:FILE`. All but the first two
                are given as a str, not as a Path.
            options: of the download, such as `revision` or `token`.

        Raises:
            ValueError: it does not exist, or its files are damaged.
        """
        network, metadata, folder = load_pretrained(pretrained_model_name_or_path, **options)
        return cls(network, metadata, _read_metrics(folder / artefacts.METRICS))

    def _save_pretrained(self, save_directory: Path) -> None:
        its = self.metadata
        about = {"ema": its["ema"], "images_seen": its["images_seen"], "origin": its.get("origin")}
        save_generator(save_directory, self.network, its["generator"], **about)
        artefacts.write_picture(save_directory / artefacts.GRID, self.grid(range(64)))
        if self.metrics:
            artefacts.write_json(save_directory / artefacts.METRICS, {"metrics": self.metrics})

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """The README of the model on the hub, with a grid of samples, and each metric with how it was measured."""
        rows = "".join(_ROW.format(**record) for record in self.metrics)
        head = "| metric | value | features | samples | reals |\n|---|---|---|---|---|\n"
        return ModelCard(
            _CARD.format(
                title=options.get("title", "A generator made with transfergen"),
                shape=self.image_shape,
                classes=f" of {self.num_classes} classes" if self.num_classes else "",
                network=type(self.network).__name__,
                parameters=sum(p.numel() for p in self.network.parameters()),
                origin=self.origin,
                metrics=head + rows if rows else "",
            )
        )


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.json; none if there is none, or it is damaged."""
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text())["metrics"] if path.is_file() else []
        _ = [_ROW.format(**record) for record in records]
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning(f"{path} is damaged, and left out ({type(error).__name__})")
        return []
    return records


def slerp(a: Tensor, b: Tensor, fractions: Tensor) -> Tensor:
    """Spherical interpolation from latent a (Z,) to b (Z,) at fractions (S,) in [0, 1] -> latents (S, Z)."""
    angle = torch.acos((a / a.norm() @ (b / b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, fractions[:, None])
    left, right = torch.sin((1 - fractions) * angle), torch.sin(fractions * angle)
    return (left[:, None] * a + right[:, None] * b) / angle.sin()
