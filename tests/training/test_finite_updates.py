from functools import partial

import pytest
import torch
from torch import nn

from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.muon import Muon


def test_a_step_gives_the_norm_of_all_gradients_together():
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])
    updates = FiniteUpdates(torch.device("cpu"))
    assert updates.step(torch.optim.SGD([a, b], lr=1.0), torch.zeros(()), [a, b], "generator").item() == 3.0


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


class OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize("kind", [partial(torch.optim.Adam, fused=True), Muon], ids=["Adam", "Muon"])
def test_on_a_gpu_no_update_follows_one_that_was_left_out_and_nothing_waits(kind, monkeypatch):
    norm = nn.utils.get_total_norm
    monkeypatch.setattr(nn.utils, "get_total_norm", lambda gradients: norm(gradients).as_subclass(OnGPU))
    weights, updates = (
        [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 8))],
        FiniteUpdates(torch.device("cpu")),
    )
    optimizer = kind(weights, lr=1.0)
    for gradient in (1.0, float("nan"), 1.0):  # nobody looks until the next point of the curves
        for weight in weights:
            weight.grad = torch.full_like(weight, gradient)
        updates.step(optimizer, torch.zeros(()), weights, "generator")
        if gradient == 1:
            after = [weight.detach().clone() for weight in weights]
        assert all(map(torch.equal, weights, after))
    assert all((weight < 0).all() for weight in weights)
    with pytest.raises(FloatingPointError):
        updates.raise_if_not_finite()
