"""The pictures that the page of `transfergen explore` shows, each from the values of its controls."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from transfergen.runs import artefacts

if TYPE_CHECKING:
    from PIL import Image

    from transfergen.sampling.pretrained import PretrainedGenerator

SHOWN_HEIGHT = 480
"""Pixels that an image on the page is about as high as."""
NEAREST = 5
"""Training pictures shown beside an image."""
NO_TRUNCATION = 2.0
"""Position of the slider at which latents are not truncated."""
BY_SEED = -1
"""Choice of class that gives each seed the class it has among samples."""


def samples(generator: "PretrainedGenerator", seed: int, count: int, truncation: float, label: int) -> "Image.Image":
    """A grid of `count` images, of seeds from `seed` on, and of class `label` or `BY_SEED`."""
    cut = truncation if truncation < NO_TRUNCATION else None
    return generator.grid(range(seed, seed + count), truncation=cut, classes=_classes(label))


def between(
    generator: "PretrainedGenerator", first: int, second: int, part: float, label: int, other: int
) -> "Image.Image":
    """The image at a fraction `part`, in [0, 1], of the way from one seed and class, or `BY_SEED`, to others."""
    from transfergen.images import to_pil

    ends = ((first, label), (second, other))
    classes = [seed % generator.num_classes if y == BY_SEED else y for seed, y in ends] if generator.num_classes else []
    return to_pil(generator.interpolate([first, second], frames=[part], classes=classes)[0])


def mixed(generator: "PretrainedGenerator", coarse: int, fine: int, block: int, label: int) -> "Image.Image":
    """The image of one seed with the details of another, which begin at a block; of class `label`, or `BY_SEED`."""
    from transfergen.images import to_pil

    return to_pil(generator.mix_styles([coarse], [fine], block=block, classes=_classes(label))[0, 0])


def moved(generator: "PretrainedGenerator", seed: int, label: int, *steps: float) -> "Image.Image":
    """The image of a seed's latent that is moved along each direction, by so many standard deviations."""
    import torch

    from transfergen.images import to_pil

    offset = torch.tensor([steps], dtype=torch.float) @ generator.directions(len(steps))
    return to_pil(generator.vary(seed, offset, classes=_classes(label))[0])


def _classes(label: int) -> list[int]:
    return [] if label == BY_SEED else [label]


def enlarged(picture: "Image.Image") -> "Image.Image":
    """A small picture at a whole multiple of its size, so that its pixels stay sharp."""
    times = max(1, round(SHOWN_HEIGHT / picture.height))
    return picture.resize((picture.width * times, picture.height * times), 0)


def training_pictures(
    generator: "PretrainedGenerator", run_dir: Path, overrides: DictConfig, references: int
) -> "Callable[[int], Image.Image]":
    """A function from a seed to its image, with the nearest training pictures, by 16x16 pixels, to its right.

    Args:
        generator: that of the run.
        run_dir: its config says where the training pictures are.
        overrides: where they are, if they have moved.
        references: training pictures that are searched, at most.

    Raises:
        ValueError: the pictures cannot be read.
    """
    if not (run_dir / artefacts.CONFIG).is_file():
        raise ValueError("this generator comes without its training; give run=RUN_DIR, a folder that a training left")
    import torch

    from transfergen.evaluation.compare_run import read_data
    from transfergen.evaluation.extractors import PixelFeatures
    from transfergen.evaluation.neighbours import nearest
    from transfergen.images import to_float, to_grid, to_uint8

    _, data = read_data(run_dir, overrides)
    batch = data.train_set.sample_images(references)
    extractor = PixelFeatures()
    real = torch.cat([extractor(to_float(part, generator.image_shape.size)) for part in torch.split(batch.pixels, 256)])

    def search(seed: int) -> "Image.Image":
        pixels = generator.pixels([seed])
        _, found = nearest(extractor(to_float(pixels)), real, k=NEAREST)
        beside = to_uint8(to_float(batch.pixels[found[0]], generator.image_shape.size))
        return to_grid(torch.cat([pixels, beside]), columns=1 + NEAREST)

    return search
