import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.generators.resnet import ResNet, orthogonality
from transfergen.networks.layers.class_embedding import ClassEmbedding
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d

BIGGAN = {
    "class_dim": 16,
    "hierarchical": True,
    "attention": 16,
    "spectral_norm": True,
    "orthogonal_init": True,
    "orthogonal": 1e-4,
}


def small(**settings):
    return ResNet(**{"resolution": 32, "z_dim": 10, "width": 4} | settings)


def test_parameters_are_those_of_the_papers_table_without_the_biases_that_do_nothing():
    linear = 128 * 4096 + 4096
    block = 2 * (256 + 256) + 2 * (9 * 256 * 256 + 256) + (256 * 256 + 256)
    last = (256 + 256) + (9 * 256 * 3 + 3)
    assert linear + 3 * block + last == 4_276_739
    own = sum(p.numel() for p in ResNet(resolution=32).parameters())
    assert own == 4_276_739 - 3 * 3 * 256


@pytest.mark.parametrize(
    ("resolution", "widths"),
    [
        (32, [256, 256, 256, 256]),
        (64, [512, 512, 256, 128, 64]),
        (128, [1024, 1024, 512, 256, 128, 64]),
        (256, [1024, 1024, 512, 512, 256, 128, 64]),
    ],
)
def test_channels_are_those_of_the_papers(resolution, widths):
    with torch.device("meta"):
        generator = ResNet(resolution=resolution)
    assert [block.shortcut.in_channels for block in generator.blocks] == widths[:-1]
    assert [block.shortcut.out_channels for block in generator.blocks] == widths[1:]


def as_in_the_paper(generator, z):
    """The same weights in the paper's order of operations, and with biases in each convolution."""

    def convolved(maps, layer, padding=1):
        return F.conv2d(maps, layer.weight, torch.randn_like(layer.weight[:, 0, 0, 0]), padding=padding)

    maps = generator.linear(z).view(len(z), -1, 4, 4)
    for block in generator.blocks:
        norm1, _, first, norm2, _, second = block.residual
        residual = F.interpolate(F.relu(norm1(maps)), scale_factor=2.0)
        residual = convolved(F.relu(norm2(convolved(residual, first))), second)
        maps = residual + convolved(F.interpolate(maps, scale_factor=2.0), block.shortcut, padding=0)
    return generator.to_rgb(maps)


def test_images_equal_those_of_the_papers_order_of_layers_with_biases():
    generator = ResNet(resolution=64, z_dim=6, width=2).double()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    z = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(generator(z), as_in_the_paper(generator, z))


def test_weights_start_from_the_codes_distribution():
    generator = ResNet(resolution=64)
    block = generator.blocks[1]  # 512 -> 256
    for weight, gain, fans in (
        (generator.linear.weight, 1, 128 + 512 * 16),
        (block.residual[2].weight, 2**0.5, 9 * (512 + 256)),
        (block.residual[5].weight, 2**0.5, 9 * (256 + 256)),
        (block.shortcut.weight, 1, 512 + 256),
        (generator.to_rgb[2].weight, 1, 9 * (64 + 3)),
    ):
        bound = gain * (6 / fans) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not generator.linear.bias.any()
    assert not generator.to_rgb[2].bias.any()


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_first_images_are_neither_flat_nor_saturated(resolution):
    images = ResNet(resolution=resolution, width=8)(torch.randn(16, 128))
    assert 0.3 < images.std() < 0.7
    assert images.std(dim=0).mean() > 0.3  # images differ
    assert (images.abs() > 0.98).float().mean() < 0.1


def test_parameters_of_biggan_are_those_published_without_the_biases_that_do_nothing():
    with torch.device("meta"):
        settings = BIGGAN | {"class_dim": 128, "attention": 64, "spectral_norm": False}
        generator = ResNet(resolution=128, z_dim=120, width=96, num_classes=1000, **settings)
    biases = 3 * sum(block.shortcut.out_channels for block in generator.blocks)
    assert sum(p.numel() for p in generator.parameters()) == 70_433_988 - biases  # as compare_gan's test counts them


CONDITIONAL = {"tables": {}, "embedding": {"class_dim": 16}, "biggan": BIGGAN}


@pytest.mark.parametrize("settings", CONDITIONAL.values(), ids=CONDITIONAL)
def test_images_depend_on_the_class_only_if_there_are_classes(settings):
    z, y = torch.randn(3, 10), torch.tensor([0, 4, 2])
    unconditional, conditional = small(**settings).eval(), small(num_classes=5, **settings).eval()
    assert torch.equal(unconditional(z, y), unconditional(z))
    for module in conditional.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)  # tables start all alike
    changed = (conditional(z, y) != conditional(z, torch.tensor([0, 3, 2]))).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, False]
    with pytest.raises(AssertionError, match="needs classes"):
        conditional(z)


def test_both_normalisations_of_each_block_are_conditioned_and_the_last_is_not():
    generator = small(num_classes=5, **BIGGAN)
    kinds = [type(m) for m in generator.modules() if isinstance(m, ConditionalBatchNorm2d | nn.BatchNorm2d)]
    assert kinds == 6 * [ConditionalBatchNorm2d, nn.BatchNorm2d] + [nn.BatchNorm2d]
    inputs = [b.residual[i].gain.in_features for b in generator.blocks for i in (0, 3)]
    assert inputs == [16 + 3, 16 + 3, 16 + 2, 16 + 2, 16 + 2, 16 + 2]  # of 10 in chunks of 3, 3, 2, 2
    assert [m for m in generator.modules() if isinstance(m, nn.Embedding)] == [generator.embedding]


@pytest.mark.parametrize("num_classes", [0, 5])
def test_each_chunk_of_the_latent_reaches_its_block_and_no_earlier_one(num_classes):
    generator = small(num_classes=num_classes, resolution=64, **BIGGAN).eval()
    seen = []
    for layer in (generator.linear, *generator.blocks):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    z, y = torch.randn(1, 10), torch.tensor([1])
    for chunk in range(5):
        moved = z.clone()
        moved[:, 2 * chunk : 2 * chunk + 2] += 1
        seen.clear()
        generator(z, y)
        generator(moved, y)
        same = [torch.equal(one, other) for one, other in zip(seen[:5], seen[5:], strict=True)]
        assert same == [True] * chunk + [False] * (5 - chunk)


@pytest.mark.parametrize(("resolution", "attention"), [(32, 8), (32, 32), (128, 64)])
def test_attention_is_at_the_maps_of_its_size(resolution, attention):
    generator = small(resolution=resolution, attention=attention).eval()
    shapes = []
    generator.attention.register_forward_hook(lambda layer, inputs, output: shapes.append(inputs[0].shape[2:]))
    z = torch.randn(1, 10)
    before = generator(z)
    nn.init.ones_(generator.attention.gain)
    assert (generator(z) - before).abs().max() > 1e-4
    assert shapes == [(attention, attention)] * 2


def layers_of(generator):
    return [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


def test_weights_start_orthogonal():
    generator = small(num_classes=5, **BIGGAN)
    weights = [m.parametrizations.weight.original for m in layers_of(generator)] + [generator.embedding.weight]
    for weight in weights:
        rows = weight.flatten(1)
        rows = rows if len(rows) < rows.shape[1] else rows.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_spectral_norm_holds_every_weight_but_embeddings():
    generator = small(num_classes=5, class_dim=16, attention=16, spectral_norm=True)
    for layer in layers_of(generator):
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(7)
        for _ in range(50):
            weight = layer.weight  # a step of the power iteration each
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert type(generator.embedding) is ClassEmbedding


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (9, 4)])
def test_orthogonality_is_the_papers_formula(shape):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    products = weight.flatten(1) @ weight.flatten(1).T
    expected = (products * (1 - torch.eye(len(weight)))).norm() ** 2
    torch.testing.assert_close(orthogonality(weight), expected)
    assert torch.autograd.gradcheck(orthogonality, weight)


def test_orthogonal_filters_of_any_norm_cost_nothing_in_mixed_precision_too():
    weight = nn.init.orthogonal_(torch.empty(64, 32, 3, 3)) * torch.linspace(0.5, 2, 64)[:, None, None, None]
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert abs(orthogonality(weight)) < 1e-3
            assert orthogonality(weight + 0.1) > 1


def test_regularization_is_over_all_weights_but_embeddings_before_spectral_norm():
    assert small().regularization() is None
    generator = small(num_classes=5, **BIGGAN)
    weights = [m.parametrizations.weight.original for m in layers_of(generator)]
    expected = 1e-4 * sum(orthogonality(weight) for weight in weights)
    before = [buffer.clone() for buffer in generator.buffers()]
    torch.testing.assert_close(generator.regularization(), expected)
    assert all(map(torch.equal, before, generator.buffers()))
    generator.regularization().backward()
    assert {p for p in generator.parameters() if p.grad is not None} == set(weights)


@pytest.mark.parametrize("settings", CONDITIONAL.values(), ids=CONDITIONAL)
def test_saved_weights_make_the_same_images(settings):
    trained, loaded = (small(num_classes=5, **settings) for _ in range(2))
    z, y = torch.randn(4, 10), torch.arange(4)
    trained(z, y)  # moves the running statistics and the power iteration
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.eval()(z, y), trained.eval()(z, y))


def test_all_of_it_trains():
    generator = small(num_classes=5, **BIGGAN)
    nn.init.ones_(generator.attention.gain)
    generator(torch.randn(4, 10), torch.arange(4)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in generator.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attention": 4}, r"^attention=4: the maps are 8, 16, 32 px"),
        ({"hierarchical": True, "z_dim": 3}, r"^z_dim=3: a hierarchical latent has 4 chunks"),
        ({"hierarchical": True, "num_classes": 5}, r"^class_dim=0: a hierarchical latent is joined to"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_biases_are_where_the_papers_table_has_them():
    generator = ResNet(resolution=32, bias=True)
    assert sum(p.numel() for p in generator.parameters()) == 4_276_739
    assert not any(block.shortcut.bias.any() for block in generator.blocks)  # at the start
    z = torch.randn(3, 128)
    before = generator.eval()(z)
    nn.init.ones_(generator.blocks[0].residual[2].bias)
    assert not torch.equal(generator(z), before)


def test_channels_may_be_other_multiples_of_the_width():
    generator = small(resolution=64, multiples=[16, 8, 4, 2, 1])
    assert [block.shortcut.in_channels for block in generator.blocks] == [64, 32, 16, 8]
    assert generator(torch.randn(2, 10)).shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"multiples=\[4, 4\]: give 4 for 32 px"):
        small(multiples=[4, 4])


def test_eps_is_that_of_all_batch_normalisations():
    for settings in ({}, {"num_classes": 3}, BIGGAN | {"num_classes": 3}):
        norms = [m for m in small(eps=1e-3, **settings).modules() if isinstance(m, nn.BatchNorm2d)]
        assert {norm.eps for norm in norms} == {1e-3}
        assert len(norms) == 7
