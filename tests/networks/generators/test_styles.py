"""Mixtures of classes, and of styles, in the generators whose blocks are conditioned."""

import copy

import pytest
import torch
from generators import varied

from transfergen.networks.generators.base import latents
from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.generators.styles import mix_styles
from transfergen.networks.layers.reparametrization import class_tables

BIGGAN = {"resolution": 32, "z_dim": 10, "width": 4, "hierarchical": True, "class_dim": 5}


def small(kind):
    return {
        "tables": lambda: ResNet(resolution=32, z_dim=6, width=4, num_classes=3),
        "biggan": lambda: ResNet(num_classes=3, attention=16, **BIGGAN),
        "biggan_deep": lambda: BigGANDeep(z_dim=6, width=4, num_classes=3, class_dim=5),
    }[kind]()


@pytest.mark.parametrize("kind", ["tables", "biggan", "biggan_deep"])
def test_a_mixture_is_the_class_whose_embeddings_are_the_weighted_sums(kind):
    network = varied(small(kind), torch.arange(256) % 3) if kind != "biggan_deep" else small(kind).eval()
    z = latents([1, 2], network.z_dim)
    weights = torch.tensor([[0.0, 0.7, 0.3], [0.0, 0.0, 1.0]])
    mixed = copy.deepcopy(network)
    for table in class_tables(mixed).values():
        table.weight.data[0] = 0.7 * table.weight[1] + 0.3 * table.weight[2]
    with torch.no_grad():
        torch.testing.assert_close(network(z, weights), mixed(z, torch.tensor([0, 2])), rtol=1e-4, atol=1e-5)
        assert torch.equal(network(z, weights)[1], network(z, torch.tensor([2, 2]))[1])
        assert not torch.allclose(network(z, weights)[0], network(z, torch.tensor([1, 2]))[0], atol=1e-4)


@torch.no_grad()
def test_styles_of_a_hierarchical_latent_are_its_chunks():
    network = varied(ResNet(**BIGGAN))  # chunks of 3, 3, 2 and 2
    coarse, fine, y = latents([1, 2], 10), latents([3, 4], 10), torch.zeros(2, dtype=torch.int64)
    for block, size in ((1, 3), (2, 6), (3, 8)):
        expected = network(torch.cat([coarse[:, :size], fine[:, size:]], dim=1))
        assert torch.equal(mix_styles(network, coarse, y, fine, y, block=block), expected)
    for block in (0, 4):
        with pytest.raises(ValueError, match=f"^block={block}: choose 1 to 3"):
            mix_styles(network, coarse, y, fine, y, block=block)


@pytest.mark.parametrize("kind", ["biggan", "biggan_deep"])
@torch.no_grad()
def test_blocks_take_the_latent_and_class_of_their_side(kind):
    network, seen = small(kind).eval(), []
    for layer in (network.linear, *network.blocks):
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[-1]))
    coarse, fine = ((latents([seed], network.z_dim), torch.tensor([y])) for seed, y in ((1, 0), (2, 2)))
    mix_styles(network, *coarse, *fine, block=2)
    network(*coarse)
    network(*fine)
    count = 1 + network.latent_blocks
    mixed, first, second = seen[:count], seen[count : 2 * count], seen[2 * count :]
    assert not any(map(torch.equal, first, second))
    assert all(map(torch.equal, mixed, [*first[:2], *second[2:]]))


@pytest.mark.parametrize("network", [DCGAN(resolution=32, z_dim=6, width=4), small("tables")])
def test_a_latent_that_enters_before_the_blocks_only_has_no_styles(network):
    z, y = latents([1], 6), torch.tensor([0])
    with pytest.raises(ValueError, match=rf"the latent of this {type(network).__name__} enters before its blocks only"):
        mix_styles(network, z, y, z, y, block=1)
