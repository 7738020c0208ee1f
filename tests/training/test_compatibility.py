import pytest
from trunks import trunk as small_trunk

from transfergen.image_shape import image_shape
from transfergen.losses.adversarial import hinge
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.targets import trust
from transfergen.training.augmentation import Augmentation
from transfergen.training.compatibility import (
    check_batch_size,
    check_game,
    check_generator_shape,
    check_no_game,
    check_shape,
    check_start,
)
from transfergen.transfer.strategy import Strategy


def check(trunk):
    generator = DCGAN(resolution=32, width=4)
    discriminator = ProjectedDiscriminator(small_trunk(), resolution=32, channels=4, width=4)
    check_game(generator, discriminator, hinge(), Augmentation(), Strategy(trunk=trunk), 1, False)


@pytest.mark.parametrize("trunk", ["trainable", "last_k", "gradual"])
def test_a_trunk_that_cannot_train_is_refused_with_what_to_set(trunk):
    check("frozen")
    with pytest.raises(ValueError, match=rf"^transfer\.trunk={trunk}: .*stays frozen; set transfer\.trunk=frozen"):
        check(trunk)


def test_a_generator_with_statistics_of_many_truncations_is_not_trained():
    generator = BigGANDeep(resolution=128, z_dim=4, width=4, class_dim=4, statistics=3)
    discriminator = DCGANDiscriminator(resolution=128, width=4)
    with pytest.raises(ValueError, match=r"^generator\.statistics: .*; set generator\.statistics=0"):
        check_game(generator, discriminator, hinge(), Augmentation(), Strategy(), 1, False)


def test_a_batch_too_small_for_a_strategys_losses_is_refused():
    strategy = Strategy()
    check_batch_size(strategy, 1)
    strategy.min_images = 3
    check_batch_size(strategy, 3)
    with pytest.raises(ValueError, match=r"^data\.batch_size=2: .* 3 images or more; set at least"):
        check_batch_size(strategy, 2)


def test_a_batch_that_does_not_split_into_parts_is_refused():
    strategy = Strategy()
    check_batch_size(strategy, 8, ranks=2, parts=2)
    for images, ranks, parts in ((8, 1, 3), (8, 1, 8), (8, 2, 4)):
        refused = rf"^optimizer\.accumulate={parts}: data\.batch_size={images} over {ranks} device"
        with pytest.raises(ValueError, match=refused):
            check_batch_size(strategy, images, ranks=ranks, parts=parts)
    strategy.min_images = 3
    with pytest.raises(ValueError, match=r"^data\.batch_size=4: .* 3 images or more in each of .* set at least 6"):
        check_batch_size(strategy, 4, parts=2)


@pytest.mark.parametrize(
    ("remedy", "given"),
    [
        ("transfer.trunk=frozen", {"transfer": Strategy(trunk="trainable")}),
        ("transfer.last_k=1", {"transfer": Strategy(last_k=2)}),
        ("transfer.unfreeze_every_images=100000", {"transfer": Strategy(unfreeze_every_images=1)}),
        ("transfer.cache_mib=2048", {"transfer": Strategy(cache_mib=0)}),
        ("transfer.trunk_lr_scale=1.0", {"transfer": Strategy(trunk_lr_scale=0.1)}),
        ("transfer.freeze_d=0", {"transfer": Strategy(freeze_d=1)}),
        ("transfer.generator=all", {"transfer": Strategy(generator="norms")}),
        ("transfer.generator_last_k=1", {"transfer": Strategy(generator_last_k=2)}),
        ("transfer.generator_lr_scale=1.0", {"transfer": Strategy(generator_lr_scale=0.1)}),
        ("optimizer.d_steps=1", {"d_steps": 2}),
        ("optimizer.extrapolation=0", {"extrapolation": 0.5}),
        ("optimizer.simultaneous=false", {"simultaneous": True}),
        ("optimizer.accumulate=1", {"accumulate": 2}),
    ],
)
def test_a_plain_vae_refuses_what_it_would_ignore(remedy, given):
    ordinary = {"discriminator": None, "augment": Augmentation(colour=0, translation=0, cutout=0)}
    ordinary |= {"d_steps": 1, "extrapolation": 0.0, "simultaneous": False, "accumulate": 1}
    ordinary |= {"transfer": Strategy(new_classes="mixture")}  # which it uses
    check_no_game(**ordinary)
    with pytest.raises(ValueError, match=rf"^{remedy.partition('=')[0]}: a plain VAE .*; set {remedy}, or"):
        check_no_game(**ordinary | given)


class Squares(DCGAN):
    """A generator of a user's own, which knows of neither aspects nor channels."""

    def __init__(self, *, resolution: int = 32) -> None:
        super().__init__(resolution=resolution, width=4)


def test_a_network_for_squares_or_rgb_alone_says_so():
    target = f"{__name__}.Squares"
    trust([target])
    networks = {"generator": {"_target_": target}, "discriminator": {}}
    check_shape(image_shape(32), networks)
    check_generator_shape(Squares(), image_shape(32))
    with pytest.raises(ValueError, match=r"^data\.aspect: Squares is for squares only; set data\.aspect=\[1,1\], or "):
        check_shape(image_shape(32, (2, 1)), networks)
    with pytest.raises(
        ValueError, match=r"^data\.channels=1: Squares is for 3 channels only; set data\.channels=3, or"
    ):
        check_shape(image_shape(32, channels=1), networks)
    with pytest.raises(
        ValueError, match=r"images are 64x32 px, RGBA .* set data\.aspect=\[1,1\] data\.channels=3, or "
    ):
        check_generator_shape(Squares(), image_shape(32, (2, 1), 4))


@pytest.mark.parametrize(
    ("settings", "sources", "warned"),
    [
        ({"generator": "norms"}, {}, "transfer.generator=norms"),
        ({"generator": "norms"}, {"discriminator": "run"}, "transfer.generator=norms"),
        ({"generator": "norms"}, {"generator": "run"}, None),
        ({"generator": "norms", "source": "run"}, {}, None),
        ({"freeze_d": 2}, {"generator": "run"}, "transfer.freeze_d=2"),
        ({"freeze_d": 2}, {"discriminator": "run"}, None),
        ({}, {}, None),
    ],
)
def test_random_weights_that_are_to_stay_are_warned_of(caplog, settings, sources, warned):
    init_from = {"generator": None, "discriminator": None} | sources
    check_start({"generator": "all", "freeze_d": 0} | settings, init_from)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ([warned] if warned else [])


def test_a_generator_with_two_sources_is_refused():
    with pytest.raises(ValueError, match=r"^init_from\.generator=a: .* transfer\.source=b; leave it out$"):
        check_start({"source": "b"}, {"generator": "a", "discriminator": None})
