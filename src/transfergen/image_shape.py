"""The shape of images: one side in pixels, the ratio of the sides, and the number of channels."""

from collections.abc import Sequence
from math import gcd
from typing import Literal, NamedTuple, get_args

Channels = Literal[1, 3, 4]
"""The number of an image's channels: 1 is grey, 3 is RGB, 4 is RGB and alpha (-1 is transparent, 1 is opaque)."""
SMALLEST, LARGEST = 32, 1024
"""The limits of the shorter side, in pixels."""
_SMALLEST_MAP = 4
"""Positions that the shorter side of a network's smallest maps has at least."""
_SQUARES = (32, 64, 128, 256, 512, 1024)
"""Sides of the square images that some network can be built for, in pixels."""
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageShape(NamedTuple):
    """The shape of an image, as that of a tensor (C, H, W)."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def resolution(self) -> int:
        """The shorter side, in pixels."""
        return min(self.size)

    @property
    def aspect(self) -> tuple[int, int]:
        """Width and height, as the smallest whole numbers."""
        return reduced((self.width, self.height))

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height == self.width

    @property
    def mode(self) -> str:
        """Pillow's name of the channels: L, RGB or RGBA."""
        return _MODES[self.channels]

    def __str__(self) -> str:
        """The shape in words, such as "64x64 px", "96x64 px" (the width first) or "64x64 px, RGBA"."""
        return f"{self.width}x{self.height} px" + {1: ", grey", 3: "", 4: ", RGBA"}[self.channels]


def image_shape(resolution: int, aspect: Sequence[int] = (1, 1), channels: int = 3) -> ImageShape:
    """The shape of images.

    Args:
        resolution: the shorter side, in pixels.
        aspect: width and height as whole numbers, such as (3, 2) or (9, 16).
        channels: see `Channels`.

    Raises:
        ValueError: the longer side is no whole number of pixels, or there is no such aspect or number of channels.
    """
    if channels not in get_args(Channels):
        raise ValueError(f"channels={channels}: choose 1 for grey, 3 for RGB, or 4 for RGB with alpha")
    width, height = reduced(aspect)
    unit, rest = divmod(resolution, min(width, height))
    if rest:
        longer = resolution * max(width, height) / min(width, height)
        raise ValueError(
            f"resolution={resolution}: the longer side would have {longer:.1f} pixels with aspect={list(aspect)}; "
            f"choose {or_list(list(resolutions(aspect)))}"
        )
    return ImageShape(channels, unit * height, unit * width)


def overrides(theirs: ImageShape, ours: ImageShape) -> str:
    """The overrides that change images of the shape `ours` to the shape `theirs`, as a command line has them."""
    width, height = theirs.aspect
    settings = {
        f"data.resolution={theirs.resolution}": theirs.resolution != ours.resolution,
        f"data.aspect=[{width},{height}]": theirs.aspect != ours.aspect,
        f"data.channels={theirs.channels}": theirs.channels != ours.channels,
    }
    return " ".join(setting for setting, differs in settings.items() if differs)


def reduced(aspect: Sequence[int]) -> tuple[int, int]:
    """Width and height of an aspect, divided by what divides both.

    Raises:
        ValueError: it is no pair of whole numbers above 0.
    """
    if len(aspect) != 2 or not all(isinstance(side, int) and side > 0 for side in aspect):
        raise ValueError(f"aspect={list(aspect)}: choose two whole numbers above 0, width and height, as in [3,2]")
    width, height = aspect
    divisor = gcd(width, height)
    return width // divisor, height // divisor


def first_map(aspect: Sequence[int]) -> tuple[int, int]:
    """Height and width of the smallest maps of a network for images of this aspect: 4x4 for squares.

    They are 4, 2 or 1 times the aspect, whichever is the smallest whose shorter side has 4 positions or more.
    """
    width, height = reduced(aspect)
    factor = next(factor for factor in (1, 2, 4) if factor * min(width, height) >= _SMALLEST_MAP)
    return factor * height, factor * width


def resolutions(aspect: Sequence[int], squares: Sequence[int] = _SQUARES) -> dict[int, int]:
    """The shorter sides, in pixels, of images of an aspect that networks can be built for.

    Args:
        aspect: width and height, as whole numbers.
        squares: sides of the square images that the networks can be built for.

    Returns:
        For each such side, that of the squares for which a network has as many layers.

    Raises:
        ValueError: there is no such aspect, or all these sides are longer than 1024 pixels.
    """
    smallest = min(first_map(aspect))
    sides = {side: square for square in squares if (side := smallest * square // 4) <= LARGEST}
    if not sides:
        raise ValueError(
            f"aspect={list(aspect)}: the shorter side would have more than {LARGEST} pixels; choose smaller whole "
            "numbers, as in [3,2]"
        )
    return sides


def or_list(numbers: Sequence[int]) -> str:
    """Numbers in words, such as "32, 64 or 128"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
