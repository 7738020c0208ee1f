"""The project's training step, without Lightning around it, beside plain loops in bare PyTorch.

    python benchmarks/step_time.py run
    python benchmarks/step_time.py run vgg_disc --rounds 14
    python benchmarks/step_time.py report

- `tutorial`: a textbook's loop. All of VGG19 trains, and images pass through it anew in each turn, with probabilities,
  BCELoss, and default memory format and optimizers. The project's step has a frozen trunk, and the features of all
  reals in the cache, or all of it fine-tuned.
- `projected`: small heads on EfficientNet-Lite0, against FastGAN. The plain loop has the passes of the Projected GAN
  release: the generator 2 times forward and 1 time backward, the trunk 3 and 1, the heads 3 and 3. As there, the
  generator enlarges before it convolves, and the trunk convolves before it normalises.
- `vgg_disc`: the heads of `model=vgg_disc` beside those of `model=projected_small`, on the same trunk.
- `memory`: the default, with freed memory given back from 64 MiB on, as glibc does after a while by itself, and kept.
- `simultaneous`: both networks updated in turns, and both from one pass of the heads.

Both sides have the same networks, batch, threads and float32. Weights are random, which take the time of trained ones.
"""

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from harness import Comparison, positive, speed_command, timed
from judgement import compose_config
from torch import Tensor, nn
from torchvision.models import vgg19

from transfergen.config import instantiate
from transfergen.data.store import Batch
from transfergen.losses.adversarial import hinge_d, hinge_g
from transfergen.networks.backbones.vgg import layer_names
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.layers.resampling import UpsampledConv2d
from transfergen.training.adversarial_step import AdversarialStep
from transfergen.training.augmentation import Augmentation
from transfergen.training.build import build_module
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.freed_memory import keep_freed_memory
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_records import Fakes, Generate

BATCHES = 4
"""Batches in an epoch of the drawn pictures."""
TUTORIAL = ["experiment=tutorial", "backbone.weights=random", "ema.halflife_images=10000"]
FROZEN = [*TUTORIAL, "transfer=feature_extraction"]
SMALL_HEADS = [
    "model=projected",
    "generator=fastgan",
    "backbone=efficientnet_lite0",
    "discriminator=projected_small",
    "discriminator.joint_batchnorm=false",  # as the release has it
    "augment=diffaugment",
]
SHALLOW_VGG = [
    "backbone=vgg19_multiscale",
    "backbone.cut=relu3_4",
    "backbone.taps=[relu1_2,relu2_2]",
    "backbone.weights=random",
]


def project_step(
    overrides: Sequence[str], *, batch: int, resolution: int, warm_up: int = BATCHES
) -> Callable[[], None]:
    """A step of the training that overrides of train.py choose, on drawn pictures, after some steps to warm up."""
    data = [f"data.source.train={BATCHES * batch}", "data.source.test=16", f"data.batch_size={batch}"]
    config = compose_config([*overrides, "data=shapes", *data, f"data.resolution={resolution}"])
    data = instantiate(config.data)
    data.setup()
    m, device, seen = build_module(config), torch.device("cpu"), 0
    real_features = RealFeatures(data.train_set, resolution, m.discriminator, m.augment, cache_mib=m.transfer.cache_mib)
    m.discriminator.calibrate(real_features.sample_images(batch, 0, device))
    networks = m.generator, m.discriminator, m.objective, m.augment, m.transfer

    def draw_fakes(part: Batch, labels: Tensor | None, generate: Generate) -> Fakes:
        z = torch.randn(len(part.pixels), m.generator.z_dim)
        return Fakes(z, generate(z, labels))

    adversarial_step = AdversarialStep(
        *networks,
        m.configure_optimizers(),
        real_features=real_features,
        draw_fakes=draw_fakes,
        updates=FiniteUpdates(device),
        extrapolation=m.extrapolation,
        simultaneous=m.simultaneous,
        accumulate=m.accumulate,
    )

    def step() -> None:
        nonlocal seen
        pictures = data.train_set[np.arange(seen, seen + batch) % (BATCHES * batch)]
        adversarial_step(pictures, seen, backward=Tensor.backward)
        seen += batch
        if m.ema:
            m.ema.update(m.generator, images=batch, images_seen=seen)

    for _ in range(warm_up):  # after an epoch, the cache is full
        step()
    return step


def textbook_step(batch: int, resolution: int, cut: str = "pool4") -> Callable[[], None]:
    """The loop of `tutorial`."""
    trunk = vgg19(weights=None).features
    trunk = trunk[: layer_names(trunk).index(cut) + 1]
    head = [nn.Linear(512 * 16, 1024), nn.LeakyReLU(0.2), nn.Dropout(0.5), nn.Linear(1024, 1), nn.Sigmoid()]
    d = nn.Sequential(trunk, nn.AdaptiveAvgPool2d(4), nn.Flatten(), *head)
    g = DCGAN(resolution=resolution)
    criterion = nn.BCELoss()
    d_optimizer, g_optimizer = (torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (d, g))
    real = torch.rand(batch, 3, resolution, resolution) * 2 - 1
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


def release_step(overrides: Sequence[str], *, batch: int) -> Callable[[], None]:
    """The loop of `projected`, on the networks that the overrides choose."""
    config = compose_config(overrides)
    g, d = instantiate(config.generator), instantiate(config.discriminator)
    d.backbone = instantiate(config.backbone).eval().requires_grad_(False)  # its normalisations are not folded
    _split_upsampling(g)
    d_parameters = list(d.heads.parameters())
    d_optimizer, g_optimizer = (
        torch.optim.Adam(parameters, lr=2e-4, betas=(0.0, 0.99)) for parameters in (d_parameters, g.parameters())
    )
    augment, ema = Augmentation(), copy.deepcopy(g)
    real = torch.rand(batch, 3, g.resolution, g.resolution) * 2 - 1

    def step() -> None:
        for p in d_parameters:
            p.requires_grad_(False)
        g_optimizer.zero_grad()
        hinge_g(None, d(augment(g(torch.randn(batch, g.z_dim))))).backward()
        g_optimizer.step()
        for p in d_parameters:
            p.requires_grad_(True)
        d_optimizer.zero_grad()
        with torch.no_grad():
            fake = g(torch.randn(batch, g.z_dim))
        hinge_d(d(augment(real)), d(augment(fake))).backward()
        d_optimizer.step()
        with torch.no_grad():
            for mine, its in zip(ema.parameters(), g.parameters(), strict=True):
                mine.copy_(its.lerp(mine, 0.999))

    return step


def _split_upsampling(network: nn.Module) -> None:
    """Make two layers of each upsampling convolution."""
    for name, child in network.named_children():
        if isinstance(child, UpsampledConv2d):
            convolution = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None)
            convolution.load_state_dict(child.state_dict())
            setattr(network, name, nn.Sequential(nn.Upsample(scale_factor=2), convolution))
        else:
            _split_upsampling(child)


def comparisons(args: argparse.Namespace) -> Iterator[Comparison]:
    """The comparisons that were asked for."""
    batch, resolution = args.batch, args.resolution
    project = partial(project_step, batch=batch, resolution=resolution)
    size = f"batch {batch}, {resolution} px"

    def compare(name: str, baseline: Callable[[], object], subject: Callable[[], object]) -> Comparison:
        return Comparison(f"{name}, {size}", timed(baseline), timed(subject), images=batch)

    if "tutorial" in args.kinds:
        textbook = textbook_step(batch, resolution)
        yield compare("frozen VGG19 to pool4, beside a textbook's loop", textbook, project(FROZEN))
        yield compare("fine-tuned VGG19 to pool4, beside a textbook's loop", textbook, project(TUTORIAL))
    heads = [*SMALL_HEADS, "backbone.weights=random"]
    if "projected" in args.kinds:
        release = release_step([*heads, f"data.resolution={resolution}"], batch=batch)
        yield compare("projected, beside the release's passes", release, project(heads))
    if "vgg_disc" in args.kinds:
        models = (project([model, *SHALLOW_VGG]) for model in ("model=projected_small", "model=vgg_disc"))
        yield compare("vgg_disc beside projected_small, VGG19 to relu3_4", *models)
    if "memory" in args.kinds:
        step = project(["model=vgg_disc", *SHALLOW_VGG])
        sides = (partial(_with_memory, step, most) for most in (64 * 2**20, 2**31 - 1))
        yield compare("vgg_disc, freed memory kept", *sides)
    if "simultaneous" in args.kinds:
        for model in (heads, ["experiment=cifar10", "backbone.weights=random"]):
            both = (project([*model, f"optimizer.simultaneous={value}"]) for value in ("false", "true"))
            yield compare(f"{model[0]}, simultaneous beside in turns", *both)


def _with_memory(step: Callable[[], None], most: int) -> None:
    keep_freed_memory(most)
    step()


KINDS = ["tutorial", "projected", "vgg_disc", "memory", "simultaneous"]


def options(parser: argparse.ArgumentParser) -> None:
    """Options: which comparisons, and their size."""
    parser.add_argument("kinds", nargs="*", default=KINDS, help=f"of {', '.join(KINDS)}")
    parser.add_argument("--batch", type=positive(int), default=32)
    parser.add_argument("--resolution", type=positive(int), default=64, help="pixels")


if __name__ == "__main__":
    speed_command(__doc__, comparisons, options=options, rounds=6)
