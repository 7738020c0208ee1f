import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.layers.class_embedding import ClassEmbedding
from transfergen.networks.layers.reparametrization import (
    plain_state_dict,
    resize_mixtures,
    singular_values,
    train_mixtures,
    train_singular_values,
)

BIGGAN = {"resolution": 32, "z_dim": 10, "width": 4, "num_classes": 3, "class_dim": 6, "hierarchical": True}
GENERATORS = [
    lambda: DCGAN(resolution=32, z_dim=8, width=4),
    lambda: ResNet(resolution=32, z_dim=8, width=4, num_classes=3),
    lambda: ResNet(**BIGGAN, attention=16, spectral_norm=True),
]


def spectrum(weight):
    return torch.linalg.svdvals(weight.flatten(1))


@pytest.mark.parametrize("build", GENERATORS)
def test_images_are_the_same_at_first_and_the_state_is_that_of_a_plain_network(build):
    plain = build().eval()
    network, z, y = copy.deepcopy(plain), torch.randn(4, plain.z_dim), torch.tensor([0, 2, 1, 1])
    train_singular_values(network)
    torch.testing.assert_close(network(z, y), plain(z, y), rtol=1e-4, atol=1e-5)
    found, expected = plain_state_dict(network), plain.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    again = build()
    again.load_state_dict(found)
    torch.testing.assert_close(again.eval()(z, y), network(z, y), rtol=1e-4, atol=1e-5)


def test_a_weight_keeps_its_singular_vectors_and_takes_the_values_that_train():
    layer = nn.Conv2d(3, 5, 3)
    u, values, vh = torch.linalg.svd(layer.weight.detach().flatten(1), full_matrices=False)
    train_singular_values(layer)
    (parts,) = singular_values(layer)
    torch.testing.assert_close(parts.original.detach(), values)
    with torch.no_grad():
        parts.original.mul_(torch.tensor([2.0, 1, 1, 1, -3]))
    expected = (u * values * torch.tensor([2.0, 1, 1, 1, -3])) @ vh
    torch.testing.assert_close(layer.weight.flatten(1), expected)


def test_singular_values_are_those_from_before_spectral_normalisation():
    layer = parametrizations.spectral_norm(nn.Linear(6, 4, bias=False)).eval()
    original = layer.parametrizations.weight.original.detach().clone()
    train_singular_values(layer)
    assert [name for name, _ in layer.named_parameters()] == [
        "parametrizations.weight.parametrizations.original.original"
    ]
    with torch.no_grad():
        next(layer.parameters()).mul_(2)
    torch.testing.assert_close(plain_state_dict(layer)["parametrizations.weight.original"], 2 * original)


class Products(TorchFunctionMode):
    """Remembers the two settings of TF32 at each matrix product."""

    def __init__(self, settings):
        super().__init__()
        self.settings, self.seen = settings, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.matmul:
            self.seen.append([each.fp32_precision for each in self.settings])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["singular values", "mixtures"])
def test_a_weight_is_composed_in_full_precision_under_autocast_and_where_cuda_has_tf32(kind, tf32):
    layer, rows = nn.Embedding(16, 8) if kind == "mixtures" else nn.Linear(8, 16), torch.randn(5, 8)
    coefficients = torch.rand(16, 5)
    expected = coefficients @ rows if kind == "mixtures" else layer.weight.detach().clone()
    if kind == "mixtures":
        train_mixtures(layer, rows, coefficients)
    else:
        train_singular_values(layer)
    with torch.autocast("cpu", torch.bfloat16), Products(tf32) as products:
        torch.testing.assert_close(layer.weight, expected, rtol=1e-5, atol=1e-6)
    assert products.seen == [["ieee", "ieee"]]


def test_rows_are_mixtures_of_the_given_ones_and_start_as_told():
    table, rows, start = nn.Embedding(2, 4), torch.randn(5, 4), torch.rand(2, 5)
    train_mixtures(table, rows, start)
    torch.testing.assert_close(table(torch.tensor([0, 1])), start @ rows)
    (coefficients,) = table.parameters()
    assert coefficients.shape == (2, 5)
    with torch.no_grad():
        coefficients.copy_(torch.eye(2, 5))
    assert torch.equal(table(torch.tensor([1, 0])), rows[[1, 0]])
    assert torch.equal(plain_state_dict(table)["weight"], rows[:2])


def test_mixtures_take_the_sizes_of_a_state_dict_that_is_to_be_loaded():
    saved, fresh = nn.Sequential(nn.Embedding(2, 4)), nn.Sequential(nn.Embedding(2, 4))
    train_mixtures(saved[0], torch.randn(5, 4), torch.rand(2, 5))
    train_mixtures(fresh[0], torch.zeros(1, 4), torch.ones(2, 1))
    (coefficients,) = fresh.parameters()
    resize_mixtures(fresh, saved.state_dict())
    fresh.load_state_dict(saved.state_dict())
    assert next(fresh.parameters()) is coefficients  # an optimizer may hold it
    assert torch.equal(fresh[0].weight, saved[0].weight)


def test_mixtures_that_a_state_dict_does_not_hold_keep_their_sizes():
    plain, fresh = nn.Sequential(nn.Embedding(2, 4)), nn.Sequential(nn.Embedding(2, 4))
    train_mixtures(fresh[0], torch.zeros(1, 4), torch.ones(2, 1))
    resize_mixtures(fresh, plain.state_dict())  # whoever loads it then says which tensors differ
    assert fresh[0].weight.shape == (2, 4)


def test_embeddings_of_classes_have_no_singular_values_that_train():
    network = ResNet(resolution=32, z_dim=8, width=4, num_classes=3)
    train_singular_values(network)
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)]
    assert tables
    assert all(type(table) is ClassEmbedding for table in tables)
