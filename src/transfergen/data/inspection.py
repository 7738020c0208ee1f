"""What the pictures of a source are like, one by one and all together, and what training does about it."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from transfergen.data.decoding import DamagedPictureError, in_parallel, is_animation, opened, pillow_limit
from transfergen.data.pictures import Pictures, Split, to_rgb

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Finding:
    """One picture.

    Attributes:
        mode: as its file has it, with ", transparent" and ", turned by EXIF" where that is so; "" where it is damaged.
        size: width and height in pixels.
        animation: there are frames after the first.
        digest: the same for pictures whose RGB pixels are the same, whatever their files.
        error: why it cannot be read; "" where it can.
    """

    mode: str = ""
    size: tuple[int, int] = (0, 0)
    animation: bool = False
    digest: str = ""
    error: str = ""


def inspect(pictures: Pictures, *, max_megapixels: float, description: str) -> list[Finding]:
    """Each picture, read to its last pixel, in parallel and with a progress bar."""

    def one(i: int) -> Finding:
        try:
            with opened(pictures, i, max_megapixels) as picture:
                mode = picture.mode
                mode += ", transparent" if picture.has_transparency_data else ""
                mode += ", turned by EXIF" if picture.getexif().get(_ORIENTATION, 1) != 1 else ""
                size, animation = picture.size, is_animation(picture)
                rgb = to_rgb(picture)
                digest = hashlib.blake2b(repr(rgb.size).encode() + rgb.tobytes(), digest_size=16).hexdigest()
                return Finding(mode, size, animation, digest)
        except DamagedPictureError as error:
            return Finding(error=str(error))

    with pillow_limit(max_megapixels):
        return in_parallel(one, len(pictures), description)


def duplicates(findings: list[Finding]) -> list[list[int]]:
    """Positions of pictures whose pixels are the same, in groups of two or more."""
    groups: dict[str, list[int]] = {}
    for i, finding in enumerate(findings):
        if finding.digest:
            groups.setdefault(finding.digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def summary(pictures: Pictures, findings: list[Finding]) -> dict[str, Any]:
    """All of a split in numbers and names, for JSON."""
    whole = [finding for finding in findings if not finding.error]
    sides = np.array([finding.size for finding in whole] or [(0, 0)])
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))[: len(pictures.classes)]
    return {
        "pictures": len(findings),
        "modes": dict(Counter(finding.mode for finding in whole).most_common()),
        "width": _range(sides[:, 0]),
        "height": _range(sides[:, 1]),
        "square": int((sides[:, 0] == sides[:, 1]).sum()) if whole else 0,
        "shorter_side": _range(sides.min(axis=1)),
        "damaged": [finding.error for finding in findings if finding.error],
        "animations": [pictures.name(i) for i, finding in enumerate(findings) if finding.animation],
        "duplicates": [[pictures.name(i) for i in group] for group in duplicates(findings)],
        "classes": {name: int(count) for name, count in zip(pictures.classes, counts, strict=True)},
    }


def leaked(train: list[Finding], test: list[Finding]) -> list[int]:
    """Positions of test pictures whose pixels are those of a training picture."""
    seen = {finding.digest for finding in train if finding.digest}
    return [i for i, finding in enumerate(test) if finding.digest in seen]


def what_becomes_of(mode: str) -> str:
    """What training does with pictures of a `Finding.mode`."""
    name, *more = mode.split(", ")
    done = {
        "RGB": "as it is",
        "L": "grey to RGB",
        "1": "black and white to RGB",
        "P": "palette to its colours",
        "CMYK": "ink to RGB",
        "YCbCr": "to RGB",
    }.get(name, "16-bit grey scaled to 8" if name.startswith("I") else "to RGB")
    done = "laid on white" if "transparent" in more else done
    return f"{done}, turned" if "turned by EXIF" in more else done


def warnings(splits: dict[Split, dict[str, Any]], leaks: int, *, resolution: int) -> list[str]:
    """What is no error, but should be known before training."""
    lines = []
    train = splits["train"]
    if leaks:
        lines.append(f"{leaks:,} test pictures are in the training split too: metrics will flatter; remove them")
    copies = sum(len(group) - 1 for group in train["duplicates"])
    if copies:
        lines.append(f"{copies:,} training pictures are exact copies of others: they are seen more often")
    if train["shorter_side"]["median"] < resolution:
        lines.append(
            f"half of the pictures are smaller than data.resolution={resolution} and are enlarged; set a smaller one"
        )
    few, many = min(train["classes"].values(), default=0), max(train["classes"].values(), default=0)
    if many > 10 * few:
        lines.append(f"the largest class has {many:,} pictures and the smallest {few:,}: it will hardly be learnt")
    for name, split in splits.items():
        if split["animations"]:
            lines.append(f"{len(split['animations']):,} pictures of {name} are animations: only first frames are taken")
    return lines


def _range(values: np.ndarray) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
