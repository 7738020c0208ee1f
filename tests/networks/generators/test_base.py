import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.generators.base import Generator, latent_directions, latents, sample
from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.layers.resampling import ProjectAndReshape


class Told(Generator):
    """Images that show the class they were asked for."""

    z_dim, resolution, num_classes = 4, 2, 10

    def forward(self, z, y=None):
        assert not self.training
        return y[:, None, None, None].expand(-1, 3, 2, 2).float()


def shown(*args, **options):
    return sample(Told(), *args, torch.device("cpu"), **options)[:, 0, 0, 0].int().tolist()


def test_truncated_latents_stay_within_the_bound_and_depend_on_their_seed_alone():
    z = latents(range(50), 20, truncation=0.5)
    assert z.abs().max() <= 0.5
    assert abs(z.std().item() - 0.28) < 0.02  # of a normal distribution cut off at half a deviation
    assert torch.equal(latents([7], 20, truncation=0.5)[0], z[7])
    assert latents(range(50), 20).abs().max() > 2


def test_classes_follow_the_seeds_whatever_the_batch():
    assert shown(range(8, 13)) == [8, 9, 0, 1, 2] == shown(range(8, 13), batch_size=2)
    assert shown(range(5), classes=[7, 2]) == [7, 2, 7, 2, 7]


@pytest.mark.parametrize(
    "network",
    [
        DCGAN(resolution=32, z_dim=6, width=4),
        FastGAN(resolution=32, z_dim=6, width=4, hypersphere=True),
        ResNet(resolution=32, z_dim=6, width=4, spectral_norm=True),
        ResNet(resolution=32, z_dim=6, width=4, num_classes=3),
        BigGANDeep(z_dim=6, width=4, num_classes=3, class_dim=5),
        ResNet(resolution=32, z_dim=9, width=4, hierarchical=True),
        ResNet(resolution=32, z_dim=9, width=4, hierarchical=True, num_classes=3, class_dim=5, spectral_norm=True),
    ],
    ids=lambda network: type(network).__name__,
)
def test_directions_change_the_layers_that_take_the_latent_most_and_independently(network):
    z = latents([0], network.z_dim)
    found = latent_directions(network.eval(), network.z_dim)
    torch.testing.assert_close(found @ found.T, torch.eye(network.z_dim))
    assert all(direction[direction.abs().argmax()] > 0 for direction in found)
    if getattr(network, "hypersphere", False):  # which scales latents before these layers
        network.hypersphere = False
    with torch.no_grad():
        outputs = [taken(network, point) for point in (z, *(z + found[:, None]))]
    changes = torch.stack(outputs[1:]) - outputs[0]
    products = changes @ changes.T  # the eigenvalues, and nothing beside them
    torch.testing.assert_close(products, products.diagonal().diag(), atol=1e-4, rtol=1e-4)
    assert (products.diagonal().diff() <= 1e-4).all()
    assert torch.equal(latent_directions(network, 2), found[:2])


class WithoutFloat64(torch.Tensor):
    """A tensor as on MPS, which has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_directions_are_found_on_a_device_without_float64(monkeypatch):
    network = DCGAN(resolution=32, z_dim=6, width=4).eval()
    expected = latent_directions(network, 2)
    weight = network.latent_weight().as_subclass(WithoutFloat64)
    monkeypatch.setattr(network, "latent_weight", lambda: weight)
    assert torch.equal(latent_directions(network, 2), expected)


def taken(network, z):
    """The outputs, one after the other, of all layers that get the latent or a part of it."""
    outputs = []
    kinds = (ProjectAndReshape, nn.Linear, nn.Embedding)
    layers = [m for m in network.modules() if isinstance(m, kinds)]
    hooks = [m.register_forward_hook(lambda _, __, output: outputs.append(output.flatten())) for m in layers]
    network(z, torch.tensor([1]))
    for hook in hooks:
        hook.remove()
    return torch.cat(outputs)


def test_directions_of_what_does_not_say_which_weights_take_the_latent_are_refused():
    with pytest.raises(ValueError, match="directions: this Told does not say which of its weights take the latent"):
        latent_directions(Told(), 2)
    with pytest.raises(ValueError, match="directions=5: choose 1 to 4"):
        latent_directions(Told(), 5)


def test_project_and_reshape_is_the_transposed_convolution_of_a_pixel():
    layer, z = ProjectAndReshape(5, 6).to(memory_format=torch.channels_last), torch.randn(3, 5)
    expected = F.conv_transpose2d(z[:, :, None, None], layer.weight)
    torch.testing.assert_close(layer(z), expected)
    assert isinstance(layer, nn.ConvTranspose2d)  # whose weights a published DCGAN has
