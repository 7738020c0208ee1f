"""The features of DINOv2 that published distances use. Stein 2023, arXiv:2306.04675."""

from typing import Any, cast

import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Normalize
from torchvision.transforms.functional import pil_to_tensor

from transfergen.evaluation.extractors import Extractor
from transfergen.images import to_float, to_pil, to_uint8
from transfergen.networks.backbones.timm import weights_id
from transfergen.networks.backbones.vit import build_vit, with_weights


class DINOv2Features(Extractor):
    """The class token of DINOv2 after its last normalisation. Oquab 2023, arXiv:2304.07193.

    With ViT-L/14 and 224 px, the Fréchet distance is FD-DINOv2 as the authors' dgm-eval computes it: Pillow resizes the
    images, bicubic, and position embeddings are interpolated as in DINOv2's own code.

    Args:
        name: vit_small_patch14_dinov2.lvd142m, vit_base_patch14_dinov2.lvd142m or vit_large_patch14_dinov2.lvd142m, or
            any other model that `networks.backbones.vit.ViT` takes; D is its width, 384, 768 and 1024 in these.
        weights: `hub` (timm's, downloaded once), `random`, or a `.safetensors` or `.pth` file with timm's names, which
            are those of DINOv2's own files, such as dinov2_vitl14_pretrain.pth.
        input_size: pixels to which images are resized, a multiple of the patches' side.

    Raises:
        ValueError: timm has no such model, or not for this `input_size`; or the weights cannot be read or do not fit.
    """

    def __init__(
        self, *, name: str = "vit_small_patch14_dinov2.lvd142m", weights: str = "hub", input_size: int = 224
    ) -> None:
        net = with_weights(build_vit(name, input_size), name, weights)
        published: Any = timm.get_pretrained_cfg(name)
        source = weights_id(name, weights)
        super().__init__(
            nn.Sequential(Normalize(published.mean, published.std), net),
            name=f"{source or f'{name} of random weights'}, {input_size} px, as dgm-eval",
            dimensions=net.embed_dim,
            weights_id=source,
            input_size=input_size,
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> features (B, D)."""
        assert self.input_size is not None
        size = (self.input_size, self.input_size)
        pictures = [to_pil(p).resize(size, Image.Resampling.BICUBIC) for p in to_uint8(images).cpu()]
        pixels = torch.stack([pil_to_tensor(p) for p in pictures]).to(images.device)
        return cast(Tensor, self.net(to_float(pixels) / 2 + 0.5))
