import pytest
import torch
from torch import nn

from transfergen.networks.discriminators.heads import ScaleHead


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


def test_every_convolution_has_a_spectral_norm_of_1():
    head = ScaleHead(6, 16, width=5)
    maps = torch.randn(4, 6, 16, 16)
    for _ in range(100):  # one power iteration each
        head(maps)
    norms = [torch.linalg.matrix_norm(m.weight.flatten(1), 2).item() for m in head if isinstance(m, nn.Conv2d)]
    assert norms == pytest.approx([1.0] * 3, rel=1e-2)
