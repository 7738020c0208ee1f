import math

import pytest
import torch
from torch import tensor

from transfergen.losses.adversarial import bce, bce_d, bce_g, hinge, hinge_d, hinge_g


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def test_discriminator_loss_by_hand():
    # -mean(log D(real)) - mean(log(1 - D(fake))), where 1 - sigmoid(x) = sigmoid(-x)
    expected = -(log_sigmoid(2) + log_sigmoid(-1)) / 2 - (log_sigmoid(-0.5) + log_sigmoid(3)) / 2
    assert bce_d(tensor([[2.0], [-1.0]]), tensor([[0.5], [-3.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_equilibrium_costs_the_discriminator_2_log_2_and_the_generator_log_2():
    undecided = torch.zeros(4, 1)
    assert bce_d(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert bce_g(undecided).item() == pytest.approx(math.log(2))
    assert bce_g(undecided, saturating=True).item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize(
    ("saturating", "expected", "slope"),
    [
        (False, -log_sigmoid(-4), -1 / (1 + math.exp(-4))),  # slope -(1 - D): strong where the fake is found out
        (True, log_sigmoid(4), -1 / (1 + math.exp(4))),  # slope -D: vanishing there
    ],
)
def test_generator_loss_and_slope_by_hand_on_a_fake_that_is_found_out(saturating, expected, slope):
    logits = tensor([[-4.0]], requires_grad=True)
    loss = bce(saturating=saturating).g_loss(logits, None)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad.item() == pytest.approx(slope, rel=1e-5)


def test_hinge_losses_by_hand():
    # mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake))), and -mean(D(fake))
    real, fake = tensor([[2.0, 0.5], [-1.0, 1.0]]), tensor([[-3.0, 0.5], [-0.5, -1.0]])
    assert hinge_d(real, fake).item() == (0 + 0.5 + 2 + 0) / 4 + (0 + 1.5 + 0.5 + 0) / 4
    assert hinge().g_loss(fake, real).item() == (3 - 0.5 + 0.5 + 1) / 4
    undecided = torch.zeros(4, 3)
    assert hinge().d_loss(undecided, undecided).item() == 2


def test_hinge_has_no_slope_past_the_margin_and_none_that_vanishes_for_the_generator():
    real, fake = tensor([[1.5], [0.5]], requires_grad=True), tensor([[-50.0], [0.5]], requires_grad=True)
    hinge_d(real, fake).backward()
    assert (real.grad.tolist(), fake.grad.tolist()) == ([[0.0], [-0.5]], [[0.0], [0.5]])
    fake.grad = None
    hinge_g(fake).backward()
    assert fake.grad.tolist() == [[-0.5], [-0.5]]


def test_certain_logits_give_finite_losses_and_gradients():
    real, fake = tensor([[-1e4]], requires_grad=True), tensor([[1e4]], requires_grad=True)
    loss = bce_d(real, fake)
    loss.backward()
    assert loss.item() == 2e4
    assert (real.grad.item(), fake.grad.item()) == (-1, 1)


def test_gradients_are_those_of_finite_differences():
    real, fake = (torch.randn(5, 2, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(bce_d, (real, fake))
    assert torch.autograd.gradcheck(bce_g, (fake,))
    assert torch.autograd.gradcheck(lambda x: bce_g(x, saturating=True), (fake,))
    assert torch.autograd.gradcheck(hinge_d, (real, fake))
    assert torch.autograd.gradcheck(hinge_g, (fake,))
