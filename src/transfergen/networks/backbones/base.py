"""The base of all pretrained trunks: a chain of blocks that can be split anywhere."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from transfergen.images import Size, height_and_width, random_colours, resize, to_rgb

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Images in [-1, 1], of 1, 3 or 4 channels -> feature maps (B, C, h, w), one for each tap, shallow first.

    Grey images are seen as three equal channels. Images with alpha are laid on a random colour, another one for each
    image and each pass, so that nothing can hide in what is transparent.

    `prefix(images, k)` runs the first k blocks and `suffix(state, k)` the others; one after the other, they compute
    what `forward` computes. So a frozen prefix runs once for both the discriminator's and the generator's update.

    Args:
        blocks: run one after the other; each maps (B, C, h, w) to (B, C', h', w'), or else `to_map` makes such a map of
            its output. A single block may return a list, the maps of all taps.
        taps: indices of the blocks whose outputs are returned, ascending; the last block is one of them.
        channels, strides: of each tap. A stride is in pixels of the first block's input.
        mean, std: of the images in [0, 1] that the weights were trained on, by channel.
        input_size: pixels to which the images' shorter side is resized first; None: they keep their size.
    """

    pretrained: bool = False
    """Whether its weights were read from a file. A checkpoint leaves these out, and resuming reads the file again."""
    takes_squares: bool = False
    """Whether `input_size` is the side of a square that other images are stretched to."""
    float32_on_cpu: bool
    """Whether it computes in float32 on a CPU even under bfloat16 autocast. In bfloat16, the backward pass of depthwise
    convolutions of stride 2 takes many times as long there, except after `acceleration.folding.fold_batchnorm`."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        taps: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        assert list(taps) == sorted(taps)
        assert taps[-1] == len(blocks) - 1
        self.blocks = nn.ModuleList(blocks)
        self.taps, self.channels, self.strides = tuple(taps), tuple(channels), tuple(strides)
        self.input_size = input_size
        # (x / 2 + 1 / 2 - mean) / std, written as one multiplication and one addition.
        scale = 0.5 / torch.tensor(std)
        shift = (0.5 - torch.tensor(mean)) / torch.tensor(std)
        self.float32_on_cpu = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in self.blocks.modules())
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images in [-1, 1] -> one feature map (B, C, h, w) for each tap."""
        return self.suffix(self.prefix(images, 0), 0)

    def prefix(self, images: Tensor, blocks: int) -> list[Tensor]:
        """Run the first `blocks` blocks: the maps of their taps and, if blocks remain, the input of the next one."""
        if blocks == 0:
            return [images]
        x = to_rgb(images, random_colours(images) if images.shape[1] == 4 else 0.0)
        x = resize(x, self._input_size(x.shape[2:]))
        x = torch.addcmul(cast(Tensor, self.shift), x, cast(Tensor, self.scale))
        return self._run(x, [], range(blocks))

    def suffix(self, state: list[Tensor], blocks: int) -> list[Tensor]:
        """Run the other blocks: the output of `prefix(images, blocks)` -> the feature maps of all taps."""
        if blocks == 0:
            return self.prefix(state[0], len(self.blocks))
        if blocks == len(self.blocks):
            return state
        return self._run(state[-1], state[:-1], range(blocks, len(self.blocks)))

    def to_map(self, x: Tensor) -> Tensor:
        """The output of a block at a tap -> its feature map (B, C, h, w)."""
        return x

    def _run(self, x: Any, tapped: list[Tensor], blocks: range) -> list[Tensor]:
        if self.float32_on_cpu and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._run(x.float(), tapped, blocks)
        for i in blocks:
            x = self.blocks[i](x)
            if isinstance(x, list):  # a trunk that cannot be split is one block that returns all taps
                tapped = tapped + x
            elif i in self.taps:
                tapped.append(self.to_map(x))
        return tapped if blocks.stop == len(self.blocks) else [*tapped, x]

    def _input_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the first block's input, for images of this height and width."""
        height, width = size
        if self.input_size is None:
            return height, width
        if self.takes_squares:
            return self.input_size, self.input_size
        factor = self.input_size / min(size)
        return round(factor * height), round(factor * width)

    def check_depth(self, size: Size, *, positions: int = 2) -> None:
        """Check, before anything is computed, that each tap has at least so many positions on the shorter side.

        Args:
            size: H and W of the images, in pixels.
            positions: 1 is the least with which the blocks can be run.

        Raises:
            ValueError: a tap has fewer, so the trunk is too deep for these images.
        """
        size = height_and_width(size)
        shortest, stride = min(self._input_size(size)), max(self.strides)
        if shortest // stride < positions:
            larger = "a larger resolution, or for the backbone a shallower cut or taps, or input_size=224"
            if self.input_size is not None:  # to which images of any resolution are resized
                larger = f"for the backbone input_size={positions * stride} or more, or a shallower cut or taps"
            raise ValueError(
                f"resolution={min(size)}: the backbone's tap of stride {stride} leaves less than "
                f"{positions}x{positions} of {shortest} px; choose {larger}"
            )

    @torch.no_grad()
    def shapes(self, size: Size) -> list[tuple[int, int, int]]:
        """(C, h, w) of each tap for images of this size.

        Raises:
            ValueError: a tap has less than 2x2 positions, so the trunk is too deep for these images.
        """
        self.check_depth(size)
        size = height_and_width(size)
        was_training = self.training
        self.eval()
        maps = self(torch.zeros(1, 3, *size, device=cast(Tensor, self.scale).device))
        self.train(was_training)
        return [tuple(m.shape[1:]) for m in maps]
