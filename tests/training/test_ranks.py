"""Two ranks, each with its share of a batch, against one process with the whole batch."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ranks import on_two_ranks
from timm.layers import BatchNormAct2d
from trunks import trunk

from transfergen.data.store import Batch
from transfergen.distributed import gather_rows, sum_over_ranks
from transfergen.losses.adversarial import relativistic
from transfergen.losses.divergence import Elbo, Posterior
from transfergen.losses.penalties import GradientPenalty
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.layers.checkpointing import checkpointed
from transfergen.networks.layers.sync_batchnorm import synchronize
from transfergen.training.adversarial_step import AdversarialStep
from transfergen.training.augmentation import Augmentation
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_records import Fakes
from transfergen.transfer.domain_adaptation import DomainAdaptation

BATCH, STEPS = 8, 2


def averaged_backward(parameters, ranks):
    """A backward pass, and the mean of the ranks' gradients, as DistributedDataParallel takes it."""

    def backward(loss, inputs=None):
        loss.backward(inputs=inputs)
        for p in parameters:
            if ranks > 1 and p.grad is not None:
                dist.all_reduce(p.grad)
                p.grad /= ranks

    return backward


def game(rank, ranks, *, synchronized):
    """Weights and statistics after some steps with batch normalisation, penalties and terms that compare a batch."""
    torch.manual_seed(0)
    generator = DCGAN(resolution=32, z_dim=8, width=4)
    discriminator = VGGDiscriminator(trunk((4, 6)), resolution=32, width=4, hidden=8)
    strategy = DomainAdaptation(source="", backbone=trunk((4, 6)), mmd=1.0, coral=1.0)
    strategy.add_frozen("source", copy.deepcopy(generator))
    discriminator.freeze(2)
    z, pixels = torch.randn(STEPS, BATCH, 8), torch.randint(0, 256, (STEPS, BATCH, 3, 32, 32), dtype=torch.uint8)
    if synchronized:
        synchronize(generator)
        synchronize(discriminator)
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    noise = iter(z[:, share])

    def draw_fakes(batch, labels, generate):
        latents = next(noise)
        return Fakes(latents, generate(latents, labels))

    parameters = [*generator.parameters(), *discriminator.trainable_parameters()]
    augment = Augmentation(colour=0, translation=0, cutout=0)
    step = AdversarialStep(
        generator,
        discriminator,
        relativistic(penalty=GradientPenalty(r1=0.1, r2=0.1)),
        augment,
        strategy,
        [torch.optim.SGD(n, lr=1e-2) for n in (list(discriminator.trainable_parameters()), generator.parameters())],
        real_features=RealFeatures(range(BATCH), 32, discriminator, augment, cache_mib=0),
        draw_fakes=draw_fakes,
        updates=FiniteUpdates(torch.device("cpu")),
    )
    for i in range(STEPS):
        batch = Batch(pixels[i, share], torch.zeros(BATCH // ranks, dtype=torch.long), np.arange(BATCH)[share])
        step(batch, i * BATCH, backward=averaged_backward(parameters, ranks))
    states = generator.state_dict(), discriminator.state_dict()
    return {f"{i}.{name}": tensor for i, state in enumerate(states) for name, tensor in state.items()}


def bound(rank, ranks):
    """The terms of a VAE's bound, which take a logarithm and a maximum over a batch, and a gradient of them."""
    torch.manual_seed(0)
    images, decoded, mean = torch.rand(BATCH, 3, 4, 4), torch.rand(BATCH, 3, 4, 4), torch.randn(BATCH, 5)
    scale = torch.nn.Parameter(torch.ones(()))
    half = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    posterior = Posterior(mean[half] * scale, torch.zeros_like(mean[half]))
    terms = Elbo(free_bits=0.5).terms(images[half], decoded[half] * scale, posterior, 0)
    averaged_backward([scale], ranks)(sum(terms.values()))
    return {name: term.detach() for name, term in terms.items()} | {"gradient": scale.grad}


def norms(rank, ranks):
    """Batch normalisation alone: its maps and statistics, and derivatives of the first and the second order."""
    torch.manual_seed(0)
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    factors = torch.randn(BATCH, 3, 4, 4)[share]
    maps = (3 * torch.randn(BATCH, 3, 4, 4) + 50)[share].requires_grad_()  # far from zero
    gains = torch.rand(3)
    found = {}
    for name, affine in {"affine": True, "plain": False}.items():
        norm = torch.nn.BatchNorm2d(3, affine=affine)
        if affine:
            norm.weight.data = gains.clone()
        synchronize(norm)
        normalized = norm(maps)
        given = [maps, *norm.parameters()]
        loss = (normalized**3 * factors).sum()
        first = torch.autograd.grad(loss, given, retain_graph=True)
        differentiable = torch.autograd.grad(loss, given, create_graph=True)
        second = torch.autograd.grad((differentiable[0] ** 2 * factors).sum(), given[:2])
        for order, (by_maps, *by_parameters) in {
            "first": first,
            "differentiable": differentiable,
            "second": second,
        }.items():
            found[f"{name} {order} by maps"] = gather_rows(by_maps.detach())
            found |= {f"{name} {order} {i}": sum_over_ranks(g.detach()) for i, g in enumerate(by_parameters)}
        found[f"{name} maps"] = gather_rows(normalized.detach())
        found |= {f"{name} {key}": value for key, value in norm.state_dict().items()}
    rounded = torch.nn.BatchNorm2d(3)
    synchronize(rounded)
    found["bf16"] = gather_rows(rounded(maps.detach().bfloat16())).float()
    return found


def rounded_norms(rank, ranks):
    """Batch normalisation of maps in bfloat16, in both layouts: its maps, its statistics and all its derivatives."""
    torch.manual_seed(0)
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    maps, factors = (3 * torch.randn(BATCH, 3, 4, 4) + 5)[share], torch.randn(BATCH, 3, 4, 4)[share]
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        norm, rounded = torch.nn.BatchNorm2d(3), maps.bfloat16().to(memory_format=layout).requires_grad_()
        synchronize(norm)
        normalized = norm(rounded)
        assert normalized.dtype == torch.bfloat16
        by_maps, *by_parameters = torch.autograd.grad(
            (normalized.float() ** 3 * factors).sum(), [rounded, *norm.parameters()]
        )
        found[f"{layout} maps"] = gather_rows(normalized.detach().float())
        found[f"{layout} by maps"] = gather_rows(by_maps.float())
        found |= {f"{layout} by parameter {i}": sum_over_ranks(g) for i, g in enumerate(by_parameters)}
        found |= {f"{layout} {key}": value for key, value in norm.state_dict().items()}
    return found


def partly_frozen(rank, ranks):
    """Derivatives where maps, or gains and biases, need none; and where the backward pass computes the layers anew."""
    torch.manual_seed(0)
    share = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
    images, factors = torch.randn(BATCH, 3, 6, 6)[share], torch.randn(BATCH, 4, 4, 4)[share]
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(inplace=True))
    synchronize(layers)
    found = {}
    for frozen in (0, 1):
        layers.requires_grad_(True)[frozen].requires_grad_(False)
        for name, run in {"at once": layers, "anew": partial(checkpointed, layers)}.items():
            layers.zero_grad()
            (run(images) ** 2 * factors).sum().backward()
            grads = {key: p.grad for key, p in layers.named_parameters() if p.grad is not None}
            assert len(grads) == 2
            found |= {f"{frozen} {name} {key}": sum_over_ranks(gradient) for key, gradient in grads.items()}
    with torch.no_grad():
        found["without gradients"] = gather_rows(layers(images))
    return found | layers.state_dict()


def timms(rank, ranks):
    """timm's batch normalisation with an activation."""
    torch.manual_seed(0)
    norm, maps = BatchNormAct2d(3), torch.randn(BATCH, 3, 2, 2)
    synchronize(norm)
    norm(maps[rank * BATCH // ranks : (rank + 1) * BATCH // ranks])
    return norm.state_dict()


def left_out(rank, ranks):
    """A weight, which an update with a loss that only the last rank finds not finite would change."""
    weight, updates = torch.nn.Parameter(torch.ones(1)), FiniteUpdates(torch.device("cpu"))
    weight.grad = torch.ones(1)
    loss = torch.tensor(torch.inf if rank == ranks - 1 else 0.0)
    with pytest.raises(FloatingPointError, match="the generator's loss or gradient is not finite"):
        updates.step(torch.optim.SGD([weight], lr=1.0), loss, [weight], "generator")
    return {"weight": weight.detach()}


def results(rank, ranks):
    return {
        "game": game(rank, ranks, synchronized=True),
        "unsynchronized": game(rank, ranks, synchronized=False),
        "bound": bound(rank, ranks),
        "norm": norms(rank, ranks),
        "rounded": rounded_norms(rank, ranks),
        "frozen": partly_frozen(rank, ranks),
        "timm": timms(rank, ranks),
        "left out": left_out(rank, ranks),
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of each of two ranks."""
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), results, 2)


@pytest.fixture(scope="module")
def one():
    """The results of one process."""
    return results(0, 1)


@pytest.mark.parametrize("what", ["game", "bound", "norm", "frozen", "timm", "left out"])
def test_two_ranks_equal_one(both, one, what):
    for two in both:
        assert two[what].keys() == one[what].keys()
        for name, tensor in one[what].items():
            torch.testing.assert_close(two[what][name], tensor, rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_two_ranks_equal_one_up_to_rounding_in_bfloat16(both, one):
    for two in both:
        for name, tensor in one["rounded"].items():
            largest = tensor.abs().max().item()
            torch.testing.assert_close(two["rounded"][name], tensor, rtol=0, atol=largest / 128, msg=name)


def test_without_synchronisation_each_rank_normalises_its_own_share(both, one):
    name = next(name for name in one["unsynchronized"] if name.endswith("running_mean"))
    assert not torch.allclose(both[0]["unsynchronized"][name], both[1]["unsynchronized"][name])
    assert not torch.allclose(both[0]["unsynchronized"][name], one["unsynchronized"][name])
