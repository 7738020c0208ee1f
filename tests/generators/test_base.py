import torch

from transfergen.generators.base import Generator, latents, sample


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
