"""CLIP's embedding against OpenAI's network, as torch-fidelity has it, and Pillow's resizing."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch_fidelity.feature_extractor_clip import VisionTransformer

from transfergen.evaluation.clip import CLIPFeatures
from transfergen.images import to_float, to_uint8


@pytest.fixture
def openai(tmp_path, narrow_clip):
    """OpenAI's image tower, equally narrow, with random weights, and a file of these by open_clip's names."""
    theirs = VisionTransformer(336, 14, width=128, layers=2, heads=2, output_dim=768)
    for parameter in theirs.parameters():
        if parameter.dim() == 1:  # those that a forgotten one would not show
            nn.init.normal_(parameter, 1, 0.3)
    save_file({f"visual.{name}": tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "clip.safetensors")
    return theirs.requires_grad_(False), tmp_path / "clip.safetensors"


def test_embeddings_are_those_of_openais_network_for_images_resized_by_pillow(openai):
    theirs, file = openai
    extract = CLIPFeatures(weights=str(file))
    assert extract.weights_id == "vit_large_patch14_clip_quickgelu_336.openai"
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    for size in (40, 400):  # enlarged and reduced
        images = to_float(torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8))
        picture = Image.fromarray(to_uint8(images)[0].permute(1, 2, 0).numpy())

        def embedded(filter_, picture=picture):
            pixels = torch.from_numpy(np.array(picture.resize((336, 336), filter_))) / 255
            return theirs(((pixels - mean) / std).permute(2, 0, 1)[None])

        found, expected = extract(images), embedded(Image.Resampling.BICUBIC)
        error = (found - expected).abs().max()
        assert error < 0.01 * expected.std()  # Pillow's weights are of 8 bits
        assert (embedded(Image.Resampling.BILINEAR) - expected).abs().max() > 10 * error


def test_a_file_that_lacks_a_tensor_is_refused(openai, tmp_path):
    theirs, _ = openai
    state = {f"visual.{name}": tensor for name, tensor in theirs.state_dict().items() if name != "proj"}
    save_file(state, tmp_path / "damaged.safetensors")
    with pytest.raises(ValueError, match=r"^weights=.*damaged.safetensors: .* 2 of .* missing, head\.weight"):
        CLIPFeatures(weights=str(tmp_path / "damaged.safetensors"))
