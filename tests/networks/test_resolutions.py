import re

import pytest
import torch
from trunks import trunk

from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.discriminators.single_head import SingleHeadDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.encoders.dcgan import DCGANEncoder
from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet

FROM_SCRATCH = [DCGAN, FastGAN, ResNet, DCGANDiscriminator, ResNetDiscriminator, DCGANEncoder]


@pytest.mark.parametrize("network", FROM_SCRATCH)
def test_a_network_refuses_a_resolution_that_it_is_not_made_for(network):
    sizes, largest = ("32, 64, 128, 256, 512", 1024) if network is FastGAN else ("32, 64, 128", 256)
    for resolution in (0, 16, 48, 2 * largest):
        with pytest.raises(ValueError, match=rf"^resolution={resolution}: choose {sizes} or {largest} pixels"):
            network(resolution=resolution)


@pytest.mark.parametrize("network", [*FROM_SCRATCH, BigGANDeep])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"resolution": 48, "aspect": (3, 2)}, r"resolution=48: choose .* pixels with aspect=\[3, 2\]"),
        ({"resolution": 64, "aspect": (9, 16)}, r"resolution=64: the longer side .* choose 72, 144, 288 or 576"),
        ({"resolution": 200, "aspect": (201, 200)}, r"aspect=\[201, 200\]: .* more than 1024 pixels"),
        ({"aspect": (1, 0)}, r"aspect=\[1, 0\]: choose two whole numbers"),
        ({"image_channels": 2}, "image_channels=2: choose 1 for grey"),
    ],
)
def test_a_network_refuses_another_shape_with_what_would_work(network, shape, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        network(**shape)


SHAPES = [((2, 1), 32, (4, 32, 64)), ((3, 4), 48, (1, 64, 48)), ((9, 16), 72, (4, 128, 72))]


@pytest.mark.parametrize(("aspect", "resolution", "shape"), SHAPES)
@pytest.mark.parametrize(
    ("generator", "settings"),
    [
        (DCGAN, {}),
        (FastGAN, {}),
        (ResNet, {"attention": 16, "spectral_norm": True}),
        (BigGANDeep, {"class_dim": 4}),
    ],
)
def test_a_generator_makes_oblong_images_of_any_channels(generator, settings, aspect, resolution, shape):
    times = 4 if generator is BigGANDeep else 1
    settings = settings | {"resolution": times * resolution, "aspect": aspect, "image_channels": shape[0]}
    network = generator(width=4, z_dim=8, **settings)
    with torch.no_grad():
        images = network(torch.randn(2, 8))
    assert images.shape == (2, shape[0], times * shape[1], times * shape[2]) == (2, *network.image_shape)
    assert network.latent_weight().shape[1] == 8
    assert images.flatten(1).std(dim=1).min() > 0


def vision_aided(resolution, aspect, image_channels):
    shape = {"resolution": resolution, "aspect": aspect}
    ordinary = DCGANDiscriminator(**shape, image_channels=image_channels, width=4)
    network = VisionAidedDiscriminator(ordinary, {"a": trunk()}, **shape, channels=4, width=4)
    network.set_extra_state(["a"])
    return network


DISCRIMINATORS = {
    "dcgan": lambda **shape: DCGANDiscriminator(**shape, width=4),
    "resnet": lambda **shape: ResNetDiscriminator(**shape, width=4, attention=16),
    "vgg": lambda **shape: VGGDiscriminator(trunk(), **shape, width=4, hidden=8),
    "single_head": lambda image_channels, **shape: SingleHeadDiscriminator(trunk(), **shape, hidden=8),
    "projected": lambda image_channels, **shape: ProjectedDiscriminator(trunk(), **shape, channels=4, width=4),
    "release": lambda image_channels, **shape: ProjectedDiscriminator(trunk(), **shape, channels=4),
    "vision_aided": vision_aided,
}


@pytest.mark.parametrize(("aspect", "resolution", "shape"), SHAPES)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_discriminator_scores_oblong_images_of_any_channels(name, aspect, resolution, shape):
    network = DISCRIMINATORS[name](resolution=resolution, aspect=aspect, image_channels=shape[0])
    images = (torch.rand(3, *shape) * 2 - 1).requires_grad_()
    network.calibrate(images.detach())
    for blocks in {network.blocks, network.blocks if not network.trunk_can_train else 0}:
        network.freeze(blocks)
        logits = network(images)
        assert logits.shape == (3, network.num_logits)
        (gradient,) = torch.autograd.grad(logits.square().sum(), images)
        assert gradient.abs().amax(dim=(0, 2, 3)).min() > 0, "a channel without influence"


def test_an_encoder_takes_oblong_images():
    mean, log_variance = DCGANEncoder(resolution=32, aspect=(3, 2), image_channels=1, z_dim=5, width=4)(
        torch.rand(2, 1, 32, 48)
    )
    assert mean.shape == log_variance.shape == (2, 5)


def test_a_wider_network_is_that_for_squares_but_for_its_first_layer():
    def shapes(aspect):
        state = FastGAN(resolution=64, aspect=aspect, width=4).state_dict()
        return {name: tensor.shape for name, tensor in state.items()}

    squares, wide = shapes((1, 1)), shapes((2, 1))
    differing = {re.sub(r"\d+", "N", name) for name in squares if squares[name] != wide[name]}
    assert differing == {"start.N.weight", "blocks.N.N.constant", "excitations.N.layers.N.weight"}
