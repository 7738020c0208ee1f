"""What the project computes in its own way on a CPU, beside torch's plain layers: milliseconds, and their ratio.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/cpu_kernels.py run
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/cpu_kernels.py run frozen --rounds 30
    python benchmarks/cpu_kernels.py report

- `doubling`: the gradients of a generator's transposed convolutions of stride 2, as matrix products where maps are
  small (transfergen.networks.layers.resampling).
- `frozen`: a frozen trunk, whose weights are laid out for the kernels once, and whose activations are computed by them
  (transfergen.networks.acceleration); features alone, as of reals, and with the gradient to the images, as of fakes.
- `extractors`: the networks of metrics, with folded normalisation and few images at a time
  (transfergen.evaluation.extractors).

Weights are random, which takes the time of real ones.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from unittest.mock import patch

import torch
from harness import Comparison, speed_command, timed
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn import functional as F

from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation import extractors
from transfergen.evaluation.extractors import Extractor
from transfergen.networks.acceleration import folding, frozen_conv
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.layers.resampling import doubled

PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
DOUBLING = [  # batch, channels in and out, side: the small maps of DCGAN's and FastGAN's generator
    (32, 256, 128, 4),
    (64, 256, 128, 4),
    (32, 512, 256, 4),
    (32, 256, 128, 8),
    (8, 1024, 1024, 4),
    (8, 512, 512, 8),
]
METRICS = [("efficientnet_lite0", 32), ("vgg19", 32), ("vgg19", 64), ("inception", 32), ("dinov2", 32)]
"""Files of conf/metrics, and pixels of the images."""


def doubling() -> Iterator[Comparison]:
    """Backward passes."""
    for precision, dtype in PRECISIONS.items():
        for batch, c_in, c_out, side in DOUBLING:
            shapes = ((batch, c_in, side, side), (c_in, c_out, 4, 4))
            leaves = [torch.randn(s, dtype=dtype).to(memory_format=torch.channels_last) for s in shapes]
            maps, kernel = (leaf.requires_grad_() for leaf in leaves)
            results = F.conv_transpose2d(maps, kernel, stride=2, padding=1), doubled(maps, kernel)
            plain, ours = (
                timed(partial(torch.autograd.grad, r, leaves, torch.randn_like(r), retain_graph=True)) for r in results
            )
            yield Comparison(f"doubling, {precision}, {batch} maps of {c_in}x{side}x{side} to {c_out}", plain, ours)


def frozen() -> Iterator[Comparison]:
    """Passes of 32 images through a trunk."""
    trunks: list[tuple[str, Backbone, int]] = [
        ("Lite0, three scales", TimmBackbone(weights="random"), 32),
        ("Lite0, three scales", TimmBackbone(weights="random"), 64),
        ("VGG19 to pool4", VGG(weights="random"), 64),
    ]
    for name, trunk, size in trunks:
        trunk.requires_grad_(False).to(memory_format=torch.channels_last)
        folding.fold_batchnorm(trunk.eval(), size)
        images = (torch.rand(32, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
        for precision, dtype in PRECISIONS.items():
            for backward in (False, True):
                ours = timed(partial(_pass, trunk, images, dtype, backward=backward))
                what = "forward and back" if backward else "forward"
                yield Comparison(f"{name}, {size} px, {precision}, {what}", partial(_plainly, ours), ours, images=32)


def _pass(trunk: Backbone, images: Tensor, dtype: torch.dtype, *, backward: bool) -> None:
    images = images.detach().requires_grad_(backward)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), torch.set_grad_enabled(backward):
        maps = trunk(images)
    if backward:
        torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])


def _plainly(measure: partial[float]) -> float:
    """The same by torch's layers."""
    with patch.object(frozen_conv, "_has_kernels", return_value=False):
        return measure()


def extractors_of_metrics() -> Iterator[Comparison]:
    """Features of 64 images, as many as an evaluation has in a batch."""
    for metrics, size in METRICS:
        images = torch.rand(64, 3, size, size) * 2 - 1
        with patch.object(extractors, "fold_batchnorm"):
            plain = _extractor(metrics)
        ours = timed(partial(_extractor(metrics), images))
        yield Comparison(f"{metrics}, {size} px", partial(_all_at_once, plain, images), ours, images=64)


def _extractor(metrics: str) -> Extractor:
    config = OmegaConf.load(CONF_DIR / "metrics" / f"{metrics}.yaml")
    config.weights = "random"
    return instantiate(config)


def _all_at_once(extractor: Extractor, images: Tensor) -> float:
    start = time.perf_counter()
    with patch.object(extractors, "CPU_PIXELS", sys.maxsize):
        extractor(images)
    return time.perf_counter() - start


KINDS = {"doubling": doubling, "frozen": frozen, "extractors": extractors_of_metrics}


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """Those of the kinds that were asked for."""
    for kind in args.kinds:
        yield from KINDS[kind]()


if __name__ == "__main__":
    speed_command(
        __doc__,
        comparisons,
        options=lambda parser: parser.add_argument("kinds", nargs="*", default=list(KINDS), help=f"of {list(KINDS)}"),
    )
