"""The memory that a training step takes, measured on tensors without values before there is a step."""

import copy
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transfergen.data.store import Batch
from transfergen.distributed import rank_and_world_size
from transfergen.networks.acceleration.frozen_conv import set_frozen
from transfergen.networks.layers.unregistered import UnregisteredModules
from transfergen.training.base_module import GenerativeModule
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.real_features import RealFeatures
from transfergen.training.vae_module import VAE


class StepMemory(NamedTuple):
    """Bytes that a training step takes on a device."""

    weights: int
    """Weights of all networks, including frozen ones and moving averages."""
    updates: int
    """Gradients, and the optimizers' state."""
    activations: int
    """All other tensors at the step's peak, most of them kept for gradients."""

    @property
    def total(self) -> int:
        """The sum of all three."""
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
    """Measure a step on tensors that have shapes and no values, which needs neither the memory nor the device.

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
        shared: dict[int, Any] = {id(t): _on(device, fake.from_tensor(t)) for t in _tensors(module)}
        kept = {id(part): part for part in (module._trainer, module.resumed)}  # which hold the data and a checkpoint
        twin = copy.deepcopy(module, shared | kept)
    for network in _networks(twin):
        set_frozen(network, False)  # the kernels for frozen weights take no tensors without values
    live = _LiveBytes()
    for tensor in _tensors(twin):
        live.add(tensor)
    weights = live.now
    with _cuda_asked_for_once(), fake, live:
        optimizers: Any = twin.configure_optimizers()
        for optimizer in optimizers:
            _make_state(optimizer)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            _take_step(twin, optimizers, batch_size, device)
    return StepMemory(weights, live.now - weights, live.peak - live.now)


@contextmanager
def _cuda_asked_for_once() -> Iterator[None]:
    """A context in which torch looks for CUDA devices once. Tensors without values ask at each operation."""
    cuda: Any = torch.cuda
    theirs, answer = cuda.is_available, cuda.is_available()
    cuda.is_available = lambda: answer
    try:
        yield
    finally:
        cuda.is_available = theirs


def _on(device: torch.device, tensor: Tensor) -> Tensor:
    if tensor.device == device:  # `to` would make a copy
        return tensor
    moved = tensor.detach().to(device)
    return nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved


def _make_state(optimizer: Optimizer) -> None:
    """Let an optimizer make the state that it keeps from its first step on."""
    for p in (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad):
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()


def _take_step(module: Any, optimizers: Sequence[Optimizer], batch_size: int, device: torch.device) -> None:
    """Take a step that updates both networks and computes the penalty, if there is one."""
    shape = module.generator.image_shape
    pixels = torch.zeros(batch_size, *shape, dtype=torch.uint8, device=device)
    batch = Batch(pixels, torch.zeros(batch_size, dtype=torch.int64, device=device), np.arange(batch_size))
    module._randomness = SimpleNamespace(latents=lambda count, z_dim: torch.zeros(count, z_dim, device=device))

    def backward(loss: Tensor, inputs: Any = None) -> None:
        with torch.autocast(device.type, enabled=False):
            loss.backward(inputs=inputs)  # type: ignore[no-untyped-call]

    if isinstance(module, VAE):
        backward(module.loss(batch)[2])
        optimizers[0].step()
        return
    no_store: Any = ()
    real_features = RealFeatures(no_store, shape.size, module.discriminator, module.augment, cache_mib=0)
    step = module.adversarial_step(optimizers, real_features, _Updates())
    penalty, d_steps = module.objective.penalty, module.d_steps
    updates = range(d_steps - 1, d_steps * (penalty.every if penalty else 1), d_steps)
    update = next((number for number in updates if penalty and penalty.due(number)), updates[0])
    images_seen = update * batch_size * rank_and_world_size()[1]
    step(batch, images_seen, backward=backward)


class _Updates(FiniteUpdates):
    """`FiniteUpdates` that never look at values, since there are none."""

    def __init__(self) -> None:
        pass

    def step(self, optimizer: Any, loss: Tensor, parameters: Iterable[nn.Parameter], network: str) -> Tensor:
        optimizer.step()
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
