import pytest
import torch
from torch import nn

from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.layers.resampling import WholeMapConv2d


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
        WholeMapConv2d,
    ]


@pytest.mark.parametrize(("norm", "kind"), [("layer", nn.GroupNorm), ("none", None)])
def test_without_batch_norm_each_image_is_judged_by_itself(norm, kind):
    d = DCGANDiscriminator(resolution=32, width=4, norm=norm)
    assert [type(m) for m in d.layers if not isinstance(m, nn.Conv2d | nn.LeakyReLU)] == ([kind] * 2 if kind else [])
    assert all(m.bias is not None for m in d.layers if isinstance(m, nn.Conv2d))
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(d(images)[:1], d(images[:1]))


def test_layer_norm_is_over_all_channels_and_positions():
    norm = DCGANDiscriminator(resolution=32, width=4, norm="layer").layers[3]
    maps = 3 * torch.randn(2, 8, 5, 5) + 1
    nn.init.normal_(norm.weight)
    standardised = nn.functional.layer_norm(maps, maps.shape[1:])
    torch.testing.assert_close(norm(maps), standardised * norm.weight[:, None, None])


def test_lowest_layers_are_all_but_the_last_with_their_normalisation():
    d = DCGANDiscriminator(resolution=64, width=4)
    layers = d.lowest_layers()
    assert [[type(m) for m in layer] for layer in layers] == [
        [nn.Conv2d, nn.LeakyReLU],
        *[[nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]] * 3,
    ]
    for layer in layers:
        layer.requires_grad_(False)
    assert [p for p in d.parameters() if p.requires_grad] == list(d.layers[-1].parameters())


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_all_of_it_trains(norm):
    d = DCGANDiscriminator(resolution=32, width=4, norm=norm)
    d.freeze(0)
    d(torch.rand(4, 3, 32, 32)).square().sum().backward()
    assert {p for p in d.parameters() if p.grad.abs().sum() > 0} == set(d.trainable_parameters())


def test_an_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match=r"^norm=group: choose one of batch, layer, none"):
        DCGANDiscriminator(resolution=32, norm="group")
