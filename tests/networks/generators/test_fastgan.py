import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.generators.fastgan import GLU, Excitation, FastGAN, Noise


def test_channels_are_those_of_the_paper_with_a_second_convolution_in_every_other_block():
    with torch.device("meta"):
        generator = FastGAN(resolution=1024)
    assert generator(torch.zeros(2, 256, device="meta")).shape == (2, 3, 1024, 1024)
    convolutions = [m for m in generator.blocks.modules() if isinstance(m, nn.Conv2d)]
    outputs = [512, 512, 256, 128, 128, 128, 64, 64, 32, 16, 16, 8]
    assert [m.in_channels for m in convolutions] == [1024, 512, 512, 256, 128, 128, 128, 64, 64, 32, 16, 16]
    assert [m.out_channels for m in convolutions] == [2 * c for c in outputs]  # the gates' half
    assert all(m.bias is None for m in convolutions)
    assert [len(m.constant[0, 0]) for m in generator.modules() if isinstance(m, Noise)] == [
        8,
        8,
        32,
        32,
        128,
        128,
        512,
        512,
    ]
    assert {size: module.layers[1].in_channels for size, module in generator.excitations.items()} == {
        "64": 1024,
        "128": 512,
        "256": 256,
        "512": 128,
    }  # of the maps of 4, 8, 16 and 32 px


def test_the_release_of_projected_gan_has_a_second_convolution_in_each_block_latents_on_a_sphere_and_no_bounds():
    generator = FastGAN(resolution=64, width=4, second_convolutions=True, hypersphere=True, bounded=False)
    sizes = [len(m.constant[0, 0]) for m in generator.modules() if isinstance(m, Noise)]
    assert sizes == [8, 8, 16, 16, 32, 32, 64, 64]
    generator.to_rgb.bias.data.fill_(1.5)
    z = torch.randn(4, 256)
    assert generator(z).max() > 1
    images = generator.eval()(z)
    assert images.max() == 1
    torch.testing.assert_close(images, generator(3 * z))


@pytest.mark.parametrize(
    ("resolution", "skips"), [(32, {32: 4}), (64, {64: 4}), (128, {64: 4, 128: 8}), (256, {64: 4, 128: 8, 256: 16})]
)
def test_low_maps_scale_the_channels_of_high_ones(resolution, skips):
    generator = FastGAN(resolution=resolution, width=4)
    z = torch.randn(2, 256)
    seen = {}
    for size, module in generator.excitations.items():
        module.register_forward_hook(lambda m, args, out, size=int(size): seen.update({size: (args[0], out)}))
    generator(z)
    assert {size: low.shape[-1] for size, (low, _) in seen.items()} == skips
    for _, factors in seen.values():
        assert ((factors > 0) & (factors < 1)).all()
        assert (factors[0] != factors[1]).all()  # each image has its own
    for module in generator.excitations.values():
        module.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
    assert not generator(z).any()  # no channel gets past a gate that is shut


def test_excitation_has_the_whole_low_map_in_view():
    excitation = Excitation(3, 5)
    low = torch.randn(1, 3, 8, 8, requires_grad=True)
    factors = excitation(low)
    assert factors.shape == (1, 5, 1, 1)
    factors.sum().backward()
    assert low.grad.all()


def noisy(**settings):
    generator = FastGAN(resolution=32, width=4, **settings)
    for module in generator.modules():
        if isinstance(module, Noise):
            nn.init.ones_(module.factor)
    return generator


def test_noise_is_new_at_each_pass_in_training_and_constant_in_eval_mode():
    generator, z = noisy(), torch.randn(4, 256)
    assert not torch.equal(generator(z), generator(z))
    generator.eval()
    images = generator(z)
    assert torch.equal(images, generator(z))
    torch.testing.assert_close(images[1:2], generator(z[1:2]))  # whatever else is in the batch
    loaded = noisy().eval()
    loaded.load_state_dict(generator.state_dict())
    assert torch.equal(images, loaded(z))  # the noise is saved with the weights
    for module in generator.modules():
        if isinstance(module, Noise):
            nn.init.zeros_(module.factor)
    assert not torch.equal(images, generator(z))


def test_noise_is_one_map_for_all_channels_of_an_image_and_starts_from_nothing():
    noise, maps = Noise((6, 6)), torch.zeros(3, 4, 6, 6)
    assert torch.equal(noise(maps), maps)
    nn.init.constant_(noise.factor, 2.0)
    added = noise(maps)
    assert torch.equal(added, added[:, :1].expand_as(added))
    assert not torch.equal(added[0], added[1])
    assert added.std().item() == pytest.approx(2, rel=0.3)


def test_gated_linear_unit_is_torchs():
    maps = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(GLU()(maps), F.glu(maps, dim=1))


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_first_images_are_neither_flat_nor_saturated(resolution):
    images = FastGAN(resolution=resolution, width=8)(torch.randn(16, 256))
    assert 0.15 < images.std() < 0.7
    assert images.std(dim=0).mean() > 0.15  # images differ
    assert (images.abs() > 0.98).float().mean() < 0.1
