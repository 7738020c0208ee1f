"""The random state of a rank, on devices of several kinds, of which this machine may have none."""

import pytest
import torch

from transfergen.training.randomness import RankRandomness

CPU, MPS = torch.device("cpu"), torch.device("mps")


def randomness(**given):
    return RankRandomness(CPU, **{"seed": 0, "images_seen": 0, "rank": 0} | given)


@pytest.mark.parametrize("other", [{"seed": 1}, {"images_seen": 8}, {"rank": 1}])
def test_latents_and_dropout_differ_with_seed_place_and_rank(other):
    first, noise = randomness().latents(2, 3), torch.rand(3)
    assert torch.equal(randomness().latents(2, 3), first)
    assert torch.equal(torch.rand(3), noise)
    assert not torch.equal(randomness(**other).latents(2, 3), first)
    assert not torch.equal(torch.rand(3), noise)


def test_a_restored_state_goes_on_where_it_was_kept():
    rank = randomness()
    rank.latents(2, 3)
    state = rank.state()
    expected = rank.latents(2, 3), torch.rand(3)
    again = randomness(seed=7)
    again.restore(state)
    assert torch.equal(again.latents(2, 3), expected[0])
    assert torch.equal(torch.rand(3), expected[1])


@pytest.fixture
def on_a_mac(monkeypatch):
    """A rank on a device whose global generator is that of the CPU, and the calls for its state."""
    calls = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: calls.append(device) or torch.tensor([5]))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: calls.append((state.tolist(), device)))
    rank = randomness()
    rank.device = MPS
    return rank, calls


def test_the_global_generator_of_any_device_is_kept_and_restored(on_a_mac):
    rank, calls = on_a_mac
    state = rank.state()
    assert state["mps"].tolist() == [5]
    rank.restore(state)
    assert calls[-1] == ([5], MPS)


def test_a_run_goes_on_from_the_state_of_another_kind_of_device_with_random_numbers_of_its_own(on_a_mac):
    rank, _ = on_a_mac
    theirs = rank.state() | {"latents": torch.zeros(16, dtype=torch.uint8)}  # as long as a GPU's
    ours, expected = randomness(images_seen=8), randomness(images_seen=8).latents(2, 3)
    ours.restore(theirs)
    assert torch.equal(ours.latents(2, 3), expected)
