"""Vision transformers with a class token, such as DINO's and DINOv2's, as trunks."""

import math
from typing import Any, cast

import timm
import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.errors import first_line
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import native_state
from transfergen.networks.shapes import shapes_only
from transfergen.networks.weights import load_weights


class ViT(Backbone):
    """A vision transformer of timm up to its deepest tap. Dosovitskiy 2021, arXiv:2010.11929.

    The first block embeds the patches; each transformer block is one more. A tap's feature map (B, C, h, w) has a
    position for each patch: its token plus the class token, before the last layer normalisation, as StyleGAN-T's
    discriminator takes them (Sauer 2023, arXiv:2301.09515, and the authors' code).

    Args:
        name: of a model in timm with one class token. DINO's begin with vit_ and end in .dino (Caron 2021,
            arXiv:2104.14294), DINOv2's in _dinov2.lvd142m (Oquab 2023, arXiv:2304.07193).
        taps: after how many transformer blocks there is a tap, ascending; 0: at the embedded patches.
        weights: `hub` (timm's, downloaded once), `random`, or a local `.safetensors` or `.pth` file with timm's names,
            which are those of DINO's and DINOv2's own files, too. It may lack the blocks after the last tap.
        input_size: side in pixels of the square to which images are resized first, a multiple of the patches' side. If
            the weights are of another size, their position embeddings are interpolated, see `interpolate_positions`.

    Raises:
        ValueError: timm has no such model, the model has no such tap or takes no such size, or the weights cannot be
            read or do not fit.
    """

    takes_squares = True

    def __init__(
        self,
        *,
        name: str = "vit_small_patch16_224.dino",
        taps: tuple[int, ...] = (0, 3, 6, 9, 12),
        weights: str = "hub",
        input_size: int = 224,
    ) -> None:
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0:
            raise ValueError(f"taps={list(taps)}: choose one or more, ascending, from 0")
        net = build_vit(name, input_size)
        if taps[-1] > len(net.blocks):
            raise ValueError(f"taps={list(taps)}: {name} has {len(net.blocks)} transformer blocks")
        net.blocks, net.norm = net.blocks[: taps[-1]], nn.Identity()
        net = with_weights(net, name, weights)
        published: Any = timm.get_pretrained_cfg(name)
        super().__init__(
            [_Embedding(net), *net.blocks],
            taps=taps,
            channels=[net.embed_dim] * len(taps),
            strides=[net.patch_embed.patch_size[0]] * len(taps),
            mean=published.mean,
            std=published.std,
            input_size=input_size,
        )
        self.pretrained = weights != "random"

    def to_map(self, x: Tensor) -> Tensor:
        """Tokens (B, 1 + h h, C), the class token first -> (B, C, h, h), each patch's token plus the class token."""
        patches = x[:, 1:] + x[:, :1]
        side = math.isqrt(patches.shape[1])
        return patches.transpose(1, 2).reshape(len(x), -1, side, side)


class _Embedding(nn.Module):
    """Images (B, 3, S, S) -> tokens (B, 1 + h h, C), the class token first, with their position embeddings."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.patch_embed, self.norm_pre = net.patch_embed, net.norm_pre
        self.cls_token, self.pos_embed = net.cls_token, net.pos_embed

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return cast(Tensor, self.norm_pre(tokens + self.pos_embed))


def build_vit(name: str, input_size: int) -> Any:
    """A vision transformer of timm on the meta device: without memory, and without a classifier.

    Args:
        name: of a model with one class token, whose position is embedded, too.
        input_size: side of the images in pixels, a multiple of the patches' side.

    Raises:
        ValueError: timm has no such model, or it takes no such size.
    """
    try:
        timm.get_pretrained_cfg(name, allow_unregistered=False)
        with shapes_only():
            net: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=input_size)
    except (RuntimeError, AttributeError, AssertionError, ValueError, TypeError) as error:
        raise ValueError(
            f"name={name}: timm has no such vision transformer for {input_size} px ({first_line(error)})"
        ) from error
    has_class_token = isinstance(net, VisionTransformer) and net.cls_token is not None and net.pos_embed is not None
    if not has_class_token or net.pos_embed.shape[1] != 1 + net.patch_embed.num_patches:
        raise ValueError(f"name={name}: choose a vision transformer with a class token and without registers")
    side = net.patch_embed.patch_size[0]
    if input_size % side:
        lower = max(1, input_size // side) * side
        raise ValueError(f"input_size={input_size}: choose a multiple of {side}, such as {lower} or {lower + side}")
    return net


def with_weights(net: Any, name: str, weights: str) -> Any:
    """Give a network of `build_vit` weights, and memory on the CPU.

    Args:
        net: some of its last blocks may have been left out. It is changed, unless the weights are random.
        name: of the model.
        weights: see ViT.

    Returns:
        The network.

    Raises:
        WeightsError: the weights cannot be read or do not fit.
    """
    if weights == "random":
        size, depth = net.patch_embed.img_size, len(net.blocks)
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=size, depth=depth)
    state = native_state(name, weights)
    if "pos_embed" in state:
        state["pos_embed"] = interpolate_positions(state["pos_embed"], net.patch_embed.grid_size[0])
    net.to_empty(device="cpu")
    load_weights(net, state, weights)
    return net


def interpolate_positions(positions: Tensor, side: int) -> Tensor:
    """Position embeddings of a class token and n x n patches (1, 1 + n n, C) -> (1, 1 + side side, C).

    Interpolation is that of DINO's and DINOv2's code, on which published features depend: bicubic, without
    antialiasing. Patch i gets the value at (i + 1/2) n / (side + 0.1) - 1/2; the 0.1 is a peculiarity of that code.
    """
    n = math.isqrt(positions.shape[1] - 1)
    if side == n or 1 + n * n != positions.shape[1]:  # nothing to do, or of another architecture
        return positions
    grid = positions[:, 1:].float().transpose(1, 2).reshape(1, -1, n, n)
    grid = F.interpolate(grid, scale_factor=(side + 0.1) / n, mode="bicubic")
    return torch.cat([positions[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)
