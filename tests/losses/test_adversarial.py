import math

import pytest
import torch
from torch import tensor

from transfergen.losses.adversarial import (
    bce,
    bce_d,
    bce_g,
    hinge,
    hinge_d,
    hinge_g,
    least_squares,
    least_squares_d,
    least_squares_g,
    relativistic,
    relativistic_d,
    relativistic_g,
    wasserstein,
    wasserstein_d,
)


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def test_discriminator_loss_by_hand():
    # -mean(log D(real)) - mean(log(1 - D(fake))), where 1 - sigmoid(x) = sigmoid(-x)
    expected = -(log_sigmoid(2) + log_sigmoid(-1)) / 2 - (log_sigmoid(-0.5) + log_sigmoid(3)) / 2
    assert bce_d(tensor([[2.0], [-1.0]]), tensor([[0.5], [-3.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_equilibrium_costs_the_discriminator_2_log_2_and_the_generator_log_2():
    undecided = torch.zeros(4, 1)
    assert bce_d(undecided, undecided).item() == pytest.approx(2 * math.log(2))
    assert bce_g(None, undecided).item() == pytest.approx(math.log(2))
    assert bce_g(None, undecided, saturating=True).item() == pytest.approx(-math.log(2))


@pytest.mark.parametrize(
    ("saturating", "expected", "slope"),
    [
        (False, -log_sigmoid(-4), -1 / (1 + math.exp(-4))),  # slope -(1 - D): strong where the fake is found out
        (True, log_sigmoid(4), -1 / (1 + math.exp(4))),  # slope -D: vanishing there
    ],
)
def test_generator_loss_and_gradient_by_hand_on_a_fake_that_is_detected(saturating, expected, slope):
    logits = tensor([[-4.0]], requires_grad=True)
    loss = bce(saturating=saturating).g_loss(None, logits)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert logits.grad.item() == pytest.approx(slope, rel=1e-5)


def test_hinge_losses_by_hand():
    # mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake))), and -mean(D(fake))
    real, fake = tensor([[2.0, 0.5], [-1.0, 1.0]]), tensor([[-3.0, 0.5], [-0.5, -1.0]])
    assert hinge_d(real, fake).item() == (0 + 0.5 + 2 + 0) / 4 + (0 + 1.5 + 0.5 + 0) / 4
    assert hinge().g_loss(real, fake).item() == (3 - 0.5 + 0.5 + 1) / 4
    undecided = torch.zeros(4, 3)
    assert hinge().d_loss(undecided, undecided).item() == 2


def test_hinge_has_no_slope_past_the_margin_and_none_that_vanishes_for_the_generator():
    real, fake = tensor([[1.5], [0.5]], requires_grad=True), tensor([[-50.0], [0.5]], requires_grad=True)
    hinge_d(real, fake).backward()
    assert (real.grad.tolist(), fake.grad.tolist()) == ([[0.0], [-0.5]], [[0.0], [0.5]])
    fake.grad = None
    hinge_g(None, fake).backward()
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
    assert torch.autograd.gradcheck(bce_g, (None, fake))
    assert torch.autograd.gradcheck(lambda x: bce_g(None, x, saturating=True), (fake,))
    assert torch.autograd.gradcheck(hinge_d, (real, fake))
    assert torch.autograd.gradcheck(hinge_g, (None, fake))
    for d_loss in (least_squares_d, wasserstein_d, relativistic_d):
        assert torch.autograd.gradcheck(d_loss, (real, fake))
    for g_loss in (least_squares_g, hinge_g):
        assert torch.autograd.gradcheck(g_loss, (None, fake))
    assert torch.autograd.gradcheck(relativistic_g, (real, fake))


REAL, FAKE = tensor([[2.0], [-1.0]]), tensor([[0.5], [-3.0]])


def test_least_squares_by_hand():
    assert least_squares_d(REAL, FAKE).item() == ((1 + 4) / 2 + (0.25 + 9) / 2) / 2
    assert least_squares().g_loss(None, FAKE).item() == (0.25 + 16) / 2 / 2
    halves = torch.full((4, 1), least_squares().boundary)
    assert least_squares_d(halves, halves).item() == 0.25  # at equilibrium, on the boundary


def test_wasserstein_by_hand():
    assert wasserstein_d(REAL, FAKE).item() == (0.5 - 3) / 2 - (2 - 1) / 2
    assert wasserstein().g_loss(None, FAKE).item() == -(0.5 - 3) / 2
    assert wasserstein().boundary is None


def test_drift_adds_the_mean_square_of_all_logits():
    added = relativistic(drift=0.1).d_loss(REAL, FAKE) - relativistic_d(REAL, FAKE)
    assert added.item() == pytest.approx(0.1 * torch.cat([REAL, FAKE]).square().mean().item(), rel=1e-5)


def test_relativistic_by_hand():
    # Real less fake is 1.5 and 2 in the two pairs.
    assert relativistic_d(REAL, FAKE).item() == pytest.approx(-(log_sigmoid(1.5) + log_sigmoid(2)) / 2)
    assert relativistic().g_loss(REAL, FAKE).item() == pytest.approx(-(log_sigmoid(-1.5) + log_sigmoid(-2)) / 2)
    assert relativistic_d(REAL + 7, FAKE + 7).item() == pytest.approx(relativistic_d(REAL, FAKE).item())
    assert relativistic_d(REAL, REAL).item() == pytest.approx(math.log(2))
    with pytest.raises(AssertionError, match="compares fakes with reals"):
        relativistic_g(None, FAKE)


def test_the_optimal_discriminator_is_the_share_of_the_data_in_the_density():
    # Three values with known probabilities; a logit for each is a discriminator that can do anything.
    # arXiv:1406.2661, proposition 1 and theorem 1.
    data, generated = tensor([0.5, 0.3, 0.2]), tensor([0.1, 0.3, 0.6])
    for fake, value in ((generated, None), (data, 2 * math.log(2))):
        logits = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-9)
        counts = [(1000 * p).round().long() for p in (data, fake)]

        def loss(logits=logits, optimizer=optimizer, counts=counts):
            optimizer.zero_grad()
            value = bce_d(*(logits.repeat_interleave(n)[:, None] for n in counts))
            value.backward()
            return value

        optimizer.step(loss)
        torch.testing.assert_close(logits.detach().sigmoid(), data / (data + fake), atol=1e-4, rtol=0)
        if value is not None:
            assert loss().item() == pytest.approx(value, rel=1e-6)
