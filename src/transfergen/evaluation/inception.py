"""The Inception-v3 of published Fréchet distances, TensorFlow's network of 2015, built of torch-fidelity's blocks."""

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    BasicConv2d,
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE_1,
    InceptionE_2,
)
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from transfergen.networks.weights import Download

# Converted from TensorFlow's inception-2015-12-05 for pytorch-fid; torchmetrics uses the same file.
WEIGHTS = Download(
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
INPUT_SIZE = 299


class InceptionV3(nn.Sequential):
    """Pixels (B, 3, H, W), float in [0, 255] -> features (B, 2048) of the last pooling.

    Szegedy 2016, arXiv:1512.00567. Images are resized to 299 px as TensorFlow 1.x does it, without antialiasing and
    with corners aligned to pixel 0, since published distances depend on it.
    """

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(
                Conv2d_1a_3x3=BasicConv2d(3, 32, kernel_size=3, stride=2),
                Conv2d_2a_3x3=BasicConv2d(32, 32, kernel_size=3),
                Conv2d_2b_3x3=BasicConv2d(32, 64, kernel_size=3, padding=1),
                MaxPool_1=nn.MaxPool2d(kernel_size=3, stride=2),
                Conv2d_3b_1x1=BasicConv2d(64, 80, kernel_size=1),
                Conv2d_4a_3x3=BasicConv2d(80, 192, kernel_size=3),
                MaxPool_2=nn.MaxPool2d(kernel_size=3, stride=2),
                Mixed_5b=InceptionA(192, pool_features=32),
                Mixed_5c=InceptionA(256, pool_features=64),
                Mixed_5d=InceptionA(288, pool_features=64),
                Mixed_6a=InceptionB(288),
                Mixed_6b=InceptionC(768, channels_7x7=128),
                Mixed_6c=InceptionC(768, channels_7x7=160),
                Mixed_6d=InceptionC(768, channels_7x7=160),
                Mixed_6e=InceptionC(768, channels_7x7=192),
                Mixed_7a=InceptionD(768),
                Mixed_7b=InceptionE_1(1280),
                Mixed_7c=InceptionE_2(2048),
                fc=nn.Linear(2048, 1008),
            )
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 255] -> features (B, 2048)."""
        x = interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(INPUT_SIZE, INPUT_SIZE), align_corners=False)
        x = (x - 128) / 128
        *trunk, _ = self
        for layer in trunk:
            x = layer(x)
        return cast(Tensor, x.mean(dim=(2, 3)))

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, 2048) -> class logits (B, 1008), without the bias, as published scores are computed."""
        return features @ cast(nn.Linear, self.fc).weight.T
