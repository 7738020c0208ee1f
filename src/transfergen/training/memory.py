"""The memory that a training step takes, measured on tensors without values before there is a step."""

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transfergen.data.store import Batch
from transfergen.distributed import rank_and_world_size
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.layers.unregistered import UnregisteredModules
from transfergen.training.base_module import GenerativeModule
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.gan_module import GAN
from transfergen.training.real_features import RealFeatures
from transfergen.training.turn_losses import Features
from transfergen.training.vae_module import VAE


class StepMemory(NamedTuple):
    """Bytes that a training step takes on a device."""

    weights: int
    """Those of all networks, with frozen ones and averages."""
    updates: int
    """Gradients, and the optimizers' state."""
    activations: int
    """All others at the step's peak, most of them kept for gradients."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return result

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            size = storage.nbytes()
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def measure_step(
    module: GenerativeModule, *, batch_size: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> StepMemory:
    """Take a step on tensors that have shapes and no values, which needs neither the memory nor the device.

    Every tensor counts from the operation that makes it until nothing holds it. Not counted are what kernels need for
    themselves, what an allocator sets aside, and the reordered copies of frozen weights on a CPU. Of each optimizer
    only the largest tensors are updated: the state of the others is as large in proportion to them.

    Args:
        module: before its training.
        batch_size: images in a step on one device.
        device: that the training will be on.
        dtype: of autocast; torch.float32: none.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        shared: dict[int, Any] = {id(t): _on(device, fake.from_tensor(t)) for t in _tensors(module)}
        kept = {id(part): part for part in (module._trainer, module.resumed)}  # which hold the data and a checkpoint
        twin = copy.deepcopy(module, shared | kept)
    for network in _networks(twin):
        set_frozen(network, False)  # the kernels for frozen weights take no tensors without values
        for part in network.modules():
            if isinstance(part, _SpectralNorm):
                part.eval()  # its power iterations, a fifth of all operations, leave nothing behind
    live = _LiveBytes()
    for tensor in _tensors(twin):
        live.add(tensor)
    weights = live.now
    with fake, live:
        optimizers: Any = twin.configure_optimizers()
        state = sum(_add_state(optimizer) for optimizer in optimizers)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            _make_step(twin, optimizers, batch_size, device)()  # and let go of the step, which holds its batch
    return StepMemory(weights, live.now - weights + state, live.peak - live.now)


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    return tensor if tensor.device == device else tensor.to(device)  # to the same device it takes as long


def _add_state(optimizer: Optimizer) -> int:
    """Let an optimizer make its state for the tensors that `_update_some` updates.

    Returns:
        The bytes that the state of all others takes.
    """
    some = _largest(optimizer)
    for tensor in some.values():
        tensor.grad = torch.zeros_like(tensor)
    optimizer.step()
    optimizer.zero_grad()
    sizes = {
        kind: sum(t.nbytes for t in optimizer.state[tensor].values() if isinstance(t, Tensor)) / tensor.numel()
        for kind, tensor in some.items()
    }
    return round(sum(sizes[kind] * t.numel() for kind, t in _trained(optimizer) if t is not some[kind]))


def _update_some(optimizer: Optimizer) -> None:
    """Update the largest tensor of each kind, and no other."""
    some = {id(tensor) for tensor in _largest(optimizer).values()}
    gradients = [(tensor, tensor.grad) for _, tensor in _trained(optimizer) if id(tensor) not in some]
    for tensor, _ in gradients:
        tensor.grad = None
    optimizer.step()
    for tensor, gradient in gradients:
        tensor.grad = gradient


def _largest(optimizer: Optimizer) -> dict[tuple[int, int], Tensor]:
    """The largest tensor of each kind."""
    return dict(sorted(_trained(optimizer), key=lambda pair: pair[1].numel()))


def _trained(optimizer: Optimizer) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The tensors that an optimizer updates, each with its kind: its group, and how many dimensions it has."""
    for number, group in enumerate(optimizer.param_groups):
        yield from (((number, p.ndim), p) for p in group["params"] if p.requires_grad)


def _make_step(
    module: Any, optimizers: Sequence[Optimizer], batch_size: int, device: torch.device
) -> Callable[[], Any]:
    """A step that updates both networks and computes the penalty, if there is one."""
    shape = module.generator.image_shape
    pixels = torch.zeros(batch_size, *shape, dtype=torch.uint8, device=device)
    batch = Batch(pixels, torch.zeros(batch_size, dtype=torch.int64, device=device), np.arange(batch_size))
    module._randomness = SimpleNamespace(latents=lambda count, z_dim: torch.zeros(count, z_dim, device=device))

    def backward(loss: Tensor, inputs: Any = None) -> None:
        with torch.autocast(device.type, enabled=False):
            loss.backward(inputs=inputs)  # type: ignore[no-untyped-call]

    if isinstance(module, VAE):

        def step_of_vae() -> None:
            backward(module.loss(batch)[2])
            _update_some(optimizers[0])

        return step_of_vae
    step = module.adversarial_step(optimizers, _RealFeatures(module), _Updates())
    penalty, d_steps = module.objective.penalty, module.d_steps
    updates = range(d_steps - 1, d_steps * (penalty.every if penalty else 1), d_steps)
    update = next((number for number in updates if penalty and penalty.due(number)), updates[0])
    images_seen = update * batch_size * rank_and_world_size()[1]
    return lambda: step(batch, images_seen, backward=backward)


class _RealFeatures(RealFeatures):
    """Features of real images, none of which are known yet."""

    def __init__(self, module: GAN) -> None:
        self._discriminator, self._augment = module.discriminator, module.augment
        self._size = module.generator.image_shape.size

    def of_batch(self, batch: Batch) -> Features:
        return self._discriminator.features(self._augment(self.images(batch)))


class _Updates(FiniteUpdates):
    """Updates of some tensors without a look at the values."""

    def __init__(self) -> None:
        pass

    def step(self, optimizer: Any, loss: Tensor, parameters: Iterable[nn.Parameter], network: str) -> Tensor:
        _update_some(optimizer)
        return torch.zeros(())


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    for network in _networks(module):
        yield from network.parameters()
        yield from network.buffers()


def _networks(module: nn.Module) -> Iterator[nn.Module]:
    """The module, and the frozen networks that it and its parts use without having registered them."""
    yield module
    for part in module.modules():
        if isinstance(part, UnregisteredModules):
            for network in part._unregistered:
                yield from _networks(network)
