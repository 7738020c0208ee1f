"""A trained generator for use elsewhere: from a run, a file or the hub, to pictures. Neither Lightning nor Hydra."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from PIL import Image
from torch import Tensor

from transfergen.images import to_grid, to_pil, to_uint8
from transfergen.networks.generators.base import Generator as Network
from transfergen.networks.generators.base import latents, sample
from transfergen.runs import artefacts

_FILES = (f"{artefacts.GENERATOR}.json", f"{artefacts.GENERATOR}.safetensors")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CARD = """---
library_name: transfergen
pipeline_tag: unconditional-image-generation
tags: [gan, image-generation]
---

# {title}

{pixels}x{pixels} images{classes}, from {network} with {parameters:,} parameters{seen}.

![Samples of seeds 0 to 63](grid.png)

```python
from transfergen import Generator

pictures = Generator.from_pretrained("PATH_OR_NAME")(seeds=[1, 2])
```

{metrics}"""


class PretrainedGenerator(ModelHubMixin):
    """Seeds in, pictures out. The same seed gives the same picture, whatever else is asked for.

    Args:
        network: frozen and in eval mode.
        about: what generator.json says of it.
        metrics: entries of metrics.json: of each number its extractor, counts, split and seed.
    """

    def __init__(self, network: Network, about: dict[str, Any], metrics: Sequence[dict[str, Any]] = ()) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self.about, self.metrics = about, list(metrics)
        self.device = torch.device("cpu")
        self._hub_mixin_config = None  # generator.json says it all

    @property
    def z_dim(self) -> int:
        """Numbers in a latent."""
        return self.network.z_dim

    @property
    def resolution(self) -> int:
        """Pixels of a side."""
        return self.network.resolution

    @property
    def num_classes(self) -> int:
        """0: unconditional."""
        return self.network.num_classes

    def to(self, device: str | torch.device) -> "PretrainedGenerator":
        """Compute there from now on."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def pixels(
        self,
        seeds: Sequence[int],
        *,
        classes: Sequence[int] = (),
        truncation: float | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Pixels (number of seeds, 3, R, R) uint8, on the CPU.

        Args:
            seeds: of the latents, one an image.
            classes: of a conditional generator: seed s gets the (s modulo their number)-th; none: all that it has.
            truncation: cut latents off at this distance from 0: better images of fewer kinds.
            batch_size: images computed at once.

        Raises:
            ValueError: a class that it does not have.
        """
        wrong = [y for y in classes if y not in range(self.num_classes)]
        if wrong:
            raise ValueError(f"classes={list(classes)}: this generator has {self.num_classes}, counted from 0")
        images = sample(
            self.network, seeds, self.device, batch_size=batch_size, truncation=truncation, classes=list(classes)
        )
        return to_uint8(images).cpu()

    def __call__(self, seeds: Sequence[int], **options: Any) -> list[Image.Image]:
        """Pictures of these seeds; options are those of `pixels`."""
        return [to_pil(each) for each in self.pixels(seeds, **options)]

    def grid(self, seeds: Sequence[int], **options: Any) -> Image.Image:
        """One picture of all."""
        return to_grid(self.pixels(seeds, **options))

    @torch.inference_mode()
    def interpolate(
        self, seeds: Sequence[int], *, frames: int = 30, label: int = 0, truncation: float | None = None
    ) -> Tensor:
        """Pixels (frames x (number of seeds - 1) + 1, 3, R, R) uint8 on the way from seed to seed, on the sphere.

        Latents of many dimensions lie near a sphere, and a straight line between two would leave it: White 2016,
        arXiv:1609.04468, section 2.1.

        Raises:
            ValueError: fewer than two seeds.
        """
        if len(seeds) < 2 or frames < 1:
            raise ValueError(
                f"interpolate={list(seeds)}, frames={frames}: give two seeds or more, and at least 1 frame"
            )
        ends = latents(seeds, self.z_dim, truncation=truncation)
        steps = torch.arange(frames) / frames
        z = torch.cat([slerp(a, b, steps) for a, b in pairwise(ends)] + [ends[-1:]])
        parts = [
            self.network(part.to(self.device), torch.full((len(part),), label, device=self.device))
            if self.num_classes
            else self.network(part.to(self.device))
            for part in torch.split(z, 64)
        ]
        return to_uint8(torch.cat(parts)).cpu()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "PretrainedGenerator":
        """From a run directory, a generator.safetensors with its JSON beside it, or a model of the hub.

        Raises:
            ValueError: nothing there, or its files are damaged.
        """
        name = str(pretrained_model_name_or_path)
        path = Path(name).expanduser()
        if path.suffix == ".safetensors" or path.exists() or not _HUB_NAME.fullmatch(name):
            return cls._of_folder(path.parent if path.suffix == ".safetensors" else path)
        try:
            return super().from_pretrained(name, **options)
        except ValueError:
            raise
        except Exception as error:  # the hub's errors have no common class
            reason = str(error).strip().splitlines()[0][:200]
            raise ValueError(f"run={name}: no such folder, and not to be had from the hub ({reason})") from error

    @classmethod
    def _of_folder(cls, folder: Path) -> "PretrainedGenerator":
        network = artefacts.load_generator(folder)
        metrics = folder / artefacts.METRICS
        entries = json.loads(metrics.read_text())["metrics"] if metrics.is_file() else ()
        return cls(network, artefacts.read_about(folder), entries)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "PretrainedGenerator":
        known = ("revision", "cache_dir", "force_download", "token", "local_files_only")
        hub = {name: options[name] for name in known if name in options}
        paths = [Path(hf_hub_download(model_id, file, **hub)) for file in _FILES]
        return cls._of_folder(paths[0].parent)

    def _save_pretrained(self, save_directory: Path) -> None:
        about = self.about
        artefacts.save_generator(
            save_directory, self.network, about["generator"], ema=about["ema"], images_seen=about["images_seen"]
        )
        self.grid(range(64)).save(save_directory / artefacts.GRID)
        if self.metrics:
            artefacts.write_json(save_directory / artefacts.METRICS, {"metrics": self.metrics})

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """A README with samples, and with each metric and how it was measured."""
        seen = self.about.get("images_seen")
        rows = "".join(
            f"| {m['name']} | {m['value']:.4g} | {m['extractor']} | {m['generated']:,} | {m['real']:,} {m['split']} |\n"
            for m in self.metrics
        )
        head = "| metric | value | features | samples | reals |\n|---|---|---|---|---|\n"
        return ModelCard(
            _CARD.format(
                title=options.get("title", "A generator made with transfergen"),
                pixels=self.resolution,
                classes=f" of {self.num_classes} classes" if self.num_classes else "",
                network=type(self.network).__name__,
                parameters=sum(p.numel() for p in self.network.parameters()),
                seen=f", trained on {seen:,} images" if seen else "",
                metrics=head + rows if rows else "",
            )
        )


def slerp(a: Tensor, b: Tensor, steps: Tensor) -> Tensor:
    """Latents (number of steps, Z) at these parts of the way from a to b, both (Z,), along a great circle."""
    angle = torch.acos((a / a.norm() @ (b / b.norm())).clamp(-1, 1))
    if angle.sin() < 1e-4:
        return torch.lerp(a, b, steps[:, None])
    left, right = torch.sin((1 - steps) * angle), torch.sin(steps * angle)
    return (left[:, None] * a + right[:, None] * b) / angle.sin()
