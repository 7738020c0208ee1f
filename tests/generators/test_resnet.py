import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.generators.resnet import ResNet


def test_parameters_are_those_of_the_papers_table_without_the_biases_that_do_nothing():
    linear = 128 * 4096 + 4096
    block = 2 * (256 + 256) + 2 * (9 * 256 * 256 + 256) + (256 * 256 + 256)
    last = (256 + 256) + (9 * 256 * 3 + 3)
    assert linear + 3 * block + last == 4_276_739
    own = sum(p.numel() for p in ResNet(resolution=32).parameters())
    assert own == 4_276_739 - 3 * 3 * 256


@pytest.mark.parametrize(
    ("resolution", "widths"),
    [
        (32, [256, 256, 256, 256]),
        (64, [512, 512, 256, 128, 64]),
        (128, [1024, 1024, 512, 256, 128, 64]),
        (256, [1024, 1024, 512, 512, 256, 128, 64]),
    ],
)
def test_channels_are_those_of_the_papers(resolution, widths):
    generator = ResNet(resolution=resolution)
    assert [block.shortcut.in_channels for block in generator.blocks] == widths[:-1]
    assert [block.shortcut.out_channels for block in generator.blocks] == widths[1:]


def as_in_the_paper(generator, z):
    """The same weights in the paper's order of operations, and with biases in each convolution."""

    def convolved(maps, layer, padding=1):
        return F.conv2d(maps, layer.weight, torch.randn_like(layer.weight[:, 0, 0, 0]), padding=padding)

    maps = generator.linear(z).view(len(z), -1, 4, 4)
    for block in generator.blocks:
        norm1, _, first, norm2, _, second = block.residual
        residual = F.interpolate(F.relu(norm1(maps)), scale_factor=2.0)
        residual = convolved(F.relu(norm2(convolved(residual, first))), second)
        maps = residual + convolved(F.interpolate(maps, scale_factor=2.0), block.shortcut, padding=0)
    return generator.to_rgb(maps)


def test_cheaper_order_and_missing_biases_leave_the_papers_images():
    generator = ResNet(resolution=64, z_dim=6, width=2).double()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    z = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(generator(z), as_in_the_paper(generator, z))


def test_weights_start_from_the_codes_distribution():
    generator = ResNet(resolution=64)
    block = generator.blocks[1]  # 512 -> 256
    for weight, gain, fans in (
        (generator.linear.weight, 1, 128 + 512 * 16),
        (block.residual[2].weight, 2**0.5, 9 * (512 + 256)),
        (block.residual[5].weight, 2**0.5, 9 * (256 + 256)),
        (block.shortcut.weight, 1, 512 + 256),
        (generator.to_rgb[2].weight, 1, 9 * (64 + 3)),
    ):
        bound = gain * (6 / fans) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not generator.linear.bias.any()
    assert not generator.to_rgb[2].bias.any()


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_first_images_are_neither_flat_nor_saturated(resolution):
    images = ResNet(resolution=resolution, width=8)(torch.randn(16, 128))
    assert 0.3 < images.std() < 0.7
    assert images.std(dim=0).mean() > 0.3  # images differ
    assert (images.abs() > 0.98).float().mean() < 0.1


def test_a_resolution_it_cannot_make_is_refused_with_the_override():
    with pytest.raises(ValueError, match=r"not 48; set data\.resolution=64"):
        ResNet(resolution=48)
