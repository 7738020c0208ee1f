import pytest
import torch
from torch import nn

from transfergen.discriminators.dcgan import DCGANDiscriminator


@pytest.mark.parametrize(
    ("resolution", "widths"),
    [(32, [4, 8, 16, 1]), (64, [4, 8, 16, 32, 1]), (256, [4, 8, 16, 32, 32, 32, 1])],
)
def test_convolutions_halve_the_image_down_to_4x4_and_double_the_width_up_to_eightfold(resolution, widths):
    d = DCGANDiscriminator(resolution=resolution, width=4)
    convolutions = [m for m in d.layers if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == widths
    with torch.device("meta"):
        images = torch.empty(2, 3, resolution, resolution)
    assert d.to("meta").layers[:-1](images).shape == (2, widths[-2], 4, 4)
    assert d(images).shape == (2, 1)


def test_all_layers_but_the_first_and_the_last_are_normalised():
    kinds = [type(m) for m in DCGANDiscriminator(resolution=32, width=4).layers]
    assert kinds == [
        *(nn.Conv2d, nn.LeakyReLU),
        *(nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU),
        *(nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU),
        nn.Conv2d,
    ]


def test_all_of_it_trains():
    d = DCGANDiscriminator(resolution=32, width=4)
    d.freeze(0)
    d(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert {p for p in d.parameters() if p.grad.abs().sum() > 0} == set(d.trainable_parameters())


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match=r"takes 32, 64, 128 or 256 px, not 48; set data\.resolution"):
        DCGANDiscriminator(resolution=48)
