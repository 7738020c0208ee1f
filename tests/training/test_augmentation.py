import pytest
import torch
from ranks import on_two_ranks
from torch import nn
from torch.nn import functional as F

from transfergen.training.augmentation import AdaptiveAugmentation, Augmentation, cut_out, move, recolour

OFF = {"colour": 0, "translation": 0, "cutout": 0}
EACH = [{"colour": 1}, {"translation": 0.25}, {"cutout": 0.5}, {"flip": True}]


def only(**options):
    return Augmentation(**(OFF | options))


def pictures(count=64, size=16):
    return torch.rand(count, 3, size, size) * 1.8 - 0.9


def share_changed(augment, images):
    """The share of the images that augmentation changes, 0 to 1."""
    return (augment(images) != images).flatten(1).any(1).float().mean().item()


def test_colours_are_changed_as_by_the_three_steps_one_after_the_other():
    images, (b, s, c) = pictures(), (torch.rand(3, 64) * 2 - 1)
    expected = images + b[:, None, None, None] / 2
    grey = expected.mean(1, keepdim=True)
    expected = (expected - grey) * (1 + s)[:, None, None, None] + grey
    mean = expected.mean((1, 2, 3), keepdim=True)
    expected = (expected - mean) * (1 + c / 2)[:, None, None, None] + mean
    torch.testing.assert_close(recolour(images, b, s, c), expected)


def test_move_is_by_whole_pixels_after_mirroring_and_brings_in_zeros():
    image = torch.arange(1.0, 10).view(1, 1, 3, 3).repeat(2, 2, 1, 1)
    image[:, 1] *= 10
    moved = move(image, torch.tensor([False, True]), torch.tensor([[1, 0], [-1, 1]]))
    assert moved[0, 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert moved[1, 1].tolist() == [[0, 30, 20], [0, 60, 50], [0, 90, 80]]


def test_cut_out_takes_a_square_and_what_of_it_lies_in_the_image():
    cut = cut_out(torch.ones(3, 2, 4, 4), torch.tensor([[1, -1, 0], [2, 2, 0]]), torch.tensor([[2, 2, 0]] * 2))
    assert cut[0, 0].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    assert cut[1, 1].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert cut[2].all()


def test_ranges_are_the_papers():
    ones = torch.ones(4000, 3, 8, 8)
    brightness = only(colour=1)(ones).mean((1, 2, 3)) - 1  # saturation and contrast keep the mean
    assert (brightness.min().item(), brightness.max().item()) == pytest.approx((-0.5, 0.5), abs=0.01)
    assert brightness.mean().item() == pytest.approx(0, abs=0.02)

    moved = only(translation=0.25)(ones)[:, 0] != 0
    for axis in (1, 2):
        lines = moved.any(axis)  # a block of 6, 7 or 8 of them that touches one border
        moves = lines.sum(1) - 8
        moves[lines[:, 0]] *= -1
        counts = torch.stack([(moves == m).sum() for m in range(-2, 3)])
        assert counts.sum() == 4000
        assert counts.min() > 700  # of 800 expected

    holes = (only(cutout=0.5)(ones)[:, 0] == 0).sum((1, 2))
    sides = torch.tensor([2, 3, 4, 4, 4, 4, 4, 3, 2]).float().mean()  # by the nine places of its centre
    assert holes.float().mean().item() == pytest.approx(sides.item() ** 2, rel=0.02)
    assert holes.min() == 4
    assert holes.max() == 16


@pytest.mark.parametrize("options", EACH, ids=lambda o: next(iter(o)))
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_each_transform_is_applied_to_each_image_with_probability_p(options, p):
    images = pictures(4000, 8)
    untouched = {"colour": (1 - p) ** 3, "translation": 1 - p * 24 / 25, "cutout": 1 - p, "flip": 1 - p / 2}
    share = share_changed(only(**options, p=p), images)
    assert share == pytest.approx(1 - untouched[next(iter(options))], abs=0.03)
    if p == 0:
        assert share == 0


def test_transforms_and_images_are_drawn_independently():
    images = torch.full((4000, 3, 8, 8), 0.9)
    images[..., 4:] = 0.5
    augmented = only(flip=True, translation=0.125, cutout=0.25, p=0.5)(images)[:, 0]
    mirrored = (augmented[:, :, 2] == 0.5).any(1)
    empty_rows, empty_columns = (augmented == 0).all(2), (augmented == 0).all(1)
    moved = (empty_rows | empty_columns).any(1)
    holes = (augmented[:, 1:7, 1:7] == 0).any(2)  # in six rows that no move reaches
    cut, moved_down, cut_high = holes.any(1), empty_rows[:, 0], holes[:, :2].any(1)
    pairs = [(mirrored, moved), (mirrored, cut), (moved, cut), (moved_down, cut_high), (mirrored, mirrored.roll(1))]
    for pair in pairs:
        events = torch.stack(pair).float()
        assert events.mean(1).min() > 0.1
        assert abs(torch.corrcoef(events)[0, 1].item()) < 0.06


def test_gradients_are_those_of_the_transforms_and_so_are_a_penaltys():
    augment = Augmentation(flip=True)

    def seeded(images):
        torch.manual_seed(1)
        return augment(images)

    images = pictures(2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(seeded, images)
    assert torch.autograd.gradgradcheck(lambda x: seeded(x) ** 2, images)


def test_the_same_seed_gives_the_same_in_any_memory_format_and_the_next_draw_is_another():
    augment, images = Augmentation(flip=True, p=0.5), pictures()
    state = torch.get_rng_state()
    first, second = augment(images), augment(images)
    torch.set_rng_state(state)
    assert torch.equal(augment(images.to(memory_format=torch.channels_last)), first)
    assert not torch.equal(first, second)


def test_precision_is_that_of_the_images_under_autocast_too():
    augment, images = Augmentation(flip=True), pictures()
    state = torch.get_rng_state()
    expected = augment(images)
    torch.set_rng_state(state)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images), expected)
    assert augment(images.bfloat16()).dtype == torch.bfloat16


def test_it_waits_for_no_device():
    augment = AdaptiveAugmentation(flip=True).to("meta")  # tensors without values: reading one raises
    assert augment(torch.empty(8, 3, 16, 16, device="meta")).shape == (8, 3, 16, 16)
    augment.update(torch.empty(8, 1, device="meta"), 8)


def test_identity_is_known_and_returns_the_images():
    images = pictures()
    assert Augmentation(colour=0, translation=0, cutout=0).is_identity
    assert Augmentation(colour=0, translation=0, cutout=0)(images) is images
    assert not any(only(**options).is_identity for options in EACH)
    assert not Augmentation(colour=0, translation=0, cutout=0, flip=True).is_identity


def test_p_rises_while_all_reals_are_recognised_to_its_bound_and_falls_when_none_is():
    augment = AdaptiveAugmentation(adapt_images=1000)
    sure, unsure = torch.rand(50, 1) + 0.1, torch.tensor([1.0, -1.0] * 25)[:, None]
    for _ in range(10):
        augment.update(sure, 100)
    # the average is 1 - 0.75 ** n: it passes 0.6 with the fourth batch
    assert augment.p.item() == pytest.approx(0.7)
    assert augment.overfitting.item() == pytest.approx(1 - 0.75**10)
    for _ in range(10):
        augment.update(sure, 100)
    assert augment.p.item() == pytest.approx(0.8)
    for _ in range(4):
        augment.update(unsure, 100)
    # back under 0.6 with the second batch
    assert augment.p.item() == pytest.approx(0.8 - 3 * 0.1)
    for _ in range(10):
        augment.update(unsure, 100)
    assert augment.p.item() == 0


def test_fixed_p_is_not_moved_and_not_saved_so_that_a_resumed_runs_config_decides():
    augment = Augmentation(p=0.3)
    augment.update(torch.ones(8, 1), 10**6)
    assert augment.p.item() == pytest.approx(0.3)
    assert not augment.state_dict()


def test_a_restored_adaptive_one_goes_on_as_the_saved_one_would():
    augment = AdaptiveAugmentation(adapt_images=1000)
    for _ in range(8):
        augment.update(torch.ones(8, 1), 100)
    restored = AdaptiveAugmentation(adapt_images=1000)
    restored.load_state_dict(augment.state_dict())
    for one in (augment, restored):
        one.update(torch.tensor([[1.0], [-1.0]]), 100)
    assert restored.p == augment.p > 0
    assert restored.overfitting == augment.overfitting


def adapted(rank):
    """The measure of overfitting, and p, after batches of which each rank has half."""
    augment = AdaptiveAugmentation(adapt_images=1000)
    for _ in range(10):
        augment.update(torch.tensor([[1.0], [1.0], [1.0], [1.0 - 2 * rank]]), 100)  # 1 and 0.5, which are 0.75
    return augment.overfitting.item(), augment.p.item()


def test_two_ranks_agree_on_p(tmp_path):
    first, second = on_two_ranks(tmp_path, adapted)
    assert first == second
    assert first == (pytest.approx(0.75 * (1 - 0.75**10)), pytest.approx(0.5))  # above 0.6 from the sixth batch on


REAL = torch.full((3, 8, 8), 0.8)  # every real image: left half bright, right half dark
REAL[..., 4:] = -0.8


def play(real_augment, fake_augment, images, weights, lr):
    """A game in which the generator's images (N, 3, 8, 8), drawn with softmax(weights), are themselves its weights."""
    discriminator = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(1024, 64), nn.LeakyReLU(0.2)
    ).append(nn.Linear(64, 1))
    learnt = [tensor for tensor in (images, weights) if tensor.requires_grad]
    g_optimizer = torch.optim.Adam(learnt, lr, (0.0, 0.9))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.9))
    for _ in range(200):
        real = real_augment(REAL.expand(64, -1, -1, -1)).requires_grad_()
        fake = fake_augment(images.repeat(64 // len(images), 1, 1, 1))
        shares = weights.softmax(0).repeat(64 // len(images)) * len(images) / 64
        real_logits, fake_logits = discriminator(real)[:, 0], discriminator(fake.detach())[:, 0]
        slopes = torch.autograd.grad(real_logits.sum(), real, create_graph=True)[0].flatten(1)
        d_loss = F.softplus(-real_logits).mean() + (shares.detach() * F.softplus(fake_logits)).sum()
        d_optimizer.zero_grad()
        (d_loss + slopes.square().sum(1).mean()).backward()  # R1, so that the game converges
        d_optimizer.step()
        g_optimizer.zero_grad()
        (shares * F.softplus(-discriminator(fake)[:, 0])).sum().backward()
        g_optimizer.step()


@pytest.mark.parametrize("options", EACH[:3], ids=lambda o: next(iter(o)))
def test_augmentation_does_not_leak_into_samples_unless_the_fakes_go_without(options):
    augment = only(**options, p=AdaptiveAugmentation().max_p)

    def share_of_wrong_values(fake_augment):
        samples = nn.Parameter(torch.randn(16, 3, 8, 8) / 2)
        play(augment, fake_augment, samples, torch.zeros(16), lr=0.02)
        return ((samples - REAL).abs() > 0.25).float().mean().item()

    assert share_of_wrong_values(augment) < 0.04
    assert (
        share_of_wrong_values(Augmentation(colour=0, translation=0, cutout=0)) > 0.15
    )  # holes, shifts and wrong colours, as in the augmented reals


@pytest.mark.parametrize(("p", "lowest", "highest"), [(AdaptiveAugmentation().max_p, 0.9, 1), (1.0, 0.1, 0.9)])
def test_mirroring_does_not_leak_below_p_1_where_nothing_tells_the_hands_apart(p, lowest, highest):
    samples, weights = torch.stack([REAL, REAL.flip(-1)]), nn.Parameter(torch.zeros(2))
    play(only(flip=True, p=p), only(flip=True, p=p), samples, weights, lr=0.1)
    assert lowest < weights.softmax(0)[0].item() < highest


def test_alpha_is_not_recoloured_and_what_comes_in_or_is_cut_out_is_transparent():
    images = torch.cat([torch.rand(64, 3, 8, 8) - 0.5, torch.full((64, 1, 8, 8), 0.25)], dim=1)
    torch.manual_seed(1)
    recoloured = only(colour=1)(images)
    torch.manual_seed(1)
    torch.testing.assert_close(recoloured, torch.cat([only(colour=1)(images[:, :3]), images[:, 3:]], dim=1))
    for transform in (only(translation=0.25), only(cutout=0.5)):
        alpha = transform(images)[:, 3].contiguous()
        assert alpha.unique().tolist() == [-1, 0.25]


def test_oblong_images_are_moved_and_cut_in_proportion_to_each_side():
    ones = torch.ones(2000, 1, 8, 16)
    moved = only(translation=0.25)(ones)[:, 0] != 0
    assert [int((~moved.any(dim=axis)).sum(dim=1).max()) for axis in (2, 1)] == [2, 4]
    cut = only(cutout=0.5)(ones)[:, 0] == 0
    assert [int(cut.any(dim=axis).sum(dim=1).max()) for axis in (2, 1)] == [4, 8]
