import pytest
import torch
from trunks import trunk

from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.freeze_schedule import GROWTH_IMAGES, FreezeSchedule
from transfergen.transfer.strategy import Strategy


class Reals:
    """Real images that are all zero, and how often their kept features were thrown away."""

    cleared = 0

    def sample_images(self, count, seed, device):
        return torch.zeros(count, 3, 32, 32, device=device)

    def clear_cache(self):
        self.cleared += 1


class Growing(Discriminator):
    """Grows at 0, 10 and 20 images seen, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.shown = []

    @property
    def grows_at(self):
        return 10 * len(self.shown)

    def grow(self, real, fake):
        self.shown.append((real, fake))


def schedule(discriminator, reals, **transfer):
    generator = DCGAN(resolution=32, z_dim=8, width=4)
    return FreezeSchedule(generator, discriminator, Strategy(**transfer), reals, seed=3), generator


def training(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_blocks_of_the_trunk_are_released_one_by_one_and_kept_features_are_thrown_away_each_time():
    discriminator, reals = VGGDiscriminator(trunk(), resolution=32, width=4, hidden=6), Reals()
    plan, generator = schedule(discriminator, reals, trunk="gradual", unfreeze_every_images=10)
    seen = {}
    for images in (0, 9, 10, 15, 20, 30, 99):
        plan.update(images, generator)
        seen[images] = (discriminator.frozen_blocks, reals.cleared)
    assert [frozen for frozen, _ in seen.values()] == [3, 3, 2, 2, 1, 0, 0]
    cleared = [times - seen[0][1] for _, times in seen.values()]
    assert cleared == [0, 0, 1, 1, 2, 3, 3]


def test_a_resumed_run_goes_straight_to_where_it_was():
    one, other = (VGGDiscriminator(trunk(), resolution=32, width=4, hidden=6) for _ in range(2))
    for discriminator, moments in ((one, (0, 10, 20)), (other, (20,))):
        plan, generator = schedule(discriminator, Reals(), trunk="gradual", unfreeze_every_images=10)
        for images in moments:
            plan.update(images, generator)
    assert one.frozen_blocks == other.frozen_blocks == 1
    assert training(one) == training(other)


def test_blocks_of_the_generator_are_released_from_the_pixels_on():
    plan, generator = schedule(Discriminator(), Reals(), generator="gradual", unfreeze_every_images=10)
    counts = []
    for images in (0, 10, 20, 1000):
        plan.update(images, generator)
        counts.append(len(training(generator)))
    assert counts == sorted(set(counts))
    assert counts[-1] == len(list(generator.parameters()))


@pytest.mark.parametrize(("images", "times"), [(0, 1), (9, 1), (10, 2), (25, 3)])
def test_a_discriminator_grows_as_often_as_is_due_on_images_of_the_moving_average(images, times):
    discriminator, reals = Growing(), Reals()
    plan, _ = schedule(discriminator, reals)
    average = DCGAN(resolution=32, z_dim=8, width=4).eval()
    plan.update(images, average)
    assert (len(discriminator.shown), reals.cleared) == (times, times)
    real, fake = discriminator.shown[0]
    assert len(real) == len(fake) == GROWTH_IMAGES
    assert all(torch.equal(fake, again) for _, again in discriminator.shown)
    assert not fake.requires_grad
