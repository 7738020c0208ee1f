import pytest
import torch
from torch import nn

from transfergen.training.finite_updates import FiniteUpdates, gradient_norm


def test_gradient_norm_is_that_of_all_gradients_together_and_shows_what_is_not_finite():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
    assert gradient_norm([a, b]).item() == 3.0
    b.grad = torch.tensor([float("inf")])
    assert not torch.isfinite(gradient_norm([a, b]))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_left_out_and_told_of(where):
    weight, updates = nn.Parameter(torch.ones(2)), FiniteUpdates(torch.device("cpu"))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    loss = weight.sum()
    loss.backward()
    assert updates.step(optimizer, loss, [weight], "generator").item() == pytest.approx(2**0.5)
    assert torch.equal(weight.detach(), torch.zeros(2))
    updates.raise_if_not_finite()
    if where == "loss":
        loss = loss * float("nan")
    else:
        weight.grad[0] = float("inf")
    with pytest.raises(FloatingPointError, match="the generator's loss or gradient is not finite"):
        updates.step(optimizer, loss, [weight], "generator")
    assert torch.equal(weight.detach(), torch.zeros(2))
    with pytest.raises(FloatingPointError, match="so that no checkpoint holds it"):
        updates.raise_if_not_finite()
