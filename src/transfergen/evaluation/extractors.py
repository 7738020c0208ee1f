"""Extractors: images -> the features that metrics are computed on."""

import hashlib
import math
from pathlib import Path
from typing import Any, Literal, Self, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import Normalize

from transfergen.devices import full_float32
from transfergen.errors import first_line
from transfergen.evaluation.inception import INPUT_SIZE, WEIGHTS, InceptionV3
from transfergen.images import to_float, to_rgb, to_uint8
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.backbones.timm import native_state, weights_id
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.weights import load_weights, read_state_dict

CPU_PIXELS = 8 * 224**2
"""Pixels computed at once on a CPU: feature maps of many more do not fit its caches and take longer."""
FOLDING_RESOLUTION = 32
"""Pixels of the image on which `fold_batchnorm` checks that folding leaves the features as they are."""


class Extractor(nn.Module):
    """Images in [-1, 1], of 1, 3 or 4 channels -> features (B, D); frozen, in eval mode, in float32 without TF32.

    Images are rounded to 8 bits first, so that samples have the same features as the image files written of them. Grey
    images are seen as three equal channels, and those with alpha are laid on a mid grey.

    Args:
        net: the network, called by `features`.
        name: for reports, with all that the features depend on, such as "vgg19.tv_in1k, relu5_4, 224 px".
        dimensions: D.
        weights_id: of pretrained weights, see `networks.backbones.timm.weights_id`; a backbone of the same id has the
            same weights. None without weights or for random ones.
        input_size: side of the square, in pixels, to which images are resized; None if they are not resized.

    Attributes:
        fingerprint: SHA-256 of name and weights, in hex; extractors of one fingerprint give the same features.
    """

    def __init__(
        self, net: nn.Module, *, name: str, dimensions: int, weights_id: str | None, input_size: int | None = None
    ) -> None:
        super().__init__()
        self.net = net.requires_grad_(False)
        self.name, self.dimensions, self.weights_id, self.input_size = name, dimensions, weights_id, input_size
        self.train(False)
        self.fingerprint = self._fingerprint()
        fold_batchnorm(self, FOLDING_RESOLUTION)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] -> features (B, D), float32, without gradients."""
        images = to_rgb(to_float(to_uint8(images)))
        height, width = images.shape[2:] if self.input_size is None else (self.input_size, self.input_size)
        pixels = len(images) * height * width
        parts = math.ceil(pixels / CPU_PIXELS) if images.device.type == "cpu" and pixels else 1
        with torch.autocast(images.device.type, enabled=False), full_float32():
            return torch.cat([self.features(part) for part in images.chunk(parts)])

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], float32 rounded to 8 bits before alpha was applied -> features (B, D)."""
        raise NotImplementedError

    def score_logits(self, features: Tensor) -> Tensor | None:
        """Features (B, D) -> class logits (B, K) for the Inception score; None if this is no classifier."""
        return None

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.name.encode())
        for name, tensor in self.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class PixelFeatures(Extractor):
    """The pixels of the image scaled down: colours and coarse shapes, without weights that a discriminator could share.

    Args:
        size: height and width of the scaled image; D is 3 size^2.
    """

    def __init__(self, *, size: int = 16) -> None:
        name = f"pixels, {size}x{size}"
        super().__init__(nn.Flatten(), name=name, dimensions=3 * size**2, weights_id=None, input_size=size)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> pixels (B, D) in [-1, 1], channel by channel."""
        return cast(Tensor, self.net(_resized(images, self.input_size, "bilinear")))


class TimmFeatures(Extractor):
    """The input of a timm model's classifier: the pooled last features, or the class token of a ViT.

    Args:
        name: as in `timm.list_models()`.
        weights: `hub` (timm's, downloaded once), `package`, `random`, or a `.safetensors` or `.pth` file with timm's
            names, as in `networks.backbones.timm.TimmBackbone`.
        input_size: pixels to which images are resized; position embeddings are resized to match.
        interpolation: bicubic or bilinear, with antialiasing.

    Raises:
        ValueError: timm has no such model, or not for this `input_size`; or the weights cannot be read or do not fit.
    """

    def __init__(
        self,
        *,
        name: str = "tf_efficientnet_lite0",
        weights: str = "package",
        input_size: int = 224,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    ) -> None:
        try:
            published: Any = timm.get_pretrained_cfg(name, allow_unregistered=False)
            vit: dict[str, Any] = {"dynamic_img_size": True} if published.fixed_input_size else {}
            net = timm.create_model(name, pretrained=False, num_classes=0, **vit).eval()
            dimensions = net(torch.zeros(1, 3, input_size, input_size)).shape[1]
        except (RuntimeError, AttributeError, AssertionError, ValueError, TypeError) as error:
            raise ValueError(
                f"name={name}: timm cannot give its features of {input_size} px ({first_line(error)})"
            ) from error
        if weights != "random":
            load_weights(net, native_state(name, weights), weights)
        self.interpolation = interpolation
        source = weights_id(name, weights)
        super().__init__(
            nn.Sequential(normalization(published), net),
            name=f"{source or f'{name} of random weights'}, {input_size} px, {interpolation}",
            dimensions=dimensions,
            weights_id=source,
            input_size=input_size,
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, D)."""
        return cast(Tensor, self.net(_resized(images, self.input_size, self.interpolation)))


class VGGFeatures(Extractor):
    """The features of one layer of a VGG, averaged over positions.

    Args:
        arch, cut, weights, input_size: see `networks.backbones.vgg.VGG`.

    Raises:
        ValueError: there is no such arch or cut, or the weights cannot be read or do not fit.
    """

    def __init__(
        self, *, arch: str = "vgg19", cut: str = "relu5_4", weights: str = "imagenet", input_size: int | None = None
    ) -> None:
        net = VGG(arch=arch, cut=cut, weights=weights, input_size=input_size)
        source = weights_id(arch, weights)
        super().__init__(
            net,
            name=f"{source or f'{arch} of random weights'}, {cut}, {f'{input_size} px' if input_size else 'own size'}",
            dimensions=net.channels[-1],
            weights_id=source,
            input_size=input_size,
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, D)."""
        return cast(Tensor, self.net(images)[-1].mean(dim=(2, 3)))


class InceptionFeatures(Extractor):
    """The features of the last pooling of the Inception-v3 that published Fréchet distances and Inception scores use.

    Args:
        weights: `imagenet` (those of TensorFlow's inception-2015-12-05, downloaded once), `random`, or a
            `.safetensors` or `.pth` file with pytorch-fid's names.
        resize: `tensorflow` (bilinear without antialiasing, as most published distances have it) or `clean` (bicubic
            with antialiasing, as clean-fid has it; Parmar 2022, arXiv:2104.11222). Their distances are not comparable.

    Raises:
        ValueError: the weights cannot be read or do not fit.
    """

    def __init__(self, *, weights: str = "imagenet", resize: Literal["tensorflow", "clean"] = "tensorflow") -> None:
        net = InceptionV3()
        source = None
        if weights != "random":
            path = WEIGHTS.fetch() if weights == "imagenet" else Path(weights).expanduser()
            load_weights(net, read_state_dict(path), str(path))
            source = "inception-2015-12-05"
        name = f"{source or 'inception of random weights'}, {INPUT_SIZE} px{', clean' if resize == 'clean' else ''}"
        self.resize = resize
        super().__init__(net, name=name, dimensions=2048, weights_id=source, input_size=INPUT_SIZE)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, 2048)."""
        pixels = to_uint8(images).float()
        if self.resize == "clean":  # rounded before, and not after
            size = (INPUT_SIZE, INPUT_SIZE)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 255)
        return cast(Tensor, self.net(pixels))

    def score_logits(self, features: Tensor) -> Tensor:
        """Features (B, 2048) -> class logits (B, 1008)."""
        return cast(InceptionV3, self.net).logits(features)


def normalization(published: Any) -> Normalize:
    """Normalise images in [-1, 1], by the mean and the deviation that timm tells for images in [0, 1]."""
    return Normalize([2 * m - 1 for m in published.mean], [2 * s for s in published.std])


def _resized(images: Tensor, size: int | None, interpolation: str) -> Tensor:
    if size is None or images.shape[2:] == (size, size):
        return images
    # Antialiasing makes bicubic the same as Pillow's, even when images are enlarged.
    resized = F.interpolate(images, size=(size, size), mode=interpolation, antialias=True)
    return resized.clamp(-1, 1)  # bicubic overshoots
