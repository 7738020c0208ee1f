"""Functions that the layouts of published BigGANs share: for names, the order of blocks, and sizes by shapes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from transfergen.networks import weights
from transfergen.networks.discriminators import resnet as discriminators
from transfergen.networks.generators import resnet as generators
from transfergen.networks.resolutions import map_sizes

Rules = Iterable[tuple[str, str]]
"""A regular expression for a whole name, and the new name with \\1 for the first group; see `weights.rename`."""

ATTENTION: Rules = (
    (r"(.+\.)(?:sn)?(?:conv1x1_)?theta\.(.+)", r"\1query.\2"),
    (r"(.+\.)(?:sn)?(?:conv1x1_)?phi\.(.+)", r"\1key.\2"),
    (r"(.+\.)(?:sn)?(?:conv1x1_)?g\.(.+)", r"\1value.\2"),
    (r"(.+\.)(?:sn)?(?:conv1x1_)?(?:attn|o|o_conv)\.(.+)", r"\1out.\2"),
    (r"(.+\.)(?:sigma|gamma)", r"\1gain"),
)
SPECTRAL_NORM: Rules = (
    (r"(.+)\.weight_orig", r"\1.parametrizations.weight.original"),
    (r"(.+)\.weight_(u|v)", r"\1.parametrizations.weight.0._\2"),
)
_BLOCK = re.compile(r"(?:generator\.)?(?:blocks|layers)\.(\d+)\.(?:(\d+)\.)?(.+)")


@dataclass(frozen=True)
class PublicNetwork:
    """A network from another project's file.

    Attributes:
        config: our class as `_target_`, and the arguments that build it.
        state: the file's tensors, by our names where we have one.
    """

    config: dict[str, Any]
    state: dict[str, Tensor]

    @property
    def classes(self) -> list[str]:
        """The names of its classes if these are ImageNet's, which all projects have in the same order; else none."""
        if self.config.get("num_classes") != 1000:
            return []
        from torchvision.models import VGG19_Weights  # imports torch's compiler, which takes seconds

        return list(VGG19_Weights.IMAGENET1K_V1.meta["categories"])


def rename_layers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the layers that have the same structure in all layouts our names.

    These are spectral normalisation and self-attention, whose gain becomes a scalar. Blocks, and the self-attention
    between them, become `blocks.K`, counted in their order.
    """
    state = weights.rename(weights.rename(state, ATTENTION), SPECTRAL_NORM)
    found = {name: _BLOCK.fullmatch(name) for name in state}
    places = {name: (int(match[1]), int(match[2] or 0)) for name, match in found.items() if match}
    order = {place: number for number, place in enumerate(sorted(set(places.values())))}
    state = {name: t.reshape(()) if name.endswith(".gain") and t.numel() == 1 else t for name, t in state.items()}
    return {
        f"blocks.{order[places[name]]}.{match[3]}" if match else name: tensor
        for (name, match), tensor in zip(found.items(), state.values(), strict=True)
    }


def attention_place(state: Mapping[str, Tensor]) -> int | None:
    """How many blocks come before the self-attention; None: there is none."""
    found = (re.fullmatch(r"blocks\.(\d+)\.query\..+", name) for name in state)
    return next((int(match[1]) for match in found if match), None)


def lift_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the self-attention among the blocks `attention`, as generators have it, and count the blocks without it."""
    place = attention_place(state)
    if place is None:
        return dict(state)
    moved = [(rf"blocks\.{i}\.(.+)", rf"blocks.{i - 1}.\1") for i in range(place + 1, count_blocks(state))]
    return weights.rename(state, [(rf"blocks\.{place}\.(.+)", r"attention.\1"), *moved])


def count_blocks(state: Mapping[str, Tensor]) -> int:
    """The number of different K in names `blocks.K. ...`."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def weight_of(state: Mapping[str, Tensor], layer: str) -> Tensor:
    """A layer's weight, before spectral normalisation if it has one.

    Raises:
        KeyError: there is no such layer.
    """
    name = f"{layer}.parametrizations.weight.original"
    return state[name] if name in state else state[f"{layer}.weight"]


def resnet_generator(state: dict[str, Tensor], place: int | None, eps: float) -> PublicNetwork:
    """A residual BigGAN's generator, by our names.

    Args:
        state: its tensors.
        place: how many blocks come before the self-attention; None: it has none.
        eps: of its batch normalisation.

    Raises:
        KeyError: it is another network.
        ValueError: it is for images of another size than ours can be.
    """
    blocks = count_blocks(state)
    resolution = 4 * 2**blocks
    map_sizes(resolution)
    outputs = [len(weight_of(state, f"blocks.{i}.residual.2")) for i in range(blocks)]
    widths = [len(weight_of(state, "linear")) // 16, *outputs]
    usual = generators.MULTIPLES[resolution]
    width = widths[-1] // usual[-1]
    multiples = [each // width for each in widths]
    classes, class_dim = state["embedding.weight"].shape
    chunk = weight_of(state, "linear").shape[1]
    hierarchical = weight_of(state, "blocks.0.residual.0.gain").shape[1] > class_dim
    return PublicNetwork(
        {
            "_target_": "transfergen.networks.generators.resnet.ResNet",
            "resolution": resolution,
            "z_dim": chunk * (blocks + 1 if hierarchical else 1),
            "width": width,
            "num_classes": classes,
            "attention": None if place is None else 4 * 2**place,
            "spectral_norm": "linear.parametrizations.weight.original" in state,
            "class_dim": class_dim,
            "hierarchical": hierarchical,
            "multiples": None if multiples == list(usual) else multiples,
            "bias": "blocks.0.residual.2.bias" in state,
            "eps": eps,
        },
        state,
    )


def resnet_discriminator(state: dict[str, Tensor], first: str, second: str, shortcut: str) -> PublicNetwork:
    """A residual BigGAN's discriminator.

    Args:
        state: its tensors, by the names of `rename_layers`.
        first: the first convolution's name in each block.
        second: that of the second.
        shortcut: that of the shortcut's.

    Raises:
        KeyError: it is another network.
        ValueError: it is for images of another size than ours can be.
    """
    place = attention_place(state)
    resolution = 2 ** (count_blocks(state) + (place is None))
    map_sizes(resolution)
    rules = [
        (rf"blocks\.0\.{first}\.(.+)", r"layers.0.residual.0.\1"),
        (rf"blocks\.0\.{second}\.(.+)", r"layers.0.residual.2.\1"),
        (rf"blocks\.(\d+)\.{first}\.(.+)", r"layers.\1.residual.1.\2"),
        (rf"blocks\.(\d+)\.{second}\.(.+)", r"layers.\1.residual.3.\2"),
        (rf"blocks\.(\d+)\.{shortcut}\.(.+)", r"layers.\1.shortcut.\2"),
        (r"blocks\.(\d+)\.(.+)", r"layers.\1.\2"),
    ]
    state = weights.rename(state, rules)
    embedded = "embedding.weight" in state or "embedding.parametrizations.weight.original" in state
    return PublicNetwork(
        {
            "_target_": "transfergen.networks.discriminators.resnet.ResNetDiscriminator",
            "resolution": resolution,
            "width": len(weight_of(state, "layers.0.residual.0")) // discriminators.MULTIPLES[resolution][0],
            "num_classes": len(weight_of(state, "embedding")) if embedded else 0,
            "attention": None if place is None else resolution >> place,
            "spectral_norm": "linear.parametrizations.weight.original" in state,
        },
        state,
    )
