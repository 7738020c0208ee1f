"""Memory of a training step of BigGAN or FastGAN: a whole batch, in parts, and with a generator that keeps less.

    python benchmarks/step_memory.py run
    python benchmarks/step_memory.py run --networks biggan_deep --width 128 --batch 8
    python benchmarks/step_memory.py run --networks fastgan --width 64 --resolution 512 --batch 8
    python benchmarks/step_memory.py run --resolution 128 --width 24 --batch 16 --parts 4
    python benchmarks/step_memory.py report

Each way takes two steps in a process of its own. Its memory is the peak that the kernel (Linux) counts during them,
without what the process held before: the networks, the drawn pictures and the libraries. It contains gradients and
the optimizers' state, which are as large in all ways.
"""

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from harness import Result, Results, command, markdown, positive, processor
from step_time import project_step

STEPS = 2
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
NETWORKS = {
    "biggan": ["model=biggan", "optimizer.d_steps=1", "data.num_classes=0", "discriminator.width={width}"],
    "biggan_deep": ["experiment=few_shot", "generator=biggan_deep", "data.num_classes=1"],
    "fastgan": ["experiment=few_shot", "generator=fastgan"],
}
"""Overrides of train.py: BigGAN with its own discriminator, and two generators with the heads of few pictures."""


def measure(overrides: list[str], batch: int, resolution: int, threads: int) -> dict[str, float]:
    """The memory in MiB, and the seconds, that a step takes in this process."""
    torch.set_num_threads(threads)
    step = project_step(overrides, batch=batch, resolution=resolution, warm_up=0)
    CLEAR_REFS.write_text("5")  # the peak counts from here
    before, start = _kibibytes("VmRSS"), time.perf_counter()
    for _ in range(STEPS):
        step()
    seconds = (time.perf_counter() - start) / STEPS
    return {"mib": round((_kibibytes("VmHWM") - before) / 1024), "seconds": round(seconds, 2)}


def _kibibytes(field: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(field))


def run(args: argparse.Namespace, results: Results) -> None:
    """Measure one way after the other."""
    parts, checkpointing = f"optimizer.accumulate={args.parts}", "generator_checkpointing=true"
    networks = [override.format(width=args.width) for override in NETWORKS[args.networks]]
    size = "" if args.networks == "biggan" else f"{args.networks}, "
    size += f"width {args.width}, batch {args.batch}, {args.resolution} px"
    for way in ([], [checkpointing], [parts], [parts, checkpointing]):
        overrides = [*networks, f"generator.width={args.width}", *way]
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            result = fresh.submit(measure, overrides, args.batch, args.resolution, args.threads).result()
        about = {"name": f"{' '.join(way) or 'whole batch'}, {size}", "machine": processor(), "size": size}
        results.add(about | result | {"torch": torch.__version__})
        print(about["name"], result, flush=True)


def table(results: Iterable[Result]) -> str:
    """Memory and time of each way, and as a fraction of the whole batch's on the same machine."""
    results = list(results)
    whole = {(r["machine"], r["size"]): r for r in results if r["name"].startswith("whole batch")}
    rows = []
    for result in results:
        base = whole[result["machine"], result["size"]]
        ratios = [f"{result[key]} ({result[key] / base[key]:.2f})" for key in ("mib", "seconds")]
        rows.append([result["name"], result["machine"], *ratios])
    return markdown(rows, ["", "machine", "MiB", "seconds"])


def options(parser: argparse.ArgumentParser) -> None:
    """Options: the networks, and the batch."""
    parser.add_argument("--networks", choices=NETWORKS, default="biggan")
    parser.add_argument("--resolution", type=positive(int), default=128, help="pixels")
    parser.add_argument(
        "--width",
        type=positive(int),
        default=24,
        help="of the networks: BigGAN has 96, BigGAN-deep 128, FastGAN 64",
    )
    parser.add_argument("--batch", type=positive(int), default=16)
    parser.add_argument("--parts", type=positive(int), default=4)
    parser.add_argument("--threads", type=positive(int), default=torch.get_num_threads(), help="of torch")


if __name__ == "__main__":
    command(__doc__, run=run, report=lambda everything, _: print(table(everything)), options=options)
