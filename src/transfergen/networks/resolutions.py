"""The image shapes that generators, discriminators from scratch and encoders can be built for."""

from collections.abc import Sequence
from typing import NamedTuple

from transfergen.image_shape import first_map, image_shape, or_list, resolutions

RESOLUTIONS = (32, 64, 128, 256)
"""Sides of the square images, in pixels."""


class MapSizes(NamedTuple):
    """The sizes of the maps between a network's smallest ones and its images."""

    first: tuple[int, int]
    """Height and width of the smallest maps; 4x4 for square images."""
    square: int
    """Side, in pixels, of the square images that as many doublings of 4x4 lead to: what widths of layers go by."""


def map_sizes(
    resolution: int,
    aspect: Sequence[int] = (1, 1),
    image_channels: int = 3,
    *,
    squares: Sequence[int] = RESOLUTIONS,
) -> MapSizes:
    """The sizes of the maps of a network for images of a shape.

    Args:
        resolution: the shorter side of the images, in pixels.
        aspect: their width and height, as whole numbers.
        image_channels: is only checked.
        squares: the resolutions of square images that the network can be built for.

    Raises:
        ValueError: the network cannot be built for this shape.
    """
    try:
        first = first_map(aspect)
        image_shape(resolution, aspect, image_channels)
    except ValueError as error:
        if str(error).startswith("channels"):
            raise ValueError(f"image_{error}") from None
        raise
    sides = resolutions(aspect, squares)
    if resolution not in sides:
        told = "" if first == (4, 4) else f" with aspect={list(aspect)}"
        raise ValueError(f"resolution={resolution}: choose {or_list(list(sides))} pixels{told}")
    return MapSizes(first, sides[resolution])
