"""The gradients of a generator's doubling convolutions: the project's products beside torch's own, in turns.

    python benchmarks/doubling.py
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/doubling.py --rounds 30

Milliseconds are medians of the backward passes of one process, for maps of the DCGAN and the FastGAN generator that are
small enough for the products (transfergen.networks.layers.resampling); the ratio is torch's by the project's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from transfergen.networks.layers.resampling import conv_transpose_2x

SHAPES = [  # batch, channels in and out, side
    (32, 256, 128, 4),
    (64, 256, 128, 4),
    (32, 512, 256, 4),
    (32, 256, 128, 8),
    (8, 1024, 1024, 4),
    (8, 512, 512, 8),
]


def plain(maps: Tensor, kernel: Tensor) -> Tensor:
    """As torch has it."""
    return F.conv_transpose2d(maps, kernel, stride=2, padding=1)


def milliseconds(compute: Callable[[Tensor, Tensor], Tensor], leaves: list[Tensor]) -> float:
    """Of one backward pass."""
    result = compute(*leaves)
    outer = torch.randn_like(result)
    start = time.perf_counter()
    torch.autograd.grad(result, leaves, outer)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print("| precision | batch | channels | map | torch, ms | products, ms | ratio |\n|---|---|---|---|---|---|---|")
    for dtype in (torch.bfloat16, torch.float32):
        for batch, c_in, c_out, side in SHAPES:
            leaves = [
                torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
                for shape in ((batch, c_in, side, side), (c_in, c_out, 4, 4))
            ]
            times = [[milliseconds(compute, leaves) for compute in (plain, conv_transpose_2x)] for _ in range(rounds)]
            theirs, ours = (statistics.median(column) for column in zip(*times, strict=True))
            row = f"{batch} | {c_in} to {c_out} | {side}x{side} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f}"
            print(f"| {str(dtype).removeprefix('torch.')} | {row} |", flush=True)


if __name__ == "__main__":
    main()
