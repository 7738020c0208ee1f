"""Numbered PNGs from a DCGAN generator beside the bare network in a loop that keeps nothing, and exports beside torch.

    python benchmarks/generate.py                # images per second, rounds alternating, medians
    python benchmarks/generate.py --num 50000    # the whole job once, beside a loop of as many
    python benchmarks/generate.py --latency      # milliseconds of torch, bf16, torch.export and onnxruntime

The weights are random, which takes the same time as trained ones; the last line is JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import torch

from transfergen.commands.generate import main as generate
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.runs.generator_files import load_generator, save_generator
from transfergen.sampling.export import example_inputs, plain_network, to_onnx, to_torch_export
from transfergen.sampling.pretrained import Generator

BATCH = 64


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speeds(run: Path, num: int, rounds: int) -> None:
    """The command, in this process, beside the loop."""
    network = load_generator(run)  # in PyTorch's default memory format, as a script of one's own has it

    @torch.no_grad()
    def loop() -> None:
        for _ in range(num // BATCH):
            network(torch.randn(BATCH, network.z_dim))

    outs = (run / f"out{i}" for i in count())

    def command() -> None:
        sys.argv = ["generate", f"run={run}", f"num={num}", f"batch_size={BATCH}", f"out={next(outs)}", "device=cpu"]
        generate()

    loop()
    times = [(seconds(command), seconds(loop)) for _ in range(rounds)]
    ours, bare = (num / statistics.median(column) for column in zip(*times, strict=True))
    print(f"{num:,} images: {ours:.0f} PNGs/s; the bare network {bare:.0f} images/s; ratio {ours / bare:.2f}")
    print(json.dumps({"png_per_second": round(ours), "bare_per_second": round(bare), "ratio": round(ours / bare, 3)}))


def latencies(run: Path, rounds: int) -> None:
    """Each export, for one image and for 64."""
    import onnxruntime

    generator = Generator.from_pretrained(run)
    to_onnx(generator, run / "generator.onnx")
    to_torch_export(generator, run / "generator.pt2")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(run / "generator.onnx", options, providers=["CPUExecutionProvider"])
    program = torch.export.load(run / "generator.pt2").module()
    half = plain_network(generator).to(torch.bfloat16)
    ways: dict[str, Callable[[torch.Tensor], object]] = {
        "torch": generator.network,
        "torch, bf16": lambda z: half(z.bfloat16()),
        "torch.export": program,
        "onnxruntime": lambda z: session.run(None, {"z": z.numpy()}),
    }
    result: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for batch in (1, 64):
            (z,) = example_inputs(generator.network, batch)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(rounds + 2):
                for name, way in ways.items():
                    times[name].append(1000 * seconds(partial(way, z)))
            result[f"{batch}"] = {name: round(statistics.median(each[2:]), 2) for name, each in times.items()}
    print("| | 1 image, ms | 64 images, ms |\n|---|---|---|")
    for name in ways:
        print(f"| {name} | {result['1'][name]} | {result['64'][name]} |")
    print(json.dumps(result))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 64}
        save_generator(Path(folder), DCGAN(resolution=64), config, ema=True, images_seen=0)
        if args.latency:
            latencies(Path(folder), 4 * args.rounds)
        else:
            speeds(Path(folder), args.num, args.rounds if args.num < 50_000 else 1)


if __name__ == "__main__":
    main()
