"""Drawn coloured shapes in ten classes, the same on every machine; nothing is downloaded."""

import math

import numpy as np
from PIL import Image, ImageDraw

from transfergen.data.formats import bytes_digest
from transfergen.data.pictures import Pictures, Split

CLASSES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "hexagon", "heart", "crescent")
_OVERSAMPLING = 4

Points = list[tuple[float, float]]


def shapes(path: str | None, split: Split, *, size: int = 64, train: int = 10_000, test: int = 2_000) -> Pictures:
    """A split of pictures that show one shape on a plain background; the i-th has class i % 10.

    Colours, position, scale and rotation are random, but the same for the i-th picture of a split in each run.

    Args:
        path: not used.
        split: train or test.
        size: height and width of the pictures, in pixels.
        train: number of training pictures.
        test: number of test pictures.
    """
    count = train if split == "train" else test

    def picture(i: int) -> Image.Image:
        return draw(i % 10, size, np.random.default_rng((split == "test", i)))

    def identity() -> str:
        drawn = b"".join(picture(i).tobytes() for i in range(len(CLASSES)))  # another version may draw otherwise
        return f"shapes/{split}/{count}/{bytes_digest(drawn).hex()}"

    return Pictures(
        identity=identity,
        open=picture,
        name=lambda i: f"shape {i}",
        labels=np.arange(count, dtype=np.int64) % 10,
        classes=CLASSES,
    )


def draw(label: int, size: int, rng: np.random.Generator) -> Image.Image:
    """Draw the shape CLASSES[label] at a random position, size x size."""
    side = size * _OVERSAMPLING
    # A pale background and a strong, darker colour, so that the shape always stands out.
    background = f"hsl({rng.uniform(0, 360):.0f}, {rng.uniform(10, 60):.0f}%, {rng.uniform(82, 94):.0f}%)"
    fill = f"hsl({rng.uniform(0, 360):.0f}, {rng.uniform(70, 100):.0f}%, {rng.uniform(32, 52):.0f}%)"
    picture = Image.new("RGB", (side, side), background)
    radius = side * rng.uniform(0.34, 0.42)
    x, y = (side / 2 + rng.uniform(-0.2, 0.2) * (side / 2 - radius) for _ in range(2))
    _paint(ImageDraw.Draw(picture), CLASSES[label], (x, y), radius, rng.uniform(-0.1, 0.1), fill, background)
    return picture.resize((size, size), Image.Resampling.BOX)


def _paint(
    canvas: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    radius: float,
    turn: float,
    fill: str,
    background: str,
) -> None:
    x, y = centre
    if shape in ("circle", "ring", "crescent"):
        canvas.circle(centre, radius, fill)
        if shape == "ring":
            canvas.circle(centre, radius * 0.55, background)
        elif shape == "crescent":
            canvas.circle(
                (x + 0.45 * radius * math.cos(turn), y + 0.45 * radius * math.sin(turn)), radius * 0.8, background
            )
        return
    cos, sin = math.cos(turn), math.sin(turn)
    outline = [(x + radius * (a * cos - b * sin), y + radius * (a * sin + b * cos)) for a, b in _outline(shape)]
    canvas.polygon(outline, fill)


def _outline(shape: str) -> Points:
    """The corners (x, y) of a shape in the unit circle; y points down."""
    if shape == "star":
        return [_polar(i * math.pi / 5, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
    if shape == "cross":
        a, b = 0.34, 0.95
        return [
            (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)
        ]  # fmt: skip
    if shape == "heart":
        steps = (2 * math.pi * i / 60 for i in range(60))
        return [
            (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
            for t in steps
        ]
    corners, start, stretch = {
        "square": (4, math.pi / 4, 1.0),
        "triangle": (3, 0.0, 1.0),
        "diamond": (4, 0.0, 0.62),
        "hexagon": (6, 0.0, 1.0),
    }[shape]
    points = [_polar(start + 2 * math.pi * i / corners, 1.0) for i in range(corners)]
    return [(a * stretch, b) for a, b in points]


def _polar(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.sin(angle), -radius * math.cos(angle)
