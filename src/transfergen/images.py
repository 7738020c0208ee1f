"""Conversion between images in [-1, 1] and uint8 pixels, resizing, and grids."""

import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

Size = int | tuple[int, int]
"""Height and width, or the side of a square, in pixels."""


def height_and_width(size: Size) -> tuple[int, int]:
    """Both sides of a size."""
    return (size, size) if isinstance(size, int) else size


def to_float(pixels: Tensor, size: Size | None = None) -> Tensor:
    """Pixels (B, C, S, T) uint8 -> images (B, C, H, W) float32 in [-1, 1], resized to H x W = `size` if given."""
    images = pixels.float().div_(127.5).sub_(1)
    return images if size is None else resize(images, size)


def to_uint8(images: Tensor) -> Tensor:
    """Images (B, C, H, W) -> pixels (B, C, H, W) uint8: clipped to [-1, 1] and rounded to the nearest value."""
    return images.float().mul(127.5).add(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resize(images: Tensor, size: Size) -> Tensor:
    """Images (B, C, S, T) -> (B, C, H, W) of the size H x W, bilinear, with antialiasing if a side shrinks."""
    height, width = height_and_width(size)
    if images.shape[2:] == (height, width):
        return images
    shrinks = images.shape[2] > height or images.shape[3] > width
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=shrinks)


def to_rgb(images: Tensor, background: Tensor | float = 0.0) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] -> (B, 3, H, W), for networks that know colours only.

    Grey becomes three equal channels, and what is transparent shows the background: a mid grey by default.

    Args:
        images: of 1, 3 or 4 channels.
        background: a colour for each image, (B, 3, 1, 1), or one value for all.
    """
    if images.shape[1] != 4:
        return images.expand(-1, 3, -1, -1)
    colours, alpha = images[:, :3], (images[:, 3:] + 1) / 2
    return background + alpha * (colours - background)


def random_colours(images: Tensor) -> Tensor:
    """A colour in [-1, 1] for each of B images, (B, 3, 1, 1), from the global random generator of their device."""
    return 2 * torch.rand(len(images), 3, 1, 1, device=images.device, dtype=images.dtype) - 1


def to_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images (B, C, H, W), float in [-1, 1] or uint8 -> one picture of them, row by row; a square grid by default."""
    from torchvision.utils import make_grid  # its import takes more than a second

    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    grid = make_grid(pixels.cpu(), nrow=columns, padding=2)
    return to_pil(grid[: pixels.shape[1]])  # torchvision makes three channels of one


def to_pil(pixels: Tensor) -> Image.Image:
    """Pixels (C, H, W) uint8 -> picture: L, RGB or RGBA."""
    values = pixels.permute(1, 2, 0).cpu().contiguous().numpy()
    return Image.fromarray(values[..., 0] if len(pixels) == 1 else values)
