import math
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.discriminators.heads import (
    ClassConv2d,
    FullyConnectedHead,
    GhostBatchNorm,
    ScaleHead,
    TokenHead,
)


@pytest.mark.parametrize(
    ("size", "halvings", "logits"),
    [(2, 0, 1), (3, 0, 1), (4, 0, 1), (7, 0, 4), (8, 1, 1), (14, 1, 4), (16, 2, 1), (28, 2, 4), (64, 4, 1)],
)
def test_a_map_is_halved_until_it_is_no_larger_than_7x7_and_then_judged_4x4_by_4x4(size, halvings, logits):
    head = ScaleHead(6, size, width=5)
    strides = [m.stride for m in head if isinstance(m, nn.Conv2d)]
    assert strides == [(2, 2)] * halvings + [(1, 1)]
    assert head(torch.randn(3, 6, size, size)).shape == (3, 1, logits, logits)
    assert head.num_logits == logits**2


@pytest.mark.parametrize("size", [4, 6])  # one window, and three by three
def test_a_logit_gains_how_well_its_window_fits_the_embedding_of_its_class(size):
    head = ClassConv2d(3, (4, 4), 2, bias=True).eval()
    maps, y = torch.randn(5, 3, size, size), torch.tensor([0, 1, 1, 0, 1])
    fit = head.fit(maps, y)
    assert fit.shape == head(maps).shape == (5, 1, size - 3, size - 3)
    for image, row, column in product(range(5), range(size - 3), range(size - 3)):
        window = maps[image, :, row : row + 4, column : column + 4].sum(dim=(1, 2)) / 4
        expected = head.embedding.weight[y[image]] @ window
        torch.testing.assert_close(fit[image, 0, row, column], expected, rtol=1e-4, atol=1e-5)


def test_every_convolution_has_a_spectral_norm_of_1():
    head = ScaleHead(6, 16, width=5)
    maps = torch.randn(4, 6, 16, 16)
    for _ in range(100):  # one power iteration each
        head(maps)
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in head if isinstance(m, nn.Conv2d)]
    assert norms == pytest.approx([1.0] * 3, rel=1e-2)


@pytest.mark.parametrize("size", [4, 16])
def test_a_head_with_statistics_sees_standardised_maps_to_the_border(size):
    head = FullyConnectedHead(6, size, width=5, hidden=7).eval()
    mean, std = torch.randn(6), torch.rand(6) + 0.5
    maps = (3 * torch.randn(4, 6, size, size)).requires_grad_()
    reals = 3 * torch.randn(4, 6, size, size)
    standardized, standardized_reals = ((m - mean[:, None, None]) / std[:, None, None] for m in (maps, reals))
    for ours, expected in [
        (head(maps, statistics=(mean, std)), head(standardized)),
        (head(maps, reals, (mean, std)), head(standardized, standardized_reals)),
    ]:
        torch.testing.assert_close(ours, expected)
        inputs = [maps, *head.parameters()]
        both = [torch.autograd.grad(logits.sum(), inputs, retain_graph=True) for logits in (ours, expected)]
        torch.testing.assert_close(*both)


def by_groups(x, size, norm):
    """Batch normalisation of each group of `size` images, and LeakyReLU."""
    parts = [F.batch_norm(part, None, None, norm.weight, norm.bias, training=True) for part in x.split(size)]
    return F.leaky_relu(torch.cat(parts), 0.2)


def test_a_head_on_tokens_is_that_of_stylegan_t():
    head = TokenHead(6, 10)
    narrow, narrow_norm, _, residual, last = head
    wide, wide_norm, _ = residual
    for norm in (narrow_norm, wide_norm):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = torch.randn(16, 6, 10)
    for _ in range(100):
        head(x)
    head.eval()
    for layer in (narrow, wide, last):
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-2)
    h = by_groups(torch.einsum("oi,bil->bol", narrow.weight[..., 0], x), 8, narrow_norm)
    convolved = sum(torch.einsum("oi,bil->bol", wide.weight[..., i], h.roll(4 - i, dims=2)) for i in range(9))
    h = (h + by_groups(convolved, 8, wide_norm)) / math.sqrt(2)
    expected = torch.einsum("oi,bil->bol", last.weight[..., 0], h) + last.bias
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)
    assert head(x).shape[1:] == (1, head.num_logits)


@pytest.mark.parametrize(("batch", "size"), [(3, 3), (8, 8), (9, 3), (12, 6), (16, 8)])
def test_images_are_normalised_in_equal_groups_of_at_most_8(batch, size):
    norm, x = GhostBatchNorm(2), 3 * torch.randn(batch, 2, 5) + 1
    torch.testing.assert_close(F.leaky_relu(norm(x), 0.2), by_groups(x, size, norm), rtol=1e-4, atol=1e-5)
