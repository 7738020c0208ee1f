"""The image sizes that generators, discriminators from scratch and encoders can be built for."""

RESOLUTIONS = (32, 64, 128, 256)
"""Sides of the square images, in pixels."""


def check_resolution(resolution: int) -> None:
    """Check that a resolution, in pixels, is one of `RESOLUTIONS`.

    Raises:
        ValueError: it is not.
    """
    if resolution not in RESOLUTIONS:
        raise ValueError(f"resolution={resolution}: choose 32, 64, 128 or 256 pixels")
