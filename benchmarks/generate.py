"""Speed of a trained generator in use: the command that writes PNGs, and exports, beside the bare network.

    python benchmarks/generate.py run png --num 8192
    python benchmarks/generate.py run latency
    python benchmarks/generate.py report

- `png`: `transfergen generate`, beside a loop that calls the network and keeps nothing.
- `latency`: bfloat16, torch.export and onnxruntime, beside torch in float32, for one image and for 64.

The network is DCGAN's at 64x64, with random weights, which take the time of trained ones.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import torch
from harness import Comparison, positive, speed_command, timed
from torch import Tensor

from transfergen.commands.generate import main as generate
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.runs.generator_files import load_generator, save_generator
from transfergen.sampling.export import example_inputs, plain_network, to_onnx, to_torch_export
from transfergen.sampling.pretrained import PretrainedGenerator

BATCH = 64


def png(run: Path, num: int) -> Comparison:
    """The command, in this process, beside the loop."""
    network, outs = load_generator(run), (run / f"out{i}" for i in count())

    def loop() -> None:
        for _ in range(num // BATCH):
            network(torch.randn(BATCH, network.z_dim))

    def command() -> None:
        generate([f"run={run}", f"num={num}", f"batch_size={BATCH}", f"out={next(outs)}", "device=cpu"])

    return Comparison(f"{num} PNGs", timed(loop), timed(command), images=num)


def latency(run: Path) -> Iterator[Comparison]:
    """Each export beside torch."""
    import onnxruntime

    generator = PretrainedGenerator.from_pretrained(run)
    to_onnx(generator, run / "generator.onnx")
    to_torch_export(generator, run / "generator.pt2")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(run / "generator.onnx", options, providers=["CPUExecutionProvider"])
    half = plain_network(generator).to(torch.bfloat16)
    exports: dict[str, Callable[[Tensor], object]] = {
        "bfloat16": lambda z: half(z.bfloat16()),
        "torch.export": torch.export.load(run / "generator.pt2").module(),
        "onnxruntime": lambda z: session.run(None, {"z": z.numpy()}),
    }
    for batch in (1, BATCH):
        (z,) = example_inputs(generator.network, batch)
        for name, network in exports.items():
            calls = (timed(partial(call, z)) for call in (generator.network, network))
            yield Comparison(f"{name}, {batch} images", *calls, images=batch)


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The comparisons that were asked for, of a run directory with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 64}
        save_generator(Path(folder), DCGAN(resolution=64), config, ema=True, images_seen=0)
        if "png" in args.kinds:
            yield png(Path(folder), args.num)
        if "latency" in args.kinds:
            yield from latency(Path(folder))


def options(parser: argparse.ArgumentParser) -> None:
    """Options: which comparisons, and how many images."""
    parser.add_argument("kinds", nargs="*", default=["png", "latency"], help="png, latency")
    parser.add_argument("--num", type=positive(int), default=4096, help="PNGs")


if __name__ == "__main__":
    speed_command(__doc__, comparisons, options=options, rounds=5)
