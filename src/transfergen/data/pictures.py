"""One split of a source, and how its pictures become square RGB pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Split = Literal["train", "test"]
Fit = Literal["crop", "pad", "stretch"]

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """One split, not decoded yet.

    Attributes:
        identity: tells this split, and the state of its files, from any other; names its cache file.
        open: the i-th picture, of any size and mode.
        name: what to call the i-th picture in an error.
        labels: class of each picture, (N,); all 0 where there are none.
        classes: names of the classes; empty where there are none.
        pixels: (N, S, S, 3) uint8 where the source holds decoded pictures already; `open` is not asked then.
    """

    identity: str
    open: Callable[[int], Image.Image]
    name: Callable[[int], str]
    labels: IntArray
    classes: tuple[str, ...] = ()
    pixels: ByteArray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | IntArray, identity: str) -> "Pictures":
        """These pictures alone, in this order."""
        index = np.asarray(indices)
        return Pictures(
            identity=f"{self.identity}/{identity}",
            open=lambda i: self.open(int(index[i])),
            name=lambda i: self.name(int(index[i])),
            labels=self.labels[index],
            classes=self.classes,
            pixels=None if self.pixels is None else self.pixels[index],
        )


def of_array(identity: str, pixels: ByteArray, labels: IntArray, classes: tuple[str, ...]) -> Pictures:
    """Pictures from (N, S, S, 3) uint8."""
    return Pictures(identity, lambda i: Image.fromarray(pixels[i]), lambda i: f"image {i}", labels, classes, pixels)


def hold_out(pictures: Pictures, split: Split, fraction: float) -> Pictures:
    """The train or the test part of a source that has one split only: a random choice that is always the same.

    Raises:
        ValueError: the fraction leaves nothing to train on.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"data.source.holdout={fraction}: choose a fraction between 0 and 1")
    order = np.random.default_rng(0).permutation(len(pictures))
    held = max(1, round(fraction * len(pictures)))
    if held >= len(pictures):
        raise ValueError(f"data.path: {len(pictures)} picture(s) are too few to hold out a test split")
    return pictures.subset(np.sort(order[:held] if split == "test" else order[held:]), f"{split}-of-{fraction}")


def of_classes(pictures: Pictures, classes: Sequence[str | int]) -> Pictures:
    """The pictures of these classes alone, by name or number; their labels count from 0 in this order.

    Raises:
        ValueError: there are no classes, or none of such a name or number.
    """
    if not pictures.classes:
        raise ValueError(f"data.classes={list(classes)}: these pictures have no classes; set data.classes=null")
    known = {str(i): i for i in range(len(pictures.classes))} | {name: i for i, name in enumerate(pictures.classes)}
    unknown = [name for name in classes if str(name) not in known]
    numbers = [known[str(name)] for name in classes if str(name) in known]
    if unknown or not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"data.classes={list(classes)}: choose one or more, each once, of {', '.join(pictures.classes)}, or their "
            f"numbers from 0 to {len(pictures.classes) - 1}"
        )
    kept = pictures.subset(np.flatnonzero(np.isin(pictures.labels, numbers)), f"classes-{numbers}")
    new_numbers = np.zeros(len(pictures.classes), np.int64)
    new_numbers[numbers] = np.arange(len(numbers))
    names = tuple(pictures.classes[number] for number in numbers)
    return replace(kept, labels=new_numbers[kept.labels], classes=names)


def at_most(pictures: Pictures, count: int) -> Pictures:
    """A random choice of `count` pictures, always the same, in their order: as many of each class as there are."""
    if count >= len(pictures):
        return pictures
    order = np.random.default_rng(0).permutation(len(pictures))
    turn = np.empty(len(pictures), np.int64)  # the classes take turns
    for label in np.unique(pictures.labels):
        of_class = order[pictures.labels[order] == label]
        turn[of_class] = np.arange(len(of_class))
    chosen = order[np.argsort(turn[order], kind="stable")][:count]
    return pictures.subset(np.sort(chosen), f"{count}-of-{len(pictures)}")


def to_rgb(picture: Image.Image) -> Image.Image:
    """Any picture -> RGB: turned as its EXIF says, 16-bit grey scaled, transparency laid on white.

    Raises:
        ValueError: its values are floats or 32-bit integers, of which nobody knows what white is.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture, dtype=np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values are beyond 16 bits")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")  # 65535 -> 255
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def to_square(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """A picture of any shape -> size x size: its centre, or all of it on black, or all of it stretched."""
    if fit == "crop":
        return ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS)
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def check_fit(fit: str) -> None:
    """Raises ValueError for a way to fit that does not exist."""
    if fit not in get_args(Fit):
        raise ValueError(f"data.fit={fit}: choose one of {', '.join(get_args(Fit))}")
