import pytest
import torch

from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.shapes import shapes_only

RESNET = {"resolution": 32, "width": 4, "num_classes": 3, "attention": 16, "spectral_norm": True}
GENERATORS = {
    "dcgan": lambda: DCGAN(resolution=32, width=4, low_pass=True),
    "fastgan": lambda: FastGAN(resolution=64, width=4),
    "sagan": lambda: ResNet(**RESNET),
    "biggan": lambda: ResNet(**RESNET, hierarchical=True, z_dim=8, class_dim=4),
    "biggan_deep": lambda: BigGANDeep(resolution=128, width=4, num_classes=3),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_network_without_values_has_the_shapes_and_types_of_the_network(name):
    with shapes_only():
        bare = GENERATORS[name]().state_dict()
    assert {tensor.device.type for tensor in bare.values()} == {"meta"}
    real = GENERATORS[name]().state_dict()
    assert {key: (t.shape, t.dtype) for key, t in bare.items()} == {key: (t.shape, t.dtype) for key, t in real.items()}


def test_quotients_have_the_shape_and_the_type_that_they_should():
    with shapes_only():
        assert (torch.empty(()) / torch.empty(3)).shape == (3,)
        assert (torch.empty(3, dtype=torch.int64) / 2).dtype == torch.float32
