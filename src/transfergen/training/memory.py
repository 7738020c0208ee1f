"""The memory that a training step takes, measured on tensors without values before there is a step."""

import copy
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transfergen.data.store import Batch
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.layers.unregistered import UnregisteredModules
from transfergen.training.base_module import GenerativeModule
from transfergen.training.finite_updates import FiniteUpdates, gradient_norm
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
    themselves, what an allocator sets aside, and the reordered copies of frozen weights on a CPU.

    Args:
        module: before its training.
        batch_size: images in a step on one device.
        device: that the training will be on.
        dtype: of autocast; torch.float32: none.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        shared: dict[int, Any] = {id(t): fake.from_tensor(t).to(device) for t in _tensors(module)}
        twin = copy.deepcopy(module, shared | {id(module._trainer): module._trainer})  # which holds the data
    for network in _networks(twin):
        set_frozen(network, False)  # the kernels for frozen weights take no tensors without values
    weights = _LiveBytes()
    for tensor in _tensors(twin):
        weights.add(tensor)
    with fake, _LiveBytes() as live:
        step = _make_step(twin, batch_size, device)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            step()
        gc.collect()  # of cycles, which may hold tensors
    return StepMemory(weights.now, live.now, live.peak - live.now)


def _make_step(module: Any, batch_size: int, device: torch.device) -> Callable[[], Any]:
    """A step of a module whose optimizers have their state already."""
    shape = module.generator.image_shape
    pixels = torch.zeros(batch_size, *shape, dtype=torch.uint8, device=device)
    batch = Batch(pixels, torch.zeros(batch_size, dtype=torch.int64, device=device), np.arange(batch_size))
    module._randomness = SimpleNamespace(latents=lambda count, z_dim: torch.zeros(count, z_dim, device=device))
    optimizers = module.configure_optimizers()
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

    def backward(loss: Tensor, inputs: Any = None) -> None:
        with torch.autocast(device.type, enabled=False):
            loss.backward(inputs=inputs)  # type: ignore[no-untyped-call]

    if isinstance(module, VAE):

        def step_of_vae() -> None:
            backward(module.loss(batch)[2])
            optimizers[0].step()

        return step_of_vae
    step = module.adversarial_step(optimizers, _RealFeatures(module), _Updates())
    return lambda: step(batch, 0, backward=backward)


class _RealFeatures(RealFeatures):
    """Features of real images, none of which are known yet."""

    def __init__(self, module: GAN) -> None:
        self._discriminator, self._augment = module.discriminator, module.augment
        self._size = module.generator.image_shape.size

    def of_batch(self, batch: Batch) -> Features:
        return self._discriminator.features(self._augment(self.images(batch)))


class _Updates(FiniteUpdates):
    """Steps of optimizers without a look at the values."""

    def __init__(self) -> None:
        pass

    def step(self, optimizer: Any, loss: Tensor, parameters: Iterable[nn.Parameter], network: str) -> Tensor:
        norm = gradient_norm(parameters)
        optimizer.step()
        return norm


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
