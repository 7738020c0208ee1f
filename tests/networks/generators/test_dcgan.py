import pytest
import torch
from torch import nn

from transfergen.networks.generators.base import latents
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.layers.low_pass import LowPass


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_images_have_the_declared_size_and_range(resolution):
    generator = DCGAN(resolution=resolution, z_dim=10, width=4)
    assert (generator.resolution, generator.z_dim, generator.num_classes) == (resolution, 10, 0)
    last = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)][-1]
    nn.init.normal_(last.weight, std=100)  # far beyond the range, were it not for the tanh
    images = generator(torch.randn(2, 10))
    assert images.shape == (2, 3, resolution, resolution)
    assert (images.min(), images.max()) == (-1, 1)


@pytest.mark.parametrize(
    ("resolution", "widths"),
    [
        (32, [256, 128, 64]),
        (64, [512, 256, 128, 64]),
        (128, [512, 512, 256, 128, 64]),
        (256, [512, 512, 512, 256, 128, 64]),
    ],
)
def test_widths_halve_down_to_64_and_never_pass_512(resolution, widths):
    with torch.device("meta"):
        generator = DCGAN(resolution=resolution)
    convolutions = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.in_channels for m in convolutions] == [100, *widths]
    assert [m.out_channels for m in convolutions] == [*widths, 3]
    assert all(m.bias is None for m in convolutions)


def test_weights_start_from_the_papers_distribution():
    for module in DCGAN().modules():
        if isinstance(module, nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.02)


def test_a_seeds_latent_depends_on_no_other_seed():
    both = latents([7, 8], 100)
    assert torch.equal(both[1:], latents([8], 100))
    assert not torch.equal(both[0], both[1])
    torch.manual_seed(5)
    assert torch.equal(both, latents(range(7, 9), 100))


def test_a_low_pass_filter_comes_between_the_last_convolution_and_the_tanh():
    plain, smooth = (DCGAN(resolution=32, z_dim=10, width=4, low_pass=value).eval() for value in (False, True))
    smooth.load_state_dict(plain.state_dict())
    z = torch.randn(4, 10)
    torch.testing.assert_close(smooth(z), LowPass()(plain(z).atanh()).tanh(), rtol=0, atol=1e-5)
