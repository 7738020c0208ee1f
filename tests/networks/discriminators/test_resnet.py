import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.layers.attention import SelfAttention
from transfergen.networks.layers.resampling import DownsampledConv2d

SETTINGS = {
    "sngan": {},
    "sagan": {"attention": 16},
    "biggan": {"attention": 16, "orthogonal_init": True},
    "wgan_gp": {"spectral_norm": False},
}


def small(**settings):
    return ResNetDiscriminator(**{"resolution": 32, "width": 4} | settings)


def convolutions(d):
    return [m for m in d.modules() if isinstance(m, nn.Conv2d)]


def test_parameters_of_biggan_are_those_published():
    with torch.device("meta"):
        d = ResNetDiscriminator(resolution=128, width=96, num_classes=1000, attention=64, spectral_norm=False)
    assert sum(p.numel() for p in d.parameters()) == 87_982_370  # as compare_gan's test counts them


@pytest.mark.parametrize(
    ("resolution", "shapes"),
    [
        (32, [(128, 16), (128, 8), (128, 8), (128, 8)]),
        (64, [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 4)]),
        (128, [(64, 64), (128, 32), (256, 16), (512, 8), (1024, 4), (1024, 4)]),
        (256, [(64, 128), (128, 64), (256, 32), (512, 16), (512, 8), (1024, 4), (1024, 4)]),
    ],
)
def test_channels_and_sizes_are_those_of_the_papers(resolution, shapes):
    with torch.device("meta"):
        maps = torch.empty(1, 3, resolution, resolution)
        blocks = ResNetDiscriminator(resolution=resolution, spectral_norm=False).layers[:-1]
    seen = []
    for block in blocks:
        maps = block(maps)
        seen.append((maps.shape[1], maps.shape[2]))
    assert seen == shapes


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_downsampled_convolution_is_one_and_average_pooling_to_the_border_and_in_its_gradients(memory_format):
    layer = DownsampledConv2d(3, 5, 3, padding=1).double().to(memory_format=memory_format)
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    plain = F.avg_pool2d(F.conv2d(maps, layer.weight, layer.bias, padding=1), 2)
    fused = layer(maps)
    torch.testing.assert_close(fused, plain)
    inputs, outer = [maps, *layer.parameters()], torch.randn_like(plain)
    expected = torch.autograd.grad(plain, inputs, outer)
    torch.testing.assert_close(torch.autograd.grad(fused, inputs, outer), expected)


def vectors_in_the_papers_order(d, images, *, join):
    """The same weights in SNGAN's order of operations."""
    maps = images
    for i, block in enumerate(d.layers[:-1]):
        first, second = (m for m in block.residual if isinstance(m, nn.Conv2d))
        residual = F.conv2d(F.relu(maps) if i else maps, first.weight, first.bias, padding=1)
        residual = F.conv2d(F.relu(residual), second.weight, second.bias, padding=1)
        if isinstance(block.shortcut, nn.Conv2d):
            maps = F.conv2d(maps, block.shortcut.weight, block.shortcut.bias)
        if i < 2:
            residual, maps = F.avg_pool2d(residual, 2), F.avg_pool2d(maps, 2)
        maps = maps + residual
    return join(F.relu(maps), dim=(2, 3))


@pytest.mark.parametrize(("spectral_norm", "join"), [(True, torch.sum), (False, torch.mean)])
def test_logit_is_the_papers_with_the_projection_worked_by_hand(spectral_norm, join):
    d = small(num_classes=3, spectral_norm=spectral_norm).eval()
    for convolution in convolutions(d):
        nn.init.normal_(convolution.bias)
    images, y = torch.rand(4, 3, 32, 32) * 2 - 1, torch.tensor([2, 0, 1, 2])
    vectors = vectors_in_the_papers_order(d, images, join=join)
    expected = torch.stack(
        [
            (v * (d.linear.weight[0] + d.embedding.weight[c])).sum() + d.linear.bias[0]
            for v, c in zip(vectors, y, strict=True)
        ]
    )
    torch.testing.assert_close(d(images, y), expected[:, None], rtol=1e-4, atol=1e-4)


def test_class_is_looked_at_only_if_there_are_classes():
    images, y = torch.rand(3, 3, 32, 32), torch.tensor([0, 4, 2])
    unconditional, conditional = small().eval(), small(num_classes=5).eval()
    assert (unconditional.num_classes, conditional.num_classes) == (0, 5)
    assert torch.equal(unconditional(images, y), unconditional(images))
    changed = conditional(images, y) != conditional(images, torch.tensor([0, 3, 2]))
    assert changed.flatten().tolist() == [False, True, False]
    with pytest.raises(AssertionError, match="needs classes"):
        conditional(images)


@pytest.mark.parametrize(("resolution", "attention"), [(32, 8), (64, 32), (128, 4)])
def test_attention_is_at_the_maps_of_its_size(resolution, attention):
    d = small(resolution=resolution, attention=attention)
    (layer,) = [m for m in d.layers if isinstance(m, SelfAttention)]
    shapes = []
    layer.register_forward_hook(lambda layer, inputs, output: shapes.append(inputs[0].shape[2:]))
    d(torch.rand(1, 3, resolution, resolution))
    assert shapes == [(attention, attention)]


def test_spectral_norm_holds_every_weight():
    d = small(num_classes=3, attention=16)
    layers = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 8 + 2 + 4 + 2
    for layer in layers:
        with torch.no_grad():
            layer.parametrizations.weight.original.mul_(7)
        for _ in range(50):
            weight = layer.weight  # a step of the power iteration each
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert not [name for name, _ in small(spectral_norm=False).named_parameters() if "parametrizations" in name]


def test_weights_start_orthogonal_or_from_the_codes_distribution():
    for layer in convolutions(small(orthogonal_init=True, spectral_norm=False)):
        rows = layer.weight.flatten(1)
        rows = rows if len(rows) < rows.shape[1] else rows.T
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
    block = small(width=64, spectral_norm=False).layers[1]
    for weight, gain, fans in (
        *((m.weight, 2**0.5, 2 * 9 * 128) for m in convolutions(block.residual)),
        (block.shortcut.weight, 1, 2 * 128),
    ):
        assert weight.abs().max().item() == pytest.approx(gain * (6 / fans) ** 0.5, rel=0.01)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_all_of_it_trains_and_the_lowest_layers_can_be_frozen(settings):
    d = small(num_classes=3, **settings)
    images, y = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    if "attention" in settings:
        nn.init.ones_(d.layers[1].gain)
    d(images, y).square().sum().backward()
    assert {p for p in d.parameters() if p.grad.abs().sum() > 0} == set(d.trainable_parameters())
    layers = d.lowest_layers()
    assert layers == list(d.layers[:-1])
    for layer in layers[:2]:
        layer.requires_grad_(False)
    d.zero_grad()
    d(images, y).square().sum().backward()
    frozen = {p for layer in layers[:2] for p in layer.parameters()}
    assert {p for p in d.parameters() if p.grad is None} == frozen


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_gradient_penalty_reaches_its_weights(settings):
    d = small(num_classes=3, **settings)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(d(images, torch.tensor([0, 1])).sum(), images, create_graph=True)
    (gradient.flatten(1).norm(dim=1) - 1).square().mean().backward()
    weights = [p for m in (d.layers[0], d.linear, d.embedding) for p in m.parameters() if p.ndim > 1]
    assert len(weights) == 3 + 1 + 1
    assert all(p.grad.isfinite().all() and p.grad.any() for p in weights)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_saved_weights_give_the_same_logits(settings):
    trained, loaded = (small(num_classes=3, **settings) for _ in range(2))
    images, y = torch.rand(2, 3, 32, 32), torch.tensor([0, 2])
    trained(images, y)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.eval()(images, y), trained.eval()(images, y))


def test_attention_at_a_size_that_no_map_has_is_refused():
    with pytest.raises(ValueError, match=r"^attention=32: the maps are 16, 8 px"):
        small(attention=32)
