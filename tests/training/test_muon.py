import pytest
import torch
from torch import nn

from transfergen.networks.encoders.dcgan import DCGANEncoder
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.training.muon import ADAMS_RMS, Muon, orthogonalised


def with_singular_values(values, columns):
    rows = len(values)
    left, _ = torch.linalg.qr(torch.randn(rows, rows))
    right, _ = torch.linalg.qr(torch.randn(columns, rows))
    return left, right, left @ torch.diag(values) @ right.T


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_singular_values_become_nearly_equal_and_their_vectors_stay(scale):
    values = torch.logspace(0, -1.5, 24)
    left, right, matrix = with_singular_values(values, 200)
    result = left.T @ orthogonalised(scale * matrix[None])[0] @ right
    assert 0.6 < result.diagonal().min() < result.diagonal().max() < 1.3
    assert (result - torch.diag(result.diagonal())).abs().max() < 0.02


def test_directions_without_gradient_gain_no_more_than_rounding():
    _, _, matrix = with_singular_values(torch.tensor([1.0] * 8 + [0.0] * 56), 500)
    values = torch.linalg.svdvals(orthogonalised(matrix[None])[0])
    assert values[:8].min() > 0.6
    assert values[8:].max() < 0.3


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(8, 4, 4), nn.ConvTranspose2d(256, 16, 4), nn.Conv2d(4, 256, 3), nn.Linear(16, 8)]
)
def test_an_update_of_a_matrix_is_as_large_as_adams_in_either_memory_format(layer):
    gradient = torch.randn_like(layer.weight)
    updated = []
    for channels_last in {False, layer.weight.ndim == 4}:
        weight = nn.Parameter(torch.zeros_like(layer.weight))
        if channels_last:
            weight = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))
        weight.grad = gradient.clone()
        Muon([weight], lr=0.1).step()
        updated.append(weight.detach())
    for weight in updated:
        assert weight.square().mean().sqrt() == pytest.approx(0.1 * ADAMS_RMS, rel=0.3)
        assert (weight * gradient).sum() < 0
        torch.testing.assert_close(weight, updated[0], rtol=0, atol=2**-8 * 0.1)  # products in bfloat16


def test_momentum_carries_an_update_on():
    weight = nn.Parameter(torch.zeros(4, 8))
    optimizer = Muon([weight], momentum=0.9)
    weight.grad = torch.randn(4, 8)
    optimizer.step()
    first = weight.detach().clone()
    weight.grad = torch.zeros(4, 8)
    optimizer.step()
    assert torch.cosine_similarity((weight - first).flatten(), first.flatten(), dim=0) > 0.99


def test_what_has_no_gradient_does_not_move():
    zero, none = nn.Parameter(torch.ones(4, 8)), nn.Parameter(torch.ones(4, 8))
    zero.grad = torch.zeros(4, 8)
    Muon([zero, none]).step()
    assert (zero == 1).all()
    assert (none == 1).all()


def test_vectors_move_as_by_adam_without_momentum():
    ours, theirs = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8))
    muon, adam = Muon([ours], lr=0.01, fallback_lr_scale=0.5), torch.optim.Adam([theirs], lr=0.005, betas=(0.0, 0.99))
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(8)
        muon.step()
        adam.step()
    torch.testing.assert_close(ours, theirs)


def test_the_number_of_updates_is_not_rounded_to_the_weights_precision_when_it_is_loaded():
    weight = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    before, after = Muon([weight]), Muon([weight])
    for _ in range(257):  # the first whole number that bfloat16 does not have
        before.step()
    after.load_state_dict(before.state_dict())
    assert after.state[weight]["step"].item() == 257


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [DCGAN, FastGAN, ResNet, DCGANEncoder])
def test_the_layer_beside_the_pixels_is_updated_like_biases_if_that_is_asked_for(kind, channels):
    network = kind(resolution=32, width=8, image_channels=channels)
    kernels = [p for p in network.parameters() if p.ndim == 4]
    for fallback_output in (True, False):
        optimizer = Muon(network.parameters(), fallback_output=fallback_output)
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        like_biases = [p for p in kernels if "second_moment" in optimizer.state[p]]
        assert [channels in p.shape[:2] for p in like_biases] == [True] * fallback_output


def test_an_update_is_the_gradient_moved_towards_the_average_of_gradients_by_the_momentum():
    weight, gradients = nn.Parameter(torch.zeros(4, 6)), torch.randn(2, 4, 6)
    optimizer, average = Muon([weight], lr=0.5, momentum=0.75), torch.zeros(4, 6)
    for gradient in gradients:
        weight.grad, before = gradient.clone(), weight.detach().clone()
        optimizer.step()
        average = 0.75 * average + 0.25 * gradient
        direction = 0.25 * gradient + 0.75 * average  # Nesterov
        expected = before - 0.5 * 0.2 * 6**0.5 * orthogonalised(direction[None])[0]
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-2, atol=1e-3)
