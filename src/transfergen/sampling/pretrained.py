"""A trained generator, loaded from a run, a file or the hub, and saved again."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin

from transfergen.networks.generators.base import Generator
from transfergen.runs import artefacts
from transfergen.runs.generator_files import load_pretrained, save_copy
from transfergen.sampling.image_generator import ImageGenerator
from transfergen.sampling.model_card import model_card, read_metrics


class PretrainedGenerator(ImageGenerator, ModelHubMixin):
    """A generator with what is known of it: how it was trained, and its metrics.

    Args:
        network: frozen and in eval mode.
        metadata: see `transfergen.runs.generator_files.read_metadata`.
        metrics: records of metrics.json: each number with its extractor, counts, split and seed.
    """

    def __init__(self, network: Generator, metadata: dict[str, Any], metrics: Iterable[dict[str, Any]] = ()) -> None:
        super().__init__(network, metadata.get("classes", ()))
        self.metadata, self.metrics = metadata, list(metrics)
        self._hub_mixin_config = None  # else the mixin writes a config.json

    @property
    def origin(self) -> str:
        """How it was trained, or where it comes from, in words."""
        its = self.metadata
        if "origin" in its:
            return f"from {its['origin']}"
        start = f", started from {its['started_from']}" if "started_from" in its else ""
        return f"trained on {its['images_seen']:,} images (repeats counted){start}"

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "PretrainedGenerator":
        """Load a generator of a run, of this package, of the Hugging Face hub, or of another project.

        Args:
            pretrained_model_name_or_path: a run directory, or a `generator.safetensors` with its JSON beside it; and as
                a str, not as a Path, `builtin:cifar10`, which comes with this package; a model of the hub, as
                `owner/model`; or another project's file, as `studiogan:FILE`, `biggan_pytorch:FILE` or
                `biggan_deep:FILE`.
            options: those of `load_pretrained`, such as `revision` or `token` of the download.

        Raises:
            ValueError: it does not exist, or its files are damaged.
        """
        network, metadata, folder = load_pretrained(pretrained_model_name_or_path, **options)
        return cls(network, metadata, read_metrics(folder / artefacts.METRICS))

    def _save_pretrained(self, save_directory: Path) -> None:
        save_copy(save_directory, self.network, self.metadata)
        artefacts.write_picture(save_directory / artefacts.GRID, self.grid(range(64)))
        if self.metrics:
            artefacts.write_json(save_directory / artefacts.METRICS, {"metrics": self.metrics})

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """The README of the model on the hub. The options are the `title` and the `license` of `model_card`."""
        about = {"classes": self.metadata.get("classes", ()), "origin": self.origin, **options}
        return model_card(self.network, self.metrics, **about)
