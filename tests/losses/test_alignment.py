import math

import pytest
import torch
from torch import tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from transfergen.losses.alignment import coral, cross_domain_consistency, gradient_reversal, mmd


def samples():
    return torch.randn(6, 3, dtype=torch.double), torch.randn(4, 3, dtype=torch.double) + 1


def test_mmd_is_that_of_all_pairs():
    a, b = samples()
    rows = [*a, *b]
    pairs = [(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
    unit = sum((x - y).square().sum() for x, y in pairs) / len(pairs)

    def kernel(x, y):
        return sum(math.exp(-(x - y).square().sum() / (s * unit)) for s in (0.25, 0.5, 1, 2, 4)) / 5

    def mean(rows, others):
        values = [
            kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(others) if rows is not others or i != j
        ]
        return sum(values) / len(values)

    expected = mean(a, a) + mean(b, b) - 2 * mean(a, b)
    assert mmd(a, b).item() == pytest.approx(expected, rel=1e-9)


def test_mmd_is_0_on_average_for_equal_distributions_and_grows_with_their_difference():
    values = torch.stack([mmd(torch.randn(50, 4), torch.randn(50, 4)) for _ in range(40)])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    a = torch.randn(50, 4)
    shifts = [mmd(a, torch.randn(50, 4) + shift).item() for shift in (0.0, 0.5, 1.0)]
    assert shifts == sorted(shifts)
    assert mmd(torch.ones(3, 2), torch.ones(4, 2)).item() == 0


def test_coral_is_that_of_the_covariances():
    a, b = samples()

    def covariance(x):
        centred = x - x.mean(dim=0)
        return sum(torch.outer(row, row) for row in centred) / (len(x) - 1)

    expected = (covariance(a) - covariance(b)).square().sum() / (4 * 3**2)
    assert coral(a, b).item() == pytest.approx(expected.item(), rel=1e-9)
    assert coral(a, a + 5).item() == pytest.approx(0, abs=1e-12)


def test_consistency_by_hand():
    # Three rows: each has two others, and the softmax of two similarities s, t is sigmoid(s - t).
    source = tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    target = tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])

    def others(rows):
        unit = rows / rows.norm(dim=1, keepdim=True)
        similarities = unit @ unit.T
        return [[similarities[i, j].item() for j in range(3) if j != i] for i in range(3)]

    expected = 0.0
    for (s, t), (u, v) in zip(others(source), others(target), strict=True):
        p, q = 1 / (1 + math.exp(t - s)), 1 / (1 + math.exp(v - u))
        expected += (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))) / 3
    assert cross_domain_consistency(source, target).item() == pytest.approx(expected, rel=1e-5)


def test_consistency_depends_only_on_similarities_within_each_set():
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    order = torch.randperm(5)
    rotation, _ = torch.linalg.qr(torch.randn(4, 4))
    assert cross_domain_consistency(a, 3 * a @ rotation).item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(cross_domain_consistency(a[order], b[order]), cross_domain_consistency(a, b))
    assert cross_domain_consistency(a, b) > 0


@pytest.mark.parametrize(("loss", "rows"), [(mmd, 1), (coral, 1), (cross_domain_consistency, 2)])
def test_too_few_rows_to_compare_are_refused(loss, rows):
    with pytest.raises(ValueError, match=rf"{loss.__name__} needs .* rows or more.* not {rows}"):
        loss(torch.randn(rows, 4), torch.randn(rows, 4))


def test_losses_of_alignment_have_the_gradients_of_finite_differences():
    a, b = (x.requires_grad_(True) for x in samples())
    for loss in (coral, lambda x, y: cross_domain_consistency(x[:4], y)):
        assert torch.autograd.gradcheck(loss, (a, b.detach()[: len(b)]) if loss is coral else (a, b))


def test_gradient_reversal_changes_the_gradient_alone():
    x = torch.randn(3, 2, requires_grad=True)
    assert torch.equal(gradient_reversal(x), x)
    (gradient_reversal(x, scale=0.5) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, -0.5 * 2 * x.detach())


@pytest.mark.parametrize("loss", [mmd, coral, cross_domain_consistency])
def test_a_loss_reads_no_value_for_which_a_gpu_would_have_to_be_waited_for(loss):
    with FakeTensorMode():  # in which tensors have no values
        assert loss(torch.zeros(6, 4), torch.zeros(6, 4)).shape == ()
