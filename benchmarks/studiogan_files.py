"""A BigGAN for 32 pixels that was trained here, as the files that PyTorch-StudioGAN saves (its `big_resnet`).

The names are those of StudioGAN's `BigGAN-CIFAR10`, whose self-attention has maps of 16 pixels.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from transfergen.networks import weights
from transfergen.networks.public.layout import Rules
from transfergen.runs.artefacts import LAST_CHECKPOINT
from transfergen.runs.checkpoint import SafeCheckpointIO

NETWORKS = {"G": "generator.", "G_ema": "ema.network.", "D": "discriminator.ordinary."}
"""The prefix of each network's tensors in a checkpoint of `model=vision_aided`."""
BOTH = (
    (r"(.+)\.parametrizations\.weight\.original", r"\1.weight_orig"),
    (r"(.+)\.parametrizations\.weight\.0\._([uv])", r"\1.weight_\2"),
)
ATTENTION = (
    (r"(.+)\.query\.(.+)", r"\1.conv1x1_theta.\2"),
    (r"(.+)\.key\.(.+)", r"\1.conv1x1_phi.\2"),
    (r"(.+)\.value\.(.+)", r"\1.conv1x1_g.\2"),
    (r"(.+)\.out\.(.+)", r"\1.conv1x1_attn.\2"),
    (r"(.+)\.gain", r"\1.sigma"),
)
GENERATOR = (
    (r"linear\.(.+)", r"linear0.\1"),
    (r"embedding\.(.+)", r"shared.\1"),
    (r"to_rgb\.0\.(.+)", r"bn4.\1"),
    (r"to_rgb\.2\.(.+)", r"conv2d5.\1"),
    (r"(blocks\..+)\.residual\.0\.norm\.(.+)", r"\1.bn1.bn.\2"),
    (r"(blocks\..+)\.residual\.0\.(.+)", r"\1.bn1.\2"),
    (r"(blocks\..+)\.residual\.2\.(.+)", r"\1.conv2d1.\2"),
    (r"(blocks\..+)\.residual\.3\.norm\.(.+)", r"\1.bn2.bn.\2"),
    (r"(blocks\..+)\.residual\.3\.(.+)", r"\1.bn2.\2"),
    (r"(blocks\..+)\.residual\.5\.(.+)", r"\1.conv2d2.\2"),
    (r"(blocks\..+)\.shortcut\.(.+)", r"\1.conv2d0.\2"),
)
GENERATOR_PLACES = (
    (r"attention\.(.+)", r"blocks.2.0.\1"),
    (r"blocks\.2\.(.+)", r"blocks.3.0.\1"),
    (r"blocks\.(\d)\.(.+)", r"blocks.\1.0.\2"),
)
DISCRIMINATOR = (
    (r"linear\.(.+)", r"linear1.\1"),
    (r"layers\.0\.residual\.0\.(.+)", r"blocks.0.0.conv2d1.\1"),
    (r"layers\.0\.residual\.2\.(.+)", r"blocks.0.0.conv2d2.\1"),
    (r"layers\.(\d)\.residual\.1\.(.+)", r"blocks.\1.0.conv2d1.\2"),
    (r"layers\.(\d)\.residual\.3\.(.+)", r"blocks.\1.0.conv2d2.\2"),
    (r"layers\.(\d)\.shortcut\.(.+)", r"blocks.\1.0.conv2d0.\2"),
    (r"layers\.1\.(.+)", r"blocks.1.0.\1"),
)


def generator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `ResNet` for 32 pixels, by StudioGAN's names."""
    return _renamed(state, GENERATOR_PLACES, GENERATOR)


def discriminator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a `ResNetDiscriminator` for 32 pixels, by StudioGAN's names."""
    return _renamed(state, DISCRIMINATOR)


def _renamed(state: Mapping[str, Tensor], *layers: Rules) -> dict[str, Tensor]:
    for rules in (*layers, ATTENTION, BOTH):
        state = weights.rename(state, rules)
    return {name: tensor.reshape(1) if name.endswith(".sigma") else tensor for name, tensor in state.items()}


def save_networks(run_dir: Path, folder: Path) -> dict[str, str]:
    """Write the networks of a run of `model=vision_aided`, whose ordinary discriminator is BigGAN's.

    Returns:
        The files of the generator G, its moving average G_ema and the discriminator D.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(run_dir / LAST_CHECKPOINT)
    step = checkpoint["transfergen"]["images_seen"]
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, prefix in NETWORKS.items():
        state = checkpoint["state_dict"].items()
        own = {key.removeprefix(prefix): value for key, value in state if key.startswith(prefix)}
        renamed = discriminator_state(own) if name == "D" else generator_state(own)
        files[name] = str(folder / f"model={name}-current-weights-step={step}.pth")
        torch.save({"run_name": run_dir.name, "step": step, "state_dict": renamed}, files[name])
    return files
