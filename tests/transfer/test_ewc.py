import pytest
import torch
from torch import Tensor, nn

from transfergen.networks.generators.base import Generator, latents
from transfergen.transfer.ewc import BATCH_SIZE, BATCHES, ewc_penalty, fisher_information


class Linear(Generator):
    """Pixels that are linear in the latent, so that (dx / dw)^2 of a weight is the square of a latent's component."""

    z_dim, resolution = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 3))
        self.bias = nn.Parameter(torch.randn(12))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (z @ self.weight.T + self.bias).view(-1, 3, 2, 2)


def test_fisher_information_of_a_linear_generator_is_known():
    weight, bias = fisher_information(Linear())
    z = latents(range(BATCHES * BATCH_SIZE), 3)
    # Each weight changes one of the 12 pixels. The estimate is noisy by the products of different images.
    torch.testing.assert_close(bias.mean().item(), 1 / 12, rtol=0.1, atol=0)
    expected = z.square().mean(dim=0) / 12
    torch.testing.assert_close(weight.mean(dim=0), expected, rtol=0.25, atol=0)
    again = fisher_information(Linear())
    assert torch.equal(again[1], bias)


def test_ewc_penalty_equals_a_sum_worked_by_hand():
    value = ewc_penalty(
        [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])],
        [torch.tensor([1.0, 0.0]), torch.tensor([[1.0]])],
        [torch.tensor([9.0, 0.5]), torch.tensor([[2.0]])],
    )
    assert value.item() == pytest.approx(0.5 * 4 + 2 * 4)
