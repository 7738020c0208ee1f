"""torchvision's VGG11 to VGG19, cut at any named layer. Simonyan and Zisserman 2015, arXiv:1409.1556."""

import re
from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.vgg import cfgs, make_layers

from transfergen.networks.backbones.base import Backbone
from transfergen.networks.weights import Download, load_weights, read_state_dict

# torchvision's file names contain the first eight digits of the SHA-256. These are all of them, where known.
FULL_SHA256 = {
    "397923af": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "6c64b313": "6c64b3138f2f4fcb3bcc4cafde11619c4f440eb1631787e93a682fd88305888a",
    "dcbb9e9d": "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
    "c79401a0": "c79401a0cf3cb42714e4182f5868c7a6f4f4534f5df9e956e2bb2098de41cbb6",
}
_LAYOUT = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}  # columns of the paper's table 1


class VGG(Backbone):
    """The convolutional layers of a VGG up to and including `cut`.

    A block ends at each tap and at each pooling, except that a pooling right after a tap begins the next block. So if
    the last layer of each resolution is a tap, each block is a resolution.

    Args:
        arch: vgg11, vgg13, vgg16, vgg19, or one of these with batch normalisation, such as vgg19_bn.
        cut: the last layer, which is a tap: conv3_4, relu3_4, pool3 and so on, see `layer_names`.
        taps: layers before the cut that are taps too. Those after it are left out.
        weights: `imagenet` (torchvision's, downloaded once), `random`, or a local `.safetensors` or `.pth` file with
            torchvision's names, which may lack the layers after the cut.
        input_size: pixels to which the images' shorter side is resized first; None: they keep their size.

    Raises:
        ValueError: there is no such arch, cut or tap, or the weights cannot be read or do not fit.
    """

    def __init__(
        self,
        *,
        arch: str = "vgg19",
        cut: str = "pool4",
        taps: tuple[str, ...] = (),
        weights: str = "imagenet",
        input_size: int | None = None,
    ) -> None:
        if not re.fullmatch(r"vgg(11|13|16|19)(_bn)?", arch):
            raise ValueError(f"arch={arch}: choose vgg11, vgg13, vgg16 or vgg19, each with or without _bn")
        features = make_layers(cfgs[_LAYOUT[arch.removesuffix("_bn")]], batch_norm=arch.endswith("_bn"))
        names = layer_names(features)
        if cut not in names:
            raise ValueError(f"cut={cut}: {arch} has no such layer; it has {', '.join(names)}")
        if not set(taps) <= set(names):
            raise ValueError(f"taps={list(taps)}: choose layers of {arch}; it has {', '.join(names)}")
        length = names.index(cut) + 1
        tapped = [*sorted(set(taps) & set(names[: length - 1]), key=names.index), cut]
        features, names = features[:length], names[:length]
        self._load(features, arch, weights)
        blocks, start, ends = [], 0, []
        for end, name in enumerate(names, start=1):
            pooled = name.startswith("pool") and end - start > 1  # a pooling right after a tap begins the next block
            if pooled or name in tapped:
                if isinstance(features[start], nn.ReLU):
                    features[start].inplace = False  # its input is a tap
                blocks.append(features[start:end])
                ends.append(name)
                start = end
        before = {name: names[: names.index(name) + 1] for name in tapped}
        super().__init__(
            blocks,
            taps=[ends.index(name) for name in tapped],
            channels=[
                [m.out_channels for m in features[: len(layers)] if isinstance(m, nn.Conv2d)][-1]
                for layers in before.values()
            ],
            strides=[2 ** sum(name.startswith("pool") for name in layers) for layers in before.values()],
            input_size=input_size,
        )
        self.pretrained = weights != "random"

    @staticmethod
    def _load(features: nn.Sequential, arch: str, weights: str) -> None:
        if weights == "random":
            for layer in features:
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                    nn.init.zeros_(cast(Tensor, layer.bias))
            return
        path = published(arch).fetch() if weights == "imagenet" else Path(weights).expanduser()
        state = {name.removeprefix("features."): tensor for name, tensor in read_state_dict(path).items()}
        load_weights(features, state, str(path))


def published(arch: str) -> Download:
    """Torchvision's file of ImageNet weights."""
    url = get_model_weights(arch).DEFAULT.url
    prefix = Path(url).stem.rsplit("-", 1)[-1]
    return Download(url, FULL_SHA256.get(prefix, prefix))


def layer_names(features: nn.Sequential) -> list[str]:
    """The name of each layer of torchvision's trunk: conv1_1, bn1_1, relu1_1, ..., pool5, numbered as in the paper."""
    names, block, conv = [], 1, 0
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            conv += 1
            names.append(f"conv{block}_{conv}")
        elif isinstance(layer, nn.BatchNorm2d):
            names.append(f"bn{block}_{conv}")
        elif isinstance(layer, nn.ReLU):
            names.append(f"relu{block}_{conv}")
        else:
            names.append(f"pool{block}")
            block, conv = block + 1, 0
    return names
