"""BigGAN-deep as the package pytorch-pretrained-biggan has it from TensorFlow Hub. Brock 2019, arXiv:1809.11096."""

from torch import Tensor

from transfergen.networks import weights
from transfergen.networks.generators.biggan_deep import MULTIPLES
from transfergen.networks.layers.truncation_norm import interpolate_rows
from transfergen.networks.public import layout
from transfergen.networks.weights import Download

LICENCE = "code MIT; no licence of the weights was found"
_URL = "https://s3.amazonaws.com/models.huggingface.co/biggan/biggan-deep-{}-pytorch_model.bin"
PUBLISHED = {str(resolution): Download(_URL.format(resolution), sha256="") for resolution in MULTIPLES}
"""The released files, by the resolution of their images. No digests of them are published."""
TRAINING = {"truncation": 1.0}
_GENERATOR: layout.Rules = (
    (r"embeddings\.(.+)", r"embedding.\1"),
    (r"generator\.gen_z\.(.+)", r"linear.\1"),
    (r"generator\.bn\.(.+)", r"to_rgb.0.\1"),
    (r"generator\.conv_to_rgb\.(.+)", r"to_rgb.2.\1"),
    *((rf"(blocks\.\d+)\.bn_{i}\.scale\.(.+)", rf"\1.residual.{3 * i}.gain.\2") for i in range(4)),
    *((rf"(blocks\.\d+)\.bn_{i}\.offset\.(.+)", rf"\1.residual.{3 * i}.bias.\2") for i in range(4)),
    *((rf"(blocks\.\d+)\.bn_{i}\.(.+)", rf"\1.residual.{3 * i}.norm.\2") for i in range(4)),
    *((rf"(blocks\.\d+)\.conv_{i}\.(.+)", rf"\1.residual.{3 * i + 2}.\2") for i in range(4)),
)


def generator(state: dict[str, Tensor], truncation: float | None = None) -> layout.PublicNetwork:
    """The generator.

    Args:
        state: the file's tensors.
        truncation: batch normalisation becomes an ordinary one with the statistics of this truncation, to be trained;
            None: it keeps those of all truncations, and the running statistics are those of 1.

    Raises:
        KeyError: it is another network.
    """
    renamed = weights.rename(layout.lift_attention(layout.rename_layers(state)), _GENERATOR)
    renamed["embedding.weight"] = renamed["embedding.weight"].T  # theirs is a linear layer on one-hot vectors
    statistics, complete = 0, {}
    for name, tensor in renamed.items():
        norm, _, kind = name.rpartition(".")
        if kind in ("running_means", "running_vars"):
            ours = {"running_means": ("running_mean", "means"), "running_vars": ("running_var", "variances")}[kind]
            complete[f"{norm}.{ours[0]}"] = interpolate_rows(tensor, 1.0 if truncation is None else truncation)
            if truncation is None:
                statistics, complete[f"{norm}.{ours[1]}"] = len(tensor), tensor
        else:
            complete[name] = tensor
    classes, class_dim = complete["embedding.weight"].shape
    resolution = 4 * 2 ** (layout.count_blocks(complete) // 2)
    return layout.PublicNetwork(
        {
            "_target_": "transfergen.networks.generators.biggan_deep.BigGANDeep",
            "resolution": resolution,
            "z_dim": layout.weight_of(complete, "linear").shape[1] - class_dim,
            "width": len(complete["to_rgb.0.bias"]),
            "num_classes": classes,
            "class_dim": class_dim,
            "statistics": statistics,
        },
        complete,
    )
