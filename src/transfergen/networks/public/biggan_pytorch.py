"""BigGAN as BigGAN-PyTorch saves it, by the paper's first author. Brock 2019, arXiv:1809.11096."""

from torch import Tensor
from torch.nn import functional as F

from transfergen.networks import weights
from transfergen.networks.public import layout

LICENCE = "MIT"
BATCH_NORM_EPS = 1e-5
_NORM: layout.Rules = ((r"(.+\.)stored_mean", r"\1running_mean"), (r"(.+\.)stored_var", r"\1running_var"))
_GENERATOR: layout.Rules = (
    (r"shared\.(.+)", r"embedding.\1"),
    (r"output_layer\.0\.gain", r"to_rgb.0.weight"),
    (r"output_layer\.(.+)", r"to_rgb.\1"),
    (r"(blocks\.\d+)\.bn1\.(running_.+)", r"\1.residual.0.norm.\2"),
    (r"(blocks\.\d+)\.bn1\.(.+)", r"\1.residual.0.\2"),
    (r"(blocks\.\d+)\.conv1\.(.+)", r"\1.residual.2.\2"),
    (r"(blocks\.\d+)\.bn2\.(running_.+)", r"\1.residual.3.norm.\2"),
    (r"(blocks\.\d+)\.bn2\.(.+)", r"\1.residual.3.\2"),
    (r"(blocks\.\d+)\.conv2\.(.+)", r"\1.residual.5.\2"),
    (r"(blocks\.\d+)\.conv_sc\.(.+)", r"\1.shortcut.\2"),
)


def generator(state: dict[str, Tensor]) -> layout.PublicNetwork:
    """The generator of a file `G.pth` or `G_ema.pth`; see `layout.resnet_generator` for errors."""
    state = layout.rename_layers(weights.rename(_complete(state), _NORM))
    place = layout.attention_place(state)
    renamed = weights.rename(layout.lift_attention(state), _GENERATOR)
    return layout.resnet_generator(renamed, place, BATCH_NORM_EPS)


def discriminator(state: dict[str, Tensor]) -> layout.PublicNetwork:
    """The discriminator of a file `D.pth`; see `layout.resnet_discriminator` for errors."""
    state = weights.rename(layout.rename_layers(_complete(state)), [(r"embed\.(.+)", r"embedding.\1")])
    return layout.resnet_discriminator(state, "conv1", "conv2", "conv_sc")


def _complete(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give spectral normalisation both its vectors.

    The files hold `u0`, from which each forward pass takes the power iteration's next step, so that step is taken here.
    They also hold `sv0`, the singular value, for its curve: it follows from the vectors.
    """
    completed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        if kind == "u0":
            matrix = state[f"{layer}.weight"].flatten(1)
            v = F.normalize(tensor[0] @ matrix, dim=0)
            completed |= {f"{layer}.weight_u": F.normalize(matrix @ v, dim=0), f"{layer}.weight_v": v}
        elif kind == "weight" and f"{layer}.u0" in state:
            completed[f"{layer}.weight_orig"] = tensor
        elif not (kind == "sv0" and f"{layer}.u0" in state):
            completed[name] = tensor
    return completed
