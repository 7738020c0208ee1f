import pytest
import torch

from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.layers.truncation_norm import TruncationBatchNorm2d, interpolate_rows


def small(**settings):
    return BigGANDeep(**{"z_dim": 6, "width": 4, "num_classes": 3, "class_dim": 5} | settings)


@pytest.mark.parametrize("resolution", [128, 256, 512])
def test_images_have_the_declared_size_and_range(resolution):
    generator = small(resolution=resolution)
    with torch.no_grad():
        images = generator(torch.randn(2, 6), torch.tensor([0, 2]))
    assert images.shape == (2, 3, resolution, resolution)
    assert images.abs().max() <= 1


def test_every_weight_gets_a_gradient_and_the_two_inputs_matter():
    generator = small()
    torch.nn.init.ones_(generator.attention.gain)
    z, y = torch.randn(2, 6), torch.tensor([0, 2])
    images = generator(z, y)
    images.square().sum().backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()] == []
    generator.eval()
    assert not torch.equal(generator(z, y), generator(z, y.flip(0)))
    assert not torch.equal(generator(z, y), generator(-z, y))


def test_without_classes_one_embedding_is_learnt_for_all_images():
    generator = small(num_classes=0)
    images = generator(torch.randn(2, 6))
    assert torch.equal(generator.eval()(torch.ones(2, 6)), generator(torch.ones(2, 6), torch.tensor([1, 7])))
    images.sum().backward()
    assert generator.embedding.weight.shape == (1, 5)
    assert generator.embedding.weight.grad.any()


def test_truncated_latents_are_scaled_and_bounded_at_two_deviations():
    z = small(z_dim=200).latents(range(50), 0.4)
    assert z.abs().max() <= 0.8
    assert z.std().item() == pytest.approx(0.4 * 0.8796, abs=0.01)
    assert torch.equal(small(z_dim=200).latents([7], 0.4)[0], z[7])
    assert small(z_dim=200).latents(range(50)).abs().max() > 2


def test_sizes_that_cannot_be_are_refused_by_name():
    with pytest.raises(ValueError, match="resolution=64: choose 128, 256 or 512"):
        small(resolution=64)
    with pytest.raises(ValueError, match=r"width=6: .* multiple of 4"):
        small(width=6)


def test_rows_between_two_truncations_are_weighted_by_their_distance():
    table = torch.arange(51.0)[:, None]
    for truncation in (0.0, 0.14, 0.28, 0.401, 0.58, 0.94, 1.0):
        assert interpolate_rows(table, truncation).item() == pytest.approx(50 * truncation, abs=1e-4)
    assert interpolate_rows(table, 3.0).item() == 50


def test_norm_with_tables_uses_them_in_eval_mode_under_a_truncation_only():
    norm = TruncationBatchNorm2d(2, eps=1e-9, statistics=3, affine=False).eval()
    norm.means.copy_(torch.tensor([[0.0], [1.0], [2.0]]).expand(3, 2))
    maps = torch.full((1, 2, 1, 1), 5.0)
    assert norm(maps).flatten().tolist() == [5, 5]
    norm.truncation = 0.75
    assert norm(maps).flatten().tolist() == [3.5, 3.5]
    varied = torch.randn(4, 2, 3, 3)
    assert norm.train()(varied).mean().abs() < 1e-6  # by the batch's own statistics
