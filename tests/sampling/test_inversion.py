import pytest
import torch
from generators import varied

from transfergen.losses.perceptual import perceptual_distance
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.generators.base import latents
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.sampling.inversion import invert


def test_image_of_the_generator_is_found_again():
    network = varied(DCGAN(resolution=32, width=8, z_dim=16))
    pictures = network(latents([1001, 1002], 16))
    random = network(latents(range(200), 16))
    nearest = torch.stack([(random - picture).square().mean(dim=(1, 2, 3)).min() for picture in pictures])
    z, error = invert(network, pictures, steps=300)
    assert z.shape == (2, 16)
    torch.testing.assert_close(error, (network(z) - pictures).square().mean(dim=(1, 2, 3)))
    assert (error < nearest / 4).all()


def test_prior_keeps_latents_near_the_middle():
    network = varied(DCGAN(resolution=32, width=8, z_dim=16))
    picture = -torch.ones(1, 3, 32, 32)
    free, held = (invert(network, picture, steps=100, prior=prior, perceptual=0)[0].norm() for prior in (0.0, 1.0))
    assert held < free / 2


@pytest.mark.parametrize("label", [0, 1])
def test_conditional_generator_searches_within_the_class(label):
    network = varied(ResNet(resolution=32, width=4, z_dim=16, num_classes=2), torch.randint(2, (256,)))
    labels = torch.tensor([label])
    picture = network(latents([1001], 16), labels)
    _, right = invert(network, picture, steps=100, perceptual=0, labels=labels)
    _, wrong = invert(network, picture, steps=100, perceptual=0, labels=1 - labels)
    assert right < wrong


def test_perceptual_term_brings_the_features_of_the_image_nearer_to_those_of_the_picture():
    network, other = (varied(DCGAN(resolution=32, width=8, z_dim=16)) for _ in range(2))
    picture, trunk = other(latents([1], 16)), TimmBackbone().eval()
    plain, nearer = (network(invert(network, picture, steps=50, perceptual=weight)[0]) for weight in (0.0, 3.0))
    assert perceptual_distance(trunk(nearer), trunk(picture)) < 0.9 * perceptual_distance(trunk(plain), trunk(picture))


def test_each_picture_is_searched_by_itself_and_without_chance():
    network = varied(DCGAN(resolution=32, width=8, z_dim=16, image_channels=4))
    pictures = varied(DCGAN(resolution=32, width=8, z_dim=16, image_channels=4))(latents([1, 2], 16))
    together, alone = invert(network, pictures, steps=10), invert(network, pictures[1:], steps=10)
    torch.testing.assert_close(together[0][1:], alone[0], rtol=0, atol=1e-3)
