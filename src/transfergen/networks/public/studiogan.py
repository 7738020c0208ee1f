"""BigGAN as PyTorch-StudioGAN saves it (its `big_resnet`). Kang 2023, arXiv:2206.09479."""

from torch import Tensor

from transfergen.networks import weights
from transfergen.networks.public import layout

LICENCE = "MIT"
BATCH_NORM_EPS = 1e-4
_GENERATOR: layout.Rules = (
    (r"linear0\.(.+)", r"linear.\1"),
    (r"shared\.(.+)", r"embedding.\1"),
    (r"bn4\.(.+)", r"to_rgb.0.\1"),
    (r"conv2d5\.(.+)", r"to_rgb.2.\1"),
    (r"(blocks\.\d+)\.bn1\.bn\.(.+)", r"\1.residual.0.norm.\2"),
    (r"(blocks\.\d+)\.bn1\.(.+)", r"\1.residual.0.\2"),
    (r"(blocks\.\d+)\.conv2d1\.(.+)", r"\1.residual.2.\2"),
    (r"(blocks\.\d+)\.bn2\.bn\.(.+)", r"\1.residual.3.norm.\2"),
    (r"(blocks\.\d+)\.bn2\.(.+)", r"\1.residual.3.\2"),
    (r"(blocks\.\d+)\.conv2d2\.(.+)", r"\1.residual.5.\2"),
    (r"(blocks\.\d+)\.conv2d0\.(.+)", r"\1.shortcut.\2"),
)


def generator(state: dict[str, Tensor]) -> layout.PublicNetwork:
    """The generator of a file `model=G-...` or `model=G_ema-...`; see `layout.resnet_generator` for errors."""
    state = layout.rename_layers(state)
    place = layout.attention_place(state)
    renamed = weights.rename(layout.lift_attention(state), _GENERATOR)
    return layout.resnet_generator(renamed, place, BATCH_NORM_EPS)


def discriminator(state: dict[str, Tensor]) -> layout.PublicNetwork:
    """The discriminator of a file `model=D-...`; see `layout.resnet_discriminator` for errors."""
    state = weights.rename(layout.rename_layers(state), [(r"linear1\.(.+)", r"linear.\1")])
    return layout.resnet_discriminator(state, "conv2d1", "conv2d2", "conv2d0")
