"""Pictures: one split of a data source before decoding, and the conversion of a picture to the shape of images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from transfergen.data.formats import bytes_digest
from transfergen.errors import counted
from transfergen.image_shape import ImageShape

Split = Literal["train", "test"]
Fit = Literal["crop", "pad", "stretch"]

IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """N pictures of one split, not decoded yet.

    Attributes:
        identity: gives a string that no other split has, nor the same split once its files have changed; for caches.
        open: opens the i-th picture, of any size and colour mode.
        name: the name of the i-th picture, for messages.
        labels: (N,), the class number of each picture; all 0 without classes.
        classes: the names of the classes; empty without classes.
        pixels: (M, S, S, C) uint8 if the source holds decoded pictures, which are then used instead of `open`; or None.
        rows: (N,), the row of `pixels` that holds each picture; None: they are in order, and M is N.
        digest: bytes that differ between pictures of different content; None: the digest of their names.
        notes: lines that a user should read before a training, such as how the source was understood.
    """

    identity: Callable[[], str]
    open: Callable[[int], Image.Image]
    name: Callable[[int], str]
    labels: IntArray
    classes: tuple[str, ...] = ()
    pixels: ByteArray | None = None
    rows: IntArray | None = None
    digest: Callable[[int], bytes] | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int] | IntArray, identity: str) -> "Pictures":
        """The pictures at these indices, in this order. `identity` is appended to the identity of the whole."""
        index = np.asarray(indices)
        return replace(
            self,
            identity=lambda: f"{self.identity()}/{identity}",
            open=lambda i: self.open(int(index[i])),
            name=lambda i: self.name(int(index[i])),
            labels=self.labels[index],
            rows=None if self.pixels is None else index if self.rows is None else self.rows[index],
            digest=lambda i: self.content_digest(int(index[i])),
        )

    def content_digest(self, i: int) -> bytes:
        """Bytes that depend on the content of the i-th picture, and not on where the picture is."""
        return self.digest(i) if self.digest else bytes_digest(self.name(i).encode())


def from_array(identity: str, pixels: ByteArray, labels: IntArray, classes: tuple[str, ...]) -> Pictures:
    """Pictures from decoded pixels (N, S, S, C), uint8, with labels (N,)."""
    return Pictures(
        identity=lambda: identity,
        open=lambda i: picture_of(pixels[i]),
        name=lambda i: f"image {i}",
        labels=labels,
        classes=classes,
        pixels=pixels,
        digest=lambda i: bytes_digest(pixels[i].tobytes()),
    )


def picture_of(pixels: ByteArray) -> Image.Image:
    """A picture from its pixels (H, W, C), uint8: L, RGB or RGBA."""
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[..., 0])


def hold_out(pictures: Pictures, split: Split, fraction: float) -> Pictures:
    """The training or the test part of pictures that have no splits of their own.

    The test part is a fraction of the pictures, at least one: those whose digests are smallest. So it is a random
    choice that depends on what a picture shows and not on where it is. When n pictures come or go, at most n others
    change sides.

    Raises:
        ValueError: nothing is left to train on.
    """
    count = max(1, round(fraction * len(pictures)))
    if count >= len(pictures):
        raise ValueError(
            f"data.path: {counted(len(pictures), 'picture is', 'pictures are')} too few to hold out a test split"
        )
    order = sorted(range(len(pictures)), key=[pictures.content_digest(i) for i in range(len(pictures))].__getitem__)
    return pictures.subset(np.sort(order[:count] if split == "test" else order[count:]), f"{split}-of-{fraction}")


def select_classes(pictures: Pictures, classes: Sequence[str | int]) -> Pictures:
    """The pictures of these classes, given by name or number; the first class gets label 0, the second 1, and so on.

    Raises:
        ValueError: the pictures have no classes, or none of this name or number, or a class is given twice.
    """
    if not pictures.classes:
        raise ValueError(f"data.classes={list(classes)}: these pictures have no classes; set data.classes=null")
    known = {str(i): i for i in range(len(pictures.classes))} | {name: i for i, name in enumerate(pictures.classes)}
    unknown = [name for name in classes if str(name) not in known]
    numbers = [known[str(name)] for name in classes if str(name) in known]
    if unknown or not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"data.classes={list(classes)}: choose one or more of {', '.join(pictures.classes)}, or of their numbers "
            f"from 0 to {len(pictures.classes) - 1}, each once"
        )
    selected = pictures.subset(np.flatnonzero(np.isin(pictures.labels, numbers)), f"classes-{numbers}")
    new_numbers = np.zeros(len(pictures.classes), np.int64)
    new_numbers[numbers] = np.arange(len(numbers))
    names = tuple(pictures.classes[number] for number in numbers)
    return replace(selected, labels=new_numbers[selected.labels], classes=names)


def subsample(pictures: Pictures, count: int) -> Pictures:
    """At most `count` pictures, a random choice that is the same at each call, as balanced over classes as possible."""
    if count >= len(pictures):
        return pictures
    order = np.random.default_rng(0).permutation(len(pictures))
    rank = np.empty(len(pictures), np.int64)  # of a picture among those of its class: the first of all classes, ...
    for label in np.unique(pictures.labels):
        of_class = order[pictures.labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    chosen = order[np.argsort(rank[order], kind="stable")][:count]
    return pictures.subset(np.sort(chosen), f"{count}-of-{len(pictures)}")


def to_rgb(picture: Image.Image) -> Image.Image:
    """Convert a picture to RGB: rotate it as its EXIF data say, scale 16-bit grey to 8 bits, lay transparency on white.

    Raises:
        ValueError: the values are floats or exceed 16 bits, so that it is unknown which value is white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture, dtype=np.float64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its grey values exceed 16 bits")
        return Image.fromarray((values / 257).round().astype(np.uint8)).convert("RGB")  # 65535 -> 255
    if picture.mode == "F":
        raise ValueError("its values are floating-point numbers; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height once the picture is turned by the EXIF data that come before its pixels in the file."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1) if "exif" in picture.info else 1
    return picture.size if orientation < 5 else (picture.height, picture.width)


def to_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Convert a picture to L or RGB as `to_rgb` does, or to RGBA with its own alpha.

    What is fully transparent becomes black, whatever colour a file has there.
    """
    if mode != "RGBA" or not picture.has_transparency_data or picture.mode.startswith("I"):
        return to_rgb(picture).convert(mode)
    picture = ImageOps.exif_transpose(picture).convert("RGBA")
    visible = picture.getchannel("A").point(lambda alpha: 255 * (alpha > 0))
    return Image.composite(picture, Image.new("RGBA", picture.size), visible)


def to_shape(picture: Image.Image, shape: ImageShape, fit: Fit | None) -> Image.Image:
    """Convert a picture to the channels of a shape and to its size.

    It is cropped to its centre, padded with black, or with what is transparent if it has alpha, or stretched. Without
    `fit` it keeps its size.

    Raises:
        ValueError: see `to_rgb`.
    """
    picture, size = to_mode(picture, shape.mode), (shape.width, shape.height)
    if fit is None:
        return picture
    if fit == "crop":
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(picture, size, Image.Resampling.LANCZOS)
    return picture.resize(size, Image.Resampling.LANCZOS)
