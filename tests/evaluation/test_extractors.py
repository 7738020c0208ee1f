import copy
from functools import partial

import numpy as np
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation import extractors
from transfergen.evaluation.clip import CLIPFeatures
from transfergen.evaluation.dinov2 import DINOv2Features
from transfergen.evaluation.extractors import InceptionFeatures, PixelFeatures, TimmFeatures, VGGFeatures
from transfergen.evaluation.inception import InceptionV3
from transfergen.images import to_float, to_uint8
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.acceleration.frozen_conv import FrozenConv2d
from transfergen.networks.backbones.timm import native_state, weights_id

DIMENSIONS = {
    "pixels": 768,
    "efficientnet_lite0": 1280,
    "dinov2": 384,
    "dinov2_large": 1024,
    "vgg19": 512,
    "inception": 2048,
    "clip": 768,
}


def pictures(count=2, size=32):
    return to_float(torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8))


def vary(net):
    """Weights that keep features from fading with depth, and statistics that a forgotten buffer would show."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, FrozenConv2d)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)


@pytest.mark.parametrize("metrics", [file.stem for file in (CONF_DIR / "metrics").glob("*.yaml")])
def test_each_config_gives_a_frozen_extractor_with_the_declared_dimensions(metrics, monkeypatch, request):
    if metrics == "dinov2_large":  # of 24 transformer blocks
        monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))
    if metrics == "clip":
        request.getfixturevalue("narrow_clip")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(f"metrics/{metrics}").metrics
    if "weights" in config:
        config.weights = "random"
    extract = instantiate(config)
    assert extract.dimensions == DIMENSIONS[metrics]
    vary(extract)
    images = pictures().requires_grad_()
    features = extract(images)
    assert (features.shape, features.dtype) == ((2, extract.dimensions), torch.float32)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])
    assert not features.requires_grad
    assert not any(p.requires_grad for p in extract.parameters())
    extract.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(extract(images), features)
    logits = extract.score_logits(features)
    assert logits.shape == (2, 1008) if metrics == "inception" else logits is None


def test_features_are_not_rounded_to_tf32_though_a_training_is(tf32):
    extract, seen = PixelFeatures(), []
    extract.net.register_forward_hook(lambda *_: seen.extend(each.fp32_precision for each in tf32))
    extract(pictures())
    assert seen == ["ieee", "ieee"]


def test_samples_have_the_features_of_the_files_written_of_them():
    images = 2.5 * torch.rand(4, 3, 16, 16) - 1.25
    extract = PixelFeatures()
    assert torch.equal(extract(images), to_float(to_uint8(images)).flatten(1))


def test_pixel_features_are_the_scaled_image():
    images = pictures(size=64)
    assert torch.allclose(PixelFeatures(size=32)(images[:1, :, :32, :32]), images[:1, :, :32, :32].flatten(1))
    flat = torch.tensor([-1.0, 0.6, 1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    small = PixelFeatures(size=4)(flat).view(3, 16)
    assert torch.allclose(small, torch.tensor([[-1.0], [0.6], [1.0]]).expand(3, 16), atol=1e-6)


def test_lite0_features_are_the_input_of_its_classifier():
    extract = TimmFeatures()
    full = timm.create_model("tf_efficientnet_lite0").eval()
    full.load_state_dict(native_state("tf_efficientnet_lite0", "package"))
    images = pictures()
    large = F.interpolate(images, size=(224, 224), mode="bicubic", antialias=True).clamp(-1, 1)  # std and mean are 0.5
    with torch.no_grad():
        torch.testing.assert_close(full.classifier(extract(images)), full(large), rtol=1e-3, atol=1e-3)
    linear = TimmFeatures(interpolation="bilinear")
    assert not torch.allclose(linear(images), extract(images), atol=1e-2)


@pytest.mark.parametrize("build", [partial(TimmFeatures, input_size=64), InceptionFeatures])
def test_folding_and_splitting_the_batch_leave_the_features_as_they_are(build, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(extractors, "fold_batchnorm", lambda *_: None)
        before.setattr(extractors, "CPU_PIXELS", 10**9)
        plain = build(weights="random")
        vary(plain)
        images = pictures(count=3)
        expected = plain(images)
    extract = copy.deepcopy(plain)
    fold_batchnorm(extract, 32)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in extract.modules())
    monkeypatch.setattr(extractors, "CPU_PIXELS", 2 * extract.input_size**2)
    torch.testing.assert_close(extract(images), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_vit_features_are_the_class_token_at_any_input_size(tmp_path):
    name = "vit_tiny_patch16_224"
    full = timm.create_model(name).eval()
    nn.init.normal_(full.pos_embed)
    save_file(full.state_dict(), tmp_path / "vit.safetensors")
    extract = TimmFeatures(name=name, weights=str(tmp_path / "vit.safetensors"), input_size=224)
    images = pictures(size=224)
    with torch.no_grad():  # mean and std are 0.5
        torch.testing.assert_close(extract(images), full.forward_features(images)[:, 0], rtol=1e-4, atol=1e-4)
        small = TimmFeatures(name=name, weights=str(tmp_path / "vit.safetensors"), input_size=64)
        resized = timm.create_model(name, img_size=64).eval()
        resized.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(full.state_dict(), resized))
        images = pictures(size=64)
        torch.testing.assert_close(small(images), resized.forward_features(images)[:, 0], rtol=1e-4, atol=1e-4)


def test_vgg_features_are_the_mean_of_a_layer_and_need_no_weights_behind_it(vgg_weights):
    extract = VGGFeatures(cut="relu3_4", weights=str(vgg_weights))
    images = pictures()
    layer = extract.net(images)[-1]
    assert layer.shape == (2, 256, 8, 8)
    torch.testing.assert_close(extract(images), layer.flatten(2).mean(2))
    enlarged = VGGFeatures(cut="relu3_4", weights=str(vgg_weights), input_size=64)
    assert not torch.allclose(enlarged(images), extract(images), atol=1e-2)
    with pytest.raises(ValueError, match=r"^weights=.*weights of another architecture"):
        VGGFeatures(weights=str(vgg_weights))


def test_inception_agrees_with_torch_fidelity_resizing_included(tmp_path):
    net = InceptionV3()
    vary(net)
    file = tmp_path / "inception.pth"
    torch.save(net.state_dict(), file)
    theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(file))
    loaded = InceptionFeatures(weights=str(file))
    for size in (40, 320):  # enlarged and reduced
        images = pictures(count=1, size=size)
        features, logits = theirs(to_uint8(images))
        assert features.std() > 0.1
        torch.testing.assert_close(loaded(images), features)
        torch.testing.assert_close(loaded.score_logits(features), logits)
    assert loaded.weights_id == "inception-2015-12-05"
    state = net.state_dict()
    del state["Mixed_7c.branch_pool.bn.running_var"]
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"^weights=.*1 of .* missing, Mixed_7c\.branch_pool\.bn\.running_var"):
        InceptionFeatures(weights=str(file))


def test_clean_inception_sees_each_channel_resized_by_pillow_in_floats(tmp_path):
    net = InceptionV3().eval()
    vary(net)
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    weights = str(tmp_path / "inception.pth")
    clean, usual = InceptionFeatures(weights=weights, resize="clean"), InceptionFeatures(weights=weights)
    for size in (40, 320):  # enlarged and reduced
        images = pictures(count=1, size=size)
        channels = [Image.fromarray(c.numpy().astype(np.float32)) for c in to_uint8(images)[0]]
        resized = [np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255) for c in channels]
        with torch.no_grad():
            expected = net(torch.from_numpy(np.stack(resized))[None])
        torch.testing.assert_close(clean(images), expected, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(usual(images), expected, rtol=1e-2, atol=1e-2)
    assert clean.name == f"{usual.name}, clean"


def test_networks_of_the_same_weights_have_one_id(vgg_weights):
    assert TimmFeatures().weights_id == weights_id("tf_efficientnet_lite0.in1k", "imagenet") is not None
    assert VGGFeatures(cut="relu1_1", weights=str(vgg_weights)).weights_id == weights_id("vgg19", "hub") is not None
    assert weights_id("vgg19", "imagenet") != weights_id("vgg19_bn", "imagenet")
    assert weights_id("mine", "mine.pth") == "mine"
    for extract in (TimmFeatures(weights="random"), VGGFeatures(weights="random"), PixelFeatures()):
        assert extract.weights_id is None


def test_extractors_of_different_features_have_different_fingerprints(vgg_weights, tmp_path):
    def vgg(**settings):
        return VGGFeatures(**{"cut": "relu2_2", "weights": str(vgg_weights)} | settings)

    first = vgg().fingerprint
    assert vgg().fingerprint == first
    state = load_file(vgg_weights)
    state["features.0.bias"][3] += 1e-3
    save_file(state, tmp_path / vgg_weights.name)
    changed = vgg(weights=str(tmp_path / vgg_weights.name))
    others = [vgg(cut="pool2"), vgg(input_size=64), vgg(weights="random"), vgg(weights="random"), changed]
    assert len({first, *(other.fingerprint for other in others)}) == 6
    assert PixelFeatures(size=8).fingerprint != PixelFeatures().fingerprint == PixelFeatures().fingerprint


@pytest.mark.parametrize(
    ("build", "facts"),
    [
        (InceptionFeatures, ("https://github.com/toshas/", "weights-inception-2015-12-05", "SHA-256 6726825d0af5f7")),
        (VGGFeatures, ("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "SHA-256 dcbb9e9d")),
        (
            DINOv2Features,
            ("https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors",),
        ),
        (
            CLIPFeatures,
            ("https://huggingface.co/timm/vit_large_patch14_clip_336.openai/resolve/main/model.safetensors",),
        ),
    ],
)
def test_weights_that_cannot_be_downloaded_are_asked_for_in_one_line(build, facts, tmp_path, monkeypatch):
    tried = []

    def unreachable(*args, **kwargs):
        tried.append(args)
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"^weights: cannot download") as refused:
        build()
    assert len(tried) == 1  # nobody waits for further attempts
    for fact in (*facts, "local copy", "random"):
        assert fact in str(refused.value)
    assert "backbone." not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TimmFeatures(name="resnet19"), r"^name=resnet19"),
        (lambda: TimmFeatures(name="resnet18"), r"^weights=package: .*choose imagenet"),
        (
            lambda: TimmFeatures(name="vit_tiny_patch16_224", input_size=100, weights="random"),
            r"^name=vit_tiny_patch16_224: .* features of 100 px",
        ),
        (lambda: VGGFeatures(cut="relu9_1"), r"^cut=relu9_1"),
        (lambda: VGGFeatures(arch="vgg12"), r"^arch=vgg12"),
        (lambda: InceptionFeatures(weights="nowhere.pth"), r"^weights=nowhere\.pth: there is no such file"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_extractors_see_grey_three_times_alpha_on_mid_grey_and_oblong_images_as_squares():
    extract = PixelFeatures(size=4)
    grey = pictures(2, 4)[:, :1]
    assert torch.equal(extract(grey), extract(grey.repeat(1, 3, 1, 1)))
    images = torch.cat([pictures(2, 4), torch.full((2, 1, 4, 4), -1.0)], dim=1)
    assert not extract(images).any()  # transparent
    images[:, 3] = 1
    assert torch.equal(extract(images), extract(images[:, :3]))
    assert extract(torch.rand(2, 4, 8, 12)).shape == (2, 48)
