"""Conversion between images in [-1, 1] and uint8 pixels, resizing, and grids."""

import math

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def to_float(pixels: Tensor, resolution: int | None = None) -> Tensor:
    """Pixels (B, 3, S, S) uint8 -> images (B, 3, R, R) float32 in [-1, 1], resized to R = `resolution` if given."""
    images = pixels.float().div_(127.5).sub_(1)
    return images if resolution is None else resize(images, resolution)


def to_uint8(images: Tensor) -> Tensor:
    """Images (B, 3, R, R) -> pixels (B, 3, R, R) uint8: clipped to [-1, 1] and rounded to the nearest value."""
    return images.float().mul(127.5).add(127.5).round_().clamp_(0, 255).to(torch.uint8)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, R, R) -> (B, 3, size, size), bilinear, with antialiasing if they shrink."""
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=images.shape[-1] > size)


def to_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images (B, 3, R, R), float in [-1, 1] or uint8 -> one picture of them, row by row; a square grid by default."""
    from torchvision.utils import make_grid  # its import takes more than a second

    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    grid = make_grid(pixels.cpu(), nrow=columns, padding=2)
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def to_pil(pixels: Tensor) -> Image.Image:
    """Pixels (3, H, W) uint8 -> RGB picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().contiguous().numpy())
