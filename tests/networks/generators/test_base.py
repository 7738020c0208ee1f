import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.generators.base import Generator, latents, sample
from transfergen.networks.layers.resampling import ProjectAndReshape


class Told(Generator):
    """Images that show the class they were asked for."""

    z_dim, resolution, num_classes = 4, 2, 10

    def forward(self, z, y=None):
        assert not self.training
        return y[:, None, None, None].expand(-1, 3, 2, 2).float()


def shown(*args, **options):
    return sample(Told(), *args, torch.device("cpu"), **options)[:, 0, 0, 0].int().tolist()


def test_truncated_latents_stay_within_the_bound_and_depend_on_their_seed_alone():
    z = latents(range(50), 20, truncation=0.5)
    assert z.abs().max() <= 0.5
    assert abs(z.std().item() - 0.28) < 0.02  # of a normal distribution cut off at half a deviation
    assert torch.equal(latents([7], 20, truncation=0.5)[0], z[7])
    assert latents(range(50), 20).abs().max() > 2


def test_classes_follow_the_seeds_whatever_the_batch():
    assert shown(range(8, 13)) == [8, 9, 0, 1, 2] == shown(range(8, 13), batch_size=2)
    assert shown(range(5), classes=[7, 2]) == [7, 2, 7, 2, 7]


def test_project_and_reshape_is_the_transposed_convolution_of_a_pixel():
    layer, z = ProjectAndReshape(5, 6).to(memory_format=torch.channels_last), torch.randn(3, 5)
    expected = F.conv_transpose2d(z[:, :, None, None], layer.weight)
    torch.testing.assert_close(layer(z), expected)
    assert isinstance(layer, nn.ConvTranspose2d)  # whose weights a published DCGAN has
