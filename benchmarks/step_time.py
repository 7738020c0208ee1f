"""The project's step beside the plain loop of a textbook, paired in one run: medians, ratios, and where the time goes.

    python benchmarks/step_time.py                      # about five minutes on two cores
    python benchmarks/step_time.py --rounds 3 --cut relu3_4

The plain loop is bare PyTorch as a tutorial has it: the whole VGG19 trains, reals and fakes pass through it anew in
each turn, probabilities and BCELoss, default memory format and optimizers. Both run the same batch, threads, resolution
and cut, with random weights, which take the same time as pretrained ones. Rounds alternate between the two, so that a
machine whose speed drifts does not favour one. The last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision.models import vgg19

from transfergen.data.pictures import from_array
from transfergen.data.store import Store
from transfergen.images import to_float
from transfergen.losses.adversarial import bce
from transfergen.networks.backbones.vgg import VGG, layer_names
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.ema import EMA
from transfergen.training.real_features import FeatureCache
from transfergen.training.turn_losses import (
    discriminator_turn,
    generator_turn,
    gradient_norm,
    without_weight_gradients,
)

RESOLUTION = 64
Step = Callable[[], object]


def plain_step(batch: int, cut: str) -> Step:
    """The textbook's step."""
    trunk = vgg19(weights=None).features
    trunk = trunk[: layer_names(trunk).index(cut) + 1]
    width = trunk(torch.zeros(1, 3, RESOLUTION, RESOLUTION)).shape[1]
    d = nn.Sequential(
        trunk,
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(width * 16, 1024),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.5),
        nn.Linear(1024, 1),
        nn.Sigmoid(),
    )
    g = DCGAN(resolution=RESOLUTION)
    criterion = nn.BCELoss()
    d_optimizer = torch.optim.Adam(d.parameters(), lr=2e-4, betas=(0.5, 0.999))
    g_optimizer = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real = torch.rand(batch, 3, RESOLUTION, RESOLUTION) * 2 - 1
    ones, zeros = torch.ones(batch, 1), torch.zeros(batch, 1)

    def step() -> None:
        d_optimizer.zero_grad()
        fake = g(torch.randn(batch, 100))
        (criterion(d(real), ones) + criterion(d(fake.detach()), zeros)).backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        criterion(d(fake), ones).backward()
        g_optimizer.step()

    return step


@dataclass
class Variant:
    """What of the project's step is turned on."""

    frozen: bool
    channels_last: bool = True
    fused: bool = True
    cache: bool = True
    compiled: bool = False


class ProjectStep:
    """The training step without Lightning around it, with a stopwatch on its parts."""

    def __init__(self, batch: int, cut: str, variant: Variant) -> None:
        self.d = VGGDiscriminator(VGG(cut=cut, weights="random"), resolution=RESOLUTION)
        self.g = DCGAN(resolution=RESOLUTION)
        self.d.freeze(len(self.d.backbone.blocks) if variant.frozen else 0)
        if variant.channels_last:
            self.d, self.g = (n.to(memory_format=torch.channels_last) for n in (self.d, self.g))
        if variant.compiled:
            for network in (self.g, *self.d.backbone.blocks, self.d.head):
                network.compile()
        self.ema = EMA(self.g, halflife_images=10_000)
        self.d_parameters = list(self.d.trainable_parameters())
        adam = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": variant.fused}
        self.d_optimizer = torch.optim.Adam(self.d_parameters, **adam)
        self.g_optimizer = torch.optim.Adam(self.g.parameters(), **adam)
        pixels = np.random.default_rng(0).integers(0, 256, (4 * batch, 32, 32, 3), dtype=np.uint8)
        labels = np.zeros(len(pixels), np.int64)
        self.store = Store(pixels, from_array("bench", pixels, labels, ()))
        self.cache = FeatureCache(len(pixels), 2048 if variant.cache and variant.frozen else 0)
        self.batch, self.frozen, self.objective = batch, variant.frozen, bce()
        self.seen = 0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str):  # noqa: ANN201
        """Add the time spent inside to the part's."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def __call__(self) -> None:
        """One step."""
        with self.part("data"):
            start = self.seen % len(self.store)
            batch = self.store[np.arange(start, start + self.batch) % len(self.store)]
        with self.part("features of reals"):
            if self.frozen:
                real = self.cache.get(torch.from_numpy(batch.indices), lambda i: self._features(batch.pixels[i]))
            else:
                real = self._features(batch.pixels)
        with self.part("generator forward"):
            fake_images = self.g(torch.randn(self.batch, self.g.z_dim))
        with self.part("features of fakes"):
            fake = self.d.features(fake_images)
        with self.part("discriminator's turn"):
            self.d_optimizer.zero_grad()
            discriminator_turn(self.d, self.objective, real, fake).loss.backward()
            gradient_norm(self.d_parameters).isfinite().item()
            self.d_optimizer.step()
        with self.part("generator's turn"), without_weight_gradients(self.d_parameters):
            self.g_optimizer.zero_grad()
            generator_turn(self.d, self.objective, real, fake).loss.backward()
            gradient_norm(self.g.parameters()).isfinite().item()
            self.g_optimizer.step()
        self.seen += self.batch
        with self.part("moving average"):
            self.ema.update(self.g, images=self.batch, images_seen=self.seen)

    def _features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        return self.d.features(to_float(pixels, RESOLUTION))


def seconds_of(step: Step, steps: int) -> list[float]:
    """Wall time of each of `steps` steps."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def paired(a: Step, b: Step, *, rounds: int, steps: int, warmup: int) -> tuple[float, float, float]:
    """Median step of a and of b, and the median of the rounds' ratios a / b; the two take turns."""
    for step in (a, b):
        seconds_of(step, warmup)
    a_times, b_times, ratios = [], [], []
    for _ in range(rounds):
        a_round, b_round = seconds_of(a, steps), seconds_of(b, steps)
        a_times += a_round
        b_times += b_round
        ratios.append(statistics.median(a_round) / statistics.median(b_round))
    return statistics.median(a_times), statistics.median(b_times), statistics.median(ratios)


def peak_memory_mib(which: str, args: argparse.Namespace) -> float:
    """Peak resident memory of a fresh process that takes a few steps."""
    command = [sys.executable, __file__, "--memory-of", which, "--batch", str(args.batch), "--cut", args.cut]
    return float(subprocess.run([*command, "--threads", str(args.threads)], check=True, capture_output=True).stdout)


def make(which: str, batch: int, cut: str) -> Step:
    """The plain step, or the project's with all that is on by default."""
    return plain_step(batch, cut) if which == "plain" else ProjectStep(batch, cut, Variant(which != "fine_tuning"))


def report(strategy: str, args: argparse.Namespace) -> float:
    """Print the comparison of one strategy with the plain loop, and return the ratio."""
    project = ProjectStep(args.batch, args.cut, Variant(strategy == "feature_extraction"))
    seconds_of(project, len(project.store) // args.batch)  # an epoch: the cache is full after it
    project.seconds.clear()
    plain = plain_step(args.batch, args.cut)
    a, b, ratio = paired(plain, project, rounds=args.rounds, steps=args.steps, warmup=1)
    print(f"\n{strategy}: {args.batch / b:.1f} images/s, plain loop {args.batch / a:.1f}; {ratio:.2f} times as fast")
    total = sum(project.seconds.values())
    for name, seconds in project.seconds.items():
        print(f"    {name:22}{100 * seconds / total:6.2f} %")
    return ratio


def report_parts(args: argparse.Namespace) -> None:
    """What each measure brings: the step without it, over the step with it."""
    print("\nwhat each measure brings (step without it / step with it):")
    measures = {
        "feature_extraction": {"channels_last": False, "fused": False, "cache": False},
        "fine_tuning": {"channels_last": False, "fused": False},
    }
    for strategy, switches in measures.items():
        frozen = strategy == "feature_extraction"
        for name, value in [*switches.items(), *([("compiled", True)] if args.compile else [])]:
            changed = ProjectStep(args.batch, args.cut, Variant(frozen, **{name: value}))
            base = ProjectStep(args.batch, args.cut, Variant(frozen))
            warmup = len(base.store) // args.batch
            *_, ratio = paired(changed, base, rounds=args.rounds, steps=2, warmup=warmup)
            print(f"    {strategy:20}{name:15}{1 / ratio if name == 'compiled' else ratio:6.2f}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cut", default="pool4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="steps of each in a round")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too: minutes more")
    parser.add_argument("--only-ratios", action="store_true", help="leave out the single measures and the memory")
    parser.add_argument("--memory-of", choices=["plain", "feature_extraction", "fine_tuning"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.memory_of:
        seconds_of(make(args.memory_of, args.batch, args.cut), 3)
        status = Path("/proc/self/status").read_text()  # getrusage would count what the calling process had
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
        return
    print(
        f"VGG19 to {args.cut}, {RESOLUTION} px, batch {args.batch}, {args.threads} threads, torch {torch.__version__}"
    )
    ratios = {strategy: round(report(strategy, args), 2) for strategy in ("feature_extraction", "fine_tuning")}
    if not args.only_ratios:
        report_parts(args)
        print("\npeak memory of a process:")
        for which in ("plain", "feature_extraction", "fine_tuning"):
            print(f"    {which:22}{peak_memory_mib(which, args):7.0f} MiB")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
