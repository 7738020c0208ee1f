import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl

from transfergen.losses.adversarial import hinge
from transfergen.losses.divergence import Elbo, Posterior, gaussian_nll, kl_divergence


def posterior(count=5, z_dim=3):
    return Posterior(torch.randn(count, z_dim), torch.randn(count, z_dim))


def test_divergence_is_that_of_torch():
    q = posterior()
    expected = torch_kl(Normal(q.mean, (q.log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(q), expected)


def test_likelihood_is_that_of_torch_and_the_best_sigma_is_the_best():
    images, decoded = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(gaussian_nll(images, decoded, sigma=0.3), -Normal(decoded, 0.3).log_prob(images).mean())
    root = (images - decoded).square().mean().sqrt().item()
    best = gaussian_nll(images, decoded)
    torch.testing.assert_close(best, gaussian_nll(images, decoded, sigma=root))
    assert best < min(gaussian_nll(images, decoded, sigma=root * factor) for factor in (0.9, 1.1))


def test_bound_of_a_linear_model_with_its_exact_posterior_is_the_likelihood():
    # x = W z + noise of deviation s, and W's columns are orthogonal: the posterior has independent numbers, and
    # log p(x) is that of N(0, W W' + s^2).
    torch.manual_seed(0)
    s, lengths = 0.5, torch.tensor([1.0, 2.0, 0.3], dtype=torch.double)
    w = torch.linalg.qr(torch.randn(12, 3, dtype=torch.double)).Q * lengths
    x = w @ torch.randn(3, dtype=torch.double) + s * torch.randn(12, dtype=torch.double)
    variance = 1 / (1 + lengths**2 / s**2)
    draws = 200_000
    q = Posterior((variance * (w.T @ x) / s**2).expand(draws, 3), variance.log().expand(draws, 3))
    z = q.mean + variance.sqrt() * torch.randn(draws, 3, dtype=torch.double)
    images, decoded = x.view(1, 3, 2, 2).expand(draws, 3, 2, 2), (z @ w.T).view(draws, 3, 2, 2)
    terms = Elbo(sigma=s).terms(images, decoded, q, 0)
    covariance = w @ w.T + s**2 * torch.eye(12, dtype=torch.double)
    expected = MultivariateNormal(torch.zeros(12, dtype=torch.double), covariance).log_prob(x)
    assert -12 * sum(terms.values()).item() == pytest.approx(expected.item(), abs=0.02)
    curves = Elbo(sigma=s).curves(terms["reconstruction"], q, 12, 0)
    assert 12 * curves["elbo"].item() == pytest.approx(expected.item(), abs=0.02)


def test_free_bits_are_a_floor_for_each_dimension_of_the_latent():
    q = Posterior(torch.tensor([[0.0, 2.0], [0.0, 4.0]]), torch.zeros(2, 2))  # means over the batch: 0 and 5 nats
    images = torch.zeros(2, 3, 2, 2)
    assert Elbo().terms(images, images, q, 0)["kl"].item() == pytest.approx(5 / 12)
    assert Elbo(free_bits=0.5).terms(images, images, q, 0)["kl"].item() == pytest.approx(5.5 / 12)
    mean = q.mean.clone().requires_grad_(True)
    Elbo(free_bits=6).terms(images, images, q._replace(mean=mean), 0)["kl"].backward()
    assert not mean.grad.any()  # nothing pulls where all is free


def test_beta_grows_over_the_warm_up():
    elbo = Elbo(beta=4, warmup_images=100)
    assert [elbo.kl_weight(images) for images in (0, 25, 100, 500)] == [0, 1, 4, 4]
    assert Elbo(beta=4).kl_weight(0) == 4
    q, images = posterior(4), torch.zeros(4, 3, 2, 2)
    half, whole = (elbo.terms(images, images, q, at)["kl"] for at in (50, 100))
    torch.testing.assert_close(2 * half, whole)


def test_active_dimensions_are_those_whose_means_vary():
    q = Posterior(torch.tensor([[0.0, 1.0, 5.0], [0.05, -1.0, 5.0]]), torch.zeros(2, 3))
    assert Elbo().curves(torch.zeros(()), q, 12, 0)["kl/active"].item() == pytest.approx(1 / 3)


def test_a_weight_for_a_game_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match=r"^adversarial=1\.0: must be 0 unless"):
        Elbo(adversarial=1.0)
    assert Elbo(adversarial=1.0, game=hinge()).game is not None
