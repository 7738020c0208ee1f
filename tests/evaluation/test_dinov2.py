import json
from functools import partial

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from runs import called
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor
from vits import DINOV2, norm, random_file, tokens

from transfergen.commands.evaluate import main
from transfergen.evaluation.dinov2 import DINOv2Features
from transfergen.images import to_float
from transfergen.networks.backbones.base import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def shallow(monkeypatch):
    """Networks of one transformer block instead of 12 or 24."""
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize("size", [32, 250])
def test_features_are_those_of_dgm_eval(size, tmp_path):
    state = random_file(tmp_path / "dinov2_vits14_pretrain.pth", DINOV2, depth=1)
    extract = DINOv2Features(weights=str(tmp_path / "dinov2_vits14_pretrain.pth"))
    pictures = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    pictures[1] //= 2
    images = to_float(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    resized = Compose(
        [Resize((224, 224), InterpolationMode.BICUBIC), ToTensor(), Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
    seen = torch.stack([resized(Image.fromarray(picture)) for picture in pictures])
    expected = norm(state, "norm", tokens(state, seen, DINOV2)[-1])[:, 0]
    assert expected.std(0).mean() > 0.01
    torch.testing.assert_close(extract(images), expected, rtol=1e-4, atol=1e-4)
    assert (extract.dimensions, extract.weights_id) == (384, DINOV2)


@pytest.mark.usefixtures("shallow")
def test_folders_are_compared_in_the_features_from_the_authors_file(tmp_path):
    for i, folder in enumerate(("fake", "real")):
        (tmp_path / folder).mkdir()
        for j in range(6):
            pixels = np.random.default_rng(10 * i + j).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{j}.png")
    random_file(tmp_path / "dinov2_vits14_pretrain.pth", DINOV2, depth=1)
    code, _, err = called(
        main,
        *(f"{folder}={tmp_path / folder}" for folder in ("fake", "real")),
        *("metrics=dinov2", f"metrics.weights={tmp_path}/dinov2_vits14_pretrain.pth", "metrics.input_size=28"),
        f"out={tmp_path}/evaluation.json",
    )
    assert code == 0, err
    recorded = json.loads((tmp_path / "evaluation.json").read_text())["metrics"][0]
    assert recorded["extractor"] == f"{DINOV2}, 28 px, as dgm-eval"
    assert recorded["name"] == "frechet_distance"
    assert recorded["value"] > 0


def test_a_size_that_is_no_multiple_of_the_patches_is_refused():
    with pytest.raises(ValueError, match=r"^input_size=256: choose a multiple of 14, such as 252 or 266"):
        DINOv2Features(weights="random", input_size=256)
