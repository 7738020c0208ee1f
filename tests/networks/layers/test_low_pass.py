import torch

from transfergen.networks.layers.low_pass import LowPass


def test_a_low_pass_filter_weighs_neighbours_and_ends_what_alternates():
    impulse = torch.zeros(2, 3, 6, 8)
    impulse[1, 2, 3, 4] = 16
    expected = torch.zeros_like(impulse)
    expected[1, 2, 2:5, 3:6] = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    torch.testing.assert_close(LowPass()(impulse), expected)
    row = torch.tensor([1.0, -1]).repeat(4)
    for alternating in (row.expand(1, 1, 6, 8), row.expand(1, 1, 6, 8).mT):
        assert not LowPass()(alternating).any()
    torch.testing.assert_close(LowPass()(torch.ones(1, 3, 2, 2)), torch.ones(1, 3, 2, 2))  # edges are mirrored
