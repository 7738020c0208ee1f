"""Statistics of the pictures in a data source, what training does with each kind, and warnings before it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags

from transfergen.data.decoding import (
    DamagedPictureError,
    is_animation,
    map_parallel,
    open_picture,
    pillow_limit,
    progress_bar,
)
from transfergen.data.formats import bytes_digest
from transfergen.data.pictures import Pictures, Split, to_mode
from transfergen.errors import counted
from transfergen.image_shape import ImageShape

_DARK = 65536 // 3
"""16-bit pictures below this value are warned of: scanners and cameras store 10 to 14 bits in 16."""


@dataclass(frozen=True)
class Finding:
    """The properties of one picture.

    Attributes:
        mode: colour mode of the file, such as "RGB", followed by ", transparent" and ", rotated by EXIF" where that
            applies; "" if the picture is damaged.
        size: width and height in pixels, once the picture is upright.
        animation: whether there are frames after the first.
        digest: of the pixels as training takes them, so that it is equal for equal pictures in different files.
        error: why the picture cannot be read; "" if it can.
        largest: the largest value of a 16-bit grey picture, of at most 65,535; None of others.
    """

    mode: str = ""
    size: tuple[int, int] = (0, 0)
    animation: bool = False
    digest: str = ""
    error: str = ""
    largest: int | None = None


def inspect_pictures(
    pictures: Pictures, *, shape: ImageShape, max_megapixels: float, description: str
) -> list[Finding]:
    """Decode each picture completely, in parallel and with a progress bar called `description`.

    The colours are converted to those of a shape. The size is not.
    """

    def inspect_one(i: int) -> Finding:
        try:
            with open_picture(pictures, i, max_megapixels) as picture:
                mode = picture.mode
                mode += ", transparent" if picture.has_transparency_data else ""
                mode += ", rotated by EXIF" if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1 else ""
                animation, upright = is_animation(picture), to_mode(picture, shape.mode)
                digest = bytes_digest(repr(upright.size).encode() + upright.tobytes()).hex()
                largest = int(np.asarray(picture).max()) if picture.mode.startswith("I") else None
                return Finding(mode, upright.size, animation, digest, largest=largest)
        except DamagedPictureError as error:
            return Finding(error=str(error))

    with pillow_limit(max_megapixels), progress_bar(description, len(pictures)) as advance:
        return map_parallel(inspect_one, len(pictures), advance)


def find_duplicates(findings: list[Finding]) -> list[list[int]]:
    """Groups of two or more pictures with the same pixels, by index."""
    groups: dict[str, list[int]] = {}
    for i, finding in enumerate(findings):
        if finding.digest:
            groups.setdefault(finding.digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def summarize(pictures: Pictures, findings: list[Finding], shape: ImageShape) -> dict[str, Any]:
    """The statistics of a split, and the names of its damaged, animated and duplicate pictures, for JSON.

    `proportional` is the number of pictures that have the aspect of the shape, which need no cropping.
    """
    readable = [finding for finding in findings if not finding.error]
    sides = np.array([finding.size for finding in readable] or [(0, 0)])
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))[: len(pictures.classes)]
    return {
        "pictures": len(findings),
        "modes": dict(Counter(finding.mode for finding in readable).most_common()),
        "width": _range(sides[:, 0]),
        "height": _range(sides[:, 1]),
        "proportional": int((sides[:, 0] * shape.height == sides[:, 1] * shape.width).sum()) if readable else 0,
        "shorter_side": _range(sides.min(axis=1)),
        "largest_of_16_bit": max((each.largest for each in readable if each.largest is not None), default=None),
        "damaged": [finding.error for finding in findings if finding.error],
        "animations": [pictures.name(i) for i, finding in enumerate(findings) if finding.animation],
        "duplicates": [[pictures.name(i) for i in group] for group in find_duplicates(findings)],
        "classes": {name: int(count) for name, count in zip(pictures.classes, counts, strict=True)},
    }


def find_leaks(train: list[Finding], test: list[Finding]) -> list[int]:
    """Indices of the test pictures with the same pixels as a training picture."""
    seen = {finding.digest for finding in train if finding.digest}
    return [i for i, finding in enumerate(test) if finding.digest in seen]


def describe_conversion(mode: str, shape: ImageShape) -> str:
    """How training converts pictures of a `Finding.mode` to the channels of a shape."""
    name, *more = mode.split(", ")
    into = {1: "grey", 3: "RGB", 4: "RGB, opaque"}[shape.channels]
    done = {
        "L": f"grey to {into}",
        "1": f"black and white to {into}",
        "P": f"palette to {'its colours' if shape.channels == 3 else into}",
        "CMYK": f"ink to {into}",
    }.get(name, "16-bit grey scaled to 8" if name.startswith("I") else f"to {into}")
    done = "unchanged" if name == shape.mode else done
    if "transparent" in more:
        done = "alpha is kept" if shape.channels == 4 else "laid on white"
    return f"{done}, rotated" if "rotated by EXIF" in more else done


def list_warnings(splits: dict[Split, dict[str, Any]], leaks: int, *, shape: ImageShape) -> list[str]:
    """List what stops no training, but makes its results worse or its metrics too good.

    Args:
        splits: what `summarize` gives for each split.
        leaks: how many test pictures are in the training split too.
        shape: of the images that the networks see.
    """
    lines = []
    train = splits["train"]
    if leaks:
        found = counted(leaks, "test picture")
        lines.append(f"{found} among the training pictures, which makes metrics too good; leave each in one split only")
    copies = sum(len(group) - 1 for group in train["duplicates"])
    if copies:
        found = counted(copies, "exact copy", "exact copies")
        lines.append(f"{found} of other training pictures, which are seen more often")
    if 0 < train["shorter_side"]["median"] < shape.resolution:  # 0: none can be read
        lines.append(
            f"half of the pictures are smaller than data.resolution={shape.resolution} and are enlarged; set a smaller "
            "one"
        )
    largest = train["largest_of_16_bit"]
    if largest and largest < _DARK:
        lines.append(
            f"the values of all 16-bit pictures are {largest:,} or less, of 65,535, so they become dark; multiply them "
            f"by {65535 // largest}, and save them anew"
        )
    few, many = min(train["classes"].values(), default=0), max(train["classes"].values(), default=0)
    if many > 10 * few:
        largest_has = f"the largest class has {counted(many, 'picture')}"
        lines.append(f"{largest_has} and the smallest {few:,}, which will hardly be learnt")
    for name, split in splits.items():
        if split["animations"]:
            count = len(split["animations"])
            found = counted(count, "animation")
            lines.append(f"{found} among the {name} pictures, of which only the first frame is used")
    return lines


def _range(values: np.ndarray) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
