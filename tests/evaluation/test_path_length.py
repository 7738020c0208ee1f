import math
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS

from transfergen.evaluation.comparison import Comparison, ImageSet
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.path_length import lpips, path_length
from transfergen.networks.generators.base import Generator
from transfergen.networks.generators.resnet import ResNet


def test_lpips_is_that_of_torchmetrics_for_the_same_vgg16(tmp_path):
    theirs = _LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    layers = {k: v for i in range(1, 6) for k, v in getattr(theirs.net, f"slice{i}").state_dict().items()}
    torch.save({f"features.{name}": value for name, value in layers.items()}, tmp_path / "vgg16.pth")
    ours = lpips(tmp_path / "vgg16.pth")
    a, b = torch.rand(2, 3, 3, 32, 32) * 2 - 1
    expected = theirs(a, b).flatten()
    assert expected.min() > 0
    torch.testing.assert_close(ours(a, b).flatten(), expected)
    assert ours(a, a).flatten().tolist() == [0, 0, 0]


class Linear(Generator):
    """The latent itself as an image, `scale` times as large."""

    z_dim, resolution = 3 * 8 * 8, 8

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, z, y=None):
        return self.scale * z.view(-1, 3, 8, 8)


class Squared(nn.Module):
    def forward(self, a, b):
        return (a - b).square().sum((1, 2, 3))


def test_the_path_of_a_linear_generator_is_that_of_its_latents():
    """Latents have a length of about sqrt(Z), and two are nearly orthogonal: the arc is pi / 2 times as long."""
    expected = 0.05**2 * 192 * (math.pi / 2) ** 2
    found = path_length(Linear(0.05), Squared(), count=300).item()
    assert found == pytest.approx(expected, rel=0.05)
    assert path_length(Linear(0.1), Squared(), count=300).item() == pytest.approx(4 * found, rel=0.02)


def test_seeds_decide_and_batches_do_not():
    generator = ResNet(resolution=32, z_dim=8, width=4, num_classes=3).eval()
    state = torch.get_rng_state()
    first, second, other = (
        path_length(generator, Squared(), count=12, seed=seed, batch_size=size).item()
        for seed, size in ((0, 64), (0, 5), (1, 64))
    )
    assert first == pytest.approx(second, rel=1e-2)
    assert abs(first - other) > 0.02 * first
    assert torch.equal(torch.get_rng_state(), state)


def test_images_a_step_apart_are_told_apart_by_all_digits_of_float32(tf32):
    seen = []

    class Distance(Squared):
        def forward(self, a, b):
            seen.extend(each.fp32_precision for each in tf32)
            return super().forward(a, b)

    class Generated(Linear):
        def forward(self, z, y=None):
            seen.extend(each.fp32_precision for each in tf32)
            return super().forward(z)

    path_length(Generated(0.1), Distance(), count=4)
    assert seen == 4 * ["ieee"]
    assert [each.fp32_precision for each in tf32] == ["tf32", "tf32"]


def comparison(**settings):
    images = ImageSet("test", torch.randn(9, 12))
    return Comparison({}, PixelFeatures(size=2), fake=images, real=images, references=images, searched="", **settings)


def test_it_is_measured_along_as_many_steps_as_there_are_samples(monkeypatch):
    monkeypatch.setattr("transfergen.evaluation.comparison.lpips", Squared)
    record = comparison(generator=Linear(0.1), seed=3).further("path_length")
    assert record["value"] == path_length(Linear(0.1), Squared(), count=9, seed=3).item()
    assert not record["larger_is_better"]
    about = [record[key] for key in ("extractor", "generated", "real", "split", "shares_weights_with_discriminator")]
    assert about == ["vgg16, LPIPS", 9, None, "none", None]


def test_without_vgg16_or_a_generator_one_line_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", Mock(side_effect=OSError("no network")))
    with pytest.raises(
        ValueError, match=r"extra=\[path_length\]: .*cannot download .*vgg16-397923af\.pth \(no network\)"
    ):
        comparison(generator=Linear(0.1), seed=3).further("path_length")
    with pytest.raises(ValueError, match=r"extra=\[path_length\]: needs a run"):
        comparison().further("path_length")
