"""The project's own ways to compute on a CPU, beside torch's plain layers: milliseconds, and their ratio.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/cpu_kernels.py run
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/cpu_kernels.py run frozen --rounds 30
    python benchmarks/cpu_kernels.py report

- `doubling`: gradients of a generator's transposed convolutions of stride 2, as matrix products where maps are small
  (transfergen.networks.layers.resampling).
- `frozen`: a frozen trunk whose weights are reordered for the kernels once, and whose activations the kernels compute
  (transfergen.networks.acceleration): features, and features with the gradient to the images.
- `extractors`: the networks of metrics, with folded normalisation and few images at a time
  (transfergen.evaluation.extractors).
- `winograd`: a trunk's convolutions of 3x3 in float32, by Winograd's algorithm where it suits
  (transfergen.networks.acceleration.winograd): frozen, and with all gradients while they train.

Weights are random, which take the time of trained ones.
"""

import argparse
import copy
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain
from unittest.mock import patch

import torch
from harness import Comparison, speed_command, timed
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation import extractors
from transfergen.networks.acceleration import folding
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.layers.resampling import conv_transpose_2x
from transfergen.training.freed_memory import keep_freed_memory

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
OFF = patch.dict(os.environ, TRANSFERGEN_ACCELERATION="0")
"""Turns the acceleration of frozen networks off in a function."""


def doubling() -> Iterator[Comparison]:
    """Backward passes on small maps of DCGAN's and FastGAN's generator."""
    for precision, dtype in PRECISIONS.items():
        for batch, c_in, side in ((32, 256, 4), (64, 256, 4), (32, 512, 4), (32, 256, 8), (8, 1024, 4), (8, 512, 8)):
            c_out = c_in if batch == 8 else c_in // 2
            shapes = ((batch, c_in, side, side), (c_in, c_out, 4, 4))
            leaves = [torch.randn(s, dtype=dtype).to(memory_format=torch.channels_last) for s in shapes]
            maps, kernel = (leaf.requires_grad_() for leaf in leaves)
            results = F.conv_transpose2d(maps, kernel, stride=2, padding=1), conv_transpose_2x(maps, kernel)
            both = (partial(torch.autograd.grad, r, leaves, torch.ones_like(r), retain_graph=True) for r in results)
            yield Comparison(
                f"doubling, {precision}, {batch} maps of {c_in}x{side}x{side} to {c_out}", *map(timed, both)
            )


def frozen() -> Iterator[Comparison]:
    """Passes of 32 images through a trunk."""
    lite0, vgg = TimmBackbone(weights="random"), VGG(weights="random")
    for name, trunk, size in (("Lite0", copy.deepcopy(lite0), 32), ("Lite0", lite0, 64), ("VGG19 to pool4", vgg, 64)):
        trunk.requires_grad_(False).to(memory_format=torch.channels_last)
        folding.fold_batchnorm(trunk.eval(), size)
        images = (torch.rand(32, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
        for precision, dtype in PRECISIONS.items():
            for backward in (False, True):
                ours = timed(partial(_pass, trunk, images, dtype, backward=backward))
                what = "forward and back" if backward else "forward"
                yield Comparison(f"{name}, {size} px, {precision}, {what}", OFF(ours), ours, images=32)


def _pass(trunk: Backbone, images: Tensor, dtype: torch.dtype, *, backward: bool) -> None:
    images = images.detach().requires_grad_(backward)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), torch.set_grad_enabled(backward):
        maps = trunk(images)
    if backward:
        torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])


def winograd() -> Iterator[Comparison]:
    """Convolutions of 32 maps."""
    keep_freed_memory()  # as a training does, and for the rest of the process
    for channels, side in ((128, 16), (256, 8), (256, 16), (512, 4), (512, 8)):
        convolution = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
        maps = torch.randn(32, channels, side, side).contiguous(memory_format=torch.channels_last)
        for is_frozen in (True, False):
            layer = FrozenConv2d(convolution, nn.ReLU, frozen=is_frozen)
            ours = timed(partial(_convolve, layer, maps, backward=not is_frozen))
            what = "frozen" if is_frozen else "forward and back while it trains"
            yield Comparison(f"3x3, {channels} channels, {side}x{side}, {what}", OFF(ours), ours, images=32)


def _convolve(layer: FrozenConv2d, maps: Tensor, *, backward: bool) -> None:
    maps = maps.detach().requires_grad_(backward)
    with torch.set_grad_enabled(backward):
        result = layer(maps)
    if backward:
        result.backward(torch.ones_like(result))


def metrics() -> Iterator[Comparison]:
    """Features of 64 images, as many as an evaluation has in a batch."""
    for name, size in (("efficientnet_lite0", 32), ("vgg19", 32), ("vgg19", 64), ("inception", 32), ("dinov2", 32)):
        images = torch.rand(64, 3, size, size) * 2 - 1
        config = OmegaConf.load(CONF_DIR / "metrics" / f"{name}.yaml")
        config.weights = "random"
        plain = patch.object(extractors, "CPU_PIXELS", sys.maxsize)(timed(partial(OFF(instantiate)(config), images)))
        yield Comparison(f"{name}, {size} px", plain, timed(partial(instantiate(config), images)), images=64)


KINDS = {"doubling": doubling, "frozen": frozen, "extractors": metrics, "winograd": winograd}


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The cases of the kinds that were asked for."""
    return chain.from_iterable(KINDS[kind]() for kind in args.kinds)


if __name__ == "__main__":
    speed_command(
        __doc__, comparisons, options=lambda parser: parser.add_argument("kinds", nargs="*", default=list(KINDS))
    )
