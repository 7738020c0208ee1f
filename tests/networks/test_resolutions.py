import pytest

from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.encoders.dcgan import DCGANEncoder
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet


@pytest.mark.parametrize("network", [DCGAN, FastGAN, ResNet, DCGANDiscriminator, ResNetDiscriminator, DCGANEncoder])
@pytest.mark.parametrize("resolution", [0, 16, 48, 512])
def test_a_network_refuses_a_resolution_that_it_is_not_made_for(network, resolution):
    with pytest.raises(ValueError, match=rf"^resolution={resolution}: choose 32, 64, 128 or 256"):
        network(resolution=resolution)
