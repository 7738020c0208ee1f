"""Passes through a frozen trunk on a CPU: weights laid out once and activations in the kernels, beside plain layers.

    python benchmarks/frozen.py
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/frozen.py --rounds 30

Milliseconds are medians, both in turns in one process, of batches of 32: of features without a gradient, as of reals,
and of features and the gradient that goes back to the images, as of fakes
(transfergen.networks.acceleration.frozen_conv).
"""

import argparse
import statistics
import time
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor

from transfergen.networks.backbones import folding, frozen
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.backbones.vgg import VGG

TRUNKS: list[tuple[str, Backbone, int]] = [
    ("Lite0, three scales", TimmBackbone(weights="random"), 32),
    ("Lite0, three scales", TimmBackbone(weights="random"), 64),
    ("VGG19 to pool4", VGG(weights="random"), 64),
]
BATCH = 32


def milliseconds(trunk: Backbone, images: Tensor, precision: torch.dtype, *, backward: bool) -> float:
    """Of one pass."""
    images = images.detach().requires_grad_(backward)
    start = time.perf_counter()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32), torch.set_grad_enabled(backward):
        maps = trunk(images)
    if backward:
        torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print("| trunk | pixels | precision | pass | plain, ms | frozen, ms | ratio |\n|---|---|---|---|---|---|---|")
    plainly = partial(patch.object, frozen, "_has_kernels", return_value=False)
    for name, trunk, size in TRUNKS:
        trunk.requires_grad_(False).to(memory_format=torch.channels_last)
        folding.fold_batchnorm(trunk.eval(), size)
        images = (torch.rand(BATCH, 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)
        for precision in (torch.bfloat16, torch.float32):
            for backward in (False, True):
                passes = []
                for _ in range(rounds):
                    with plainly():
                        plain = milliseconds(trunk, images, precision, backward=backward)
                    passes.append([plain, milliseconds(trunk, images, precision, backward=backward)])
                theirs, ours = (statistics.median(column) for column in zip(*passes, strict=True))
                what = "and back" if backward else "forward"
                row = f"{name} | {size} | {str(precision).removeprefix('torch.')} | {what} | {theirs:.1f} | {ours:.1f}"
                print(f"| {row} | {theirs / ours:.2f} |", flush=True)


if __name__ == "__main__":
    main()
