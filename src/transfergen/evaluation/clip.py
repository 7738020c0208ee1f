"""CLIP's image embedding, in which published CMMDs are measured."""

from typing import Any, cast

import timm
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.evaluation.extractors import Extractor, normalization
from transfergen.images import to_float, to_uint8
from transfergen.networks.backbones.timm import native_state, weights_id
from transfergen.networks.weights import load_weights

NAME = "vit_large_patch14_clip_quickgelu_336.openai"
"""timm's name of the image tower of OpenAI's ViT-L/14@336px, whose classifier is the projection to the embedding."""
INPUT_SIZE = 336


class CLIPFeatures(Extractor):
    """The image embedding of OpenAI's CLIP ViT-L/14@336px, not scaled to length 1.

    Radford 2021, arXiv:2103.00020. As for published CMMDs, images are resized to 336 px, bicubic with antialiasing, and
    rounded to 8 bits.

    Args:
        weights: `hub` (timm's, downloaded once), `random`, or a `.safetensors`, `.pth` or `.bin` file with the names of
            timm or of open_clip.

    Raises:
        ValueError: the weights cannot be read or do not fit.
    """

    def __init__(self, *, weights: str = "hub") -> None:
        published: Any = timm.get_pretrained_cfg(NAME)
        state = None if weights == "random" else native_state(NAME, weights)
        net: Any = timm.create_model(NAME, pretrained=False)
        if state:
            load_weights(net, checkpoint_filter_fn(state, net), weights)
        source = weights_id(NAME, weights)
        super().__init__(
            nn.Sequential(normalization(published), net),
            name=f"{source or 'CLIP of random weights'}, {INPUT_SIZE} px",
            dimensions=published.num_classes,
            weights_id=source,
            input_size=INPUT_SIZE,
        )

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> embeddings (B, 768)."""
        resized = F.interpolate(images, (INPUT_SIZE, INPUT_SIZE), mode="bicubic", antialias=True)
        return cast(Tensor, self.net(to_float(to_uint8(resized))))
