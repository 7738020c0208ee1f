"""The step of model=projected beside a plain loop of the Projected GAN release's passes, paired in one run.

    python benchmarks/projected_step.py                 # about four minutes on two cores

The plain loop is the same generator, trunk, mixing, heads, losses and augmentation in bare PyTorch, and computes what
the release computes in an iteration: the generator 2 times forward and 1 backward, the trunk 3 and 1, the heads 3 and 3
(the discriminator's turn draws fakes of its own). Its networks have the same weights. As there, its generator enlarges
before it convolves, and its trunk convolves before it normalises, where the project's do both at once. Default memory
format and optimizers; moving average in both. Then the project's step in turns beside that of
`optimizer.simultaneous=true`. The last line is JSON.
"""

import argparse
import copy
import json
from collections.abc import Callable

import torch
from step_time import paired
from torch import nn

from transfergen.losses.adversarial import hinge, hinge_d, hinge_g
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.layers.resampling import UpsampledConv2d
from transfergen.training.augmentation import Augmentation
from transfergen.training.ema import EMA
from transfergen.training.turn_losses import (
    both_turns,
    discriminator_turn,
    generator_turn,
    gradient_norm,
    without_weight_gradients,
)

Networks = tuple[FastGAN, ProjectedDiscriminator]


def networks(resolution: int, input_size: int | None) -> Networks:
    """FastGAN and the projected discriminator on EfficientNet-Lite0, as model=projected has them."""
    return FastGAN(resolution=resolution), ProjectedDiscriminator(_trunk(input_size), resolution=resolution)


def _trunk(input_size: int | None) -> TimmBackbone:
    return TimmBackbone(taps=(1, 2, 3), weights="package", input_size=input_size)


def as_released(network: nn.Module) -> None:
    """Let upsampling convolutions be two layers, and the trunk have its batch normalisations, of the same weights."""
    if isinstance(network, ProjectedDiscriminator):
        network.backbone = _trunk(network.backbone.input_size).eval().requires_grad_(False)
    for name, child in network.named_children():
        if isinstance(child, UpsampledConv2d):
            convolution = nn.Conv2d(child.in_channels, child.out_channels, 3, padding=1, bias=child.bias is not None)
            convolution.load_state_dict(child.state_dict())
            setattr(network, name, nn.Sequential(nn.Upsample(scale_factor=2), convolution))
        else:
            as_released(child)


def plain_step(g: FastGAN, d: ProjectedDiscriminator, batch: int) -> Callable[[], None]:
    """The release's iteration."""
    as_released(g)
    as_released(d)
    set_frozen(d, False)
    d_parameters = list(d.heads.parameters())
    d_optimizer = torch.optim.Adam(d_parameters, lr=2e-4, betas=(0.0, 0.99))
    g_optimizer = torch.optim.Adam(g.parameters(), lr=2e-4, betas=(0.0, 0.99))
    augment, ema = Augmentation(), copy.deepcopy(g)
    real = torch.rand(batch, 3, g.resolution, g.resolution) * 2 - 1

    def step() -> None:
        for p in d_parameters:
            p.requires_grad_(False)
        g_optimizer.zero_grad()
        hinge_g(d(augment(g(torch.randn(batch, g.z_dim))))).backward()
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


def project_step(
    g: FastGAN, d: ProjectedDiscriminator, batch: int, *, simultaneous: bool = False
) -> Callable[[], None]:
    """The step of `transfergen.training.gan_module`, without Lightning around it."""
    g, d = (n.to(memory_format=torch.channels_last) for n in (g, d))
    d_parameters = list(d.trainable_parameters())
    adam = {"lr": 2e-4, "betas": (0.0, 0.99), "fused": True}
    d_optimizer, g_optimizer = torch.optim.Adam(d_parameters, **adam), torch.optim.Adam(g.parameters(), **adam)
    objective, augment, ema = hinge(), Augmentation(), EMA(g, halflife_images=10_000)
    images = torch.rand(batch, 3, g.resolution, g.resolution) * 2 - 1
    seen = 0

    def step() -> None:
        nonlocal seen
        real = d.features(augment(images))
        fake = d.features(augment(g(torch.randn(batch, g.z_dim))))
        d_optimizer.zero_grad()
        g_optimizer.zero_grad()
        if simultaneous:
            d_turn, g_turn = both_turns(d, objective, real, fake)
            (d_turn.loss + g_turn.loss).backward(inputs=[*d_parameters, *g.parameters()])
        else:
            discriminator_turn(d, objective, real, fake).loss.backward()
        gradient_norm(d_parameters).isfinite().item()
        d_optimizer.step()
        if not simultaneous:
            with without_weight_gradients(d_parameters):
                generator_turn(d, objective, real, fake).loss.backward()
        gradient_norm(g.parameters()).isfinite().item()
        g_optimizer.step()
        seen += batch
        ema.update(g, images=batch, images_seen=seen)

    return step


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--input-size", type=int, help="pixels that the trunk sees; 224 as in the release")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps of each in a round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    g, d = networks(args.resolution, args.input_size)
    plain = plain_step(*copy.deepcopy((g, d)), args.batch)
    project = project_step(*copy.deepcopy((g, d)), args.batch)
    at_once = project_step(g, d, args.batch, simultaneous=True)
    a, b, ratio = paired(plain, project, rounds=args.rounds, steps=args.steps, warmup=2)
    *_, at_once_ratio = paired(project, at_once, rounds=args.rounds, steps=args.steps, warmup=2)
    print(
        f"EfficientNet-Lite0 at {args.input_size or args.resolution} px, FastGAN at {args.resolution} px, batch "
        f"{args.batch}, {args.threads} threads: {1 / b:.2f} steps/s, the release's passes {1 / a:.2f}"
    )
    ratios = {"projected_over_release": ratio, "simultaneous_over_alternating": at_once_ratio}
    print(json.dumps({name: round(value, 2) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
