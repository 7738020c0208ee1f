"""The size of the networks, the memory of a step, and the settings with which one takes less."""

from typing import Any, NamedTuple

import torch
from torch import nn

from transfergen.networks.acceleration.prepared_kernel import has_kernels
from transfergen.training.base_module import GenerativeModule
from transfergen.training.gan_module import GAN
from transfergen.training.memory import StepMemory, measure_step


class Size(NamedTuple):
    """The parameters of a network."""

    parameters: int
    frozen: int
    """How many of them are not trained."""

    def __str__(self) -> str:
        """The numbers of parameters, in millions."""
        return f"{self.parameters / 1e6:.1f} M" + (f" ({self.frozen / 1e6:.1f} M frozen)" if self.frozen else "")


class StepReport(NamedTuple):
    """The size of the networks, and the memory that a training step needs on a device."""

    networks: dict[str, Size]
    memory: StepMemory | None
    """None: it is not known."""
    less_with: list[str]
    """Overrides with which a step takes less memory."""

    def __str__(self) -> str:
        """The report in one line."""
        networks = ", ".join(f"{name} {size}" for name, size in self.networks.items())
        if self.memory is None:
            return f"{networks}; the memory of a step is not known"
        weights, updates, activations = map(gib, self.memory)
        parts = f"weights {weights}, gradients and optimizers {updates}, activations {activations}"
        line = f"{networks}; a step takes about {gib(self.memory.total)} GiB ({parts})"
        return f"{line}; less with {self.less}" if self.less else line

    @property
    def less(self) -> str:
        """The overrides in words."""
        return " or ".join(self.less_with)

    def to_json(self) -> dict[str, Any]:
        """The report as dictionaries, lists and numbers."""
        memory = self.memory and self.memory._asdict() | {"total": self.memory.total}
        networks = {name: size._asdict() for name, size in self.networks.items()}
        return {"networks": networks, "bytes": memory, "less_with": self.less_with}


def report_step(
    module: GenerativeModule, *, batch_size: int, ranks: int, device: torch.device, precision: str | int
) -> StepReport:
    """The size of the networks and the memory of their step, for which nothing is computed.

    Args:
        module: before its training.
        batch_size: images in a step, over all ranks.
        ranks: how many processes share it.
        device: of one of them.
        precision: as Lightning takes it.
    """
    parts: dict[str, Any] = {name: getattr(module, name, None) for name in ("generator", "discriminator", "encoder")}
    networks = {name: _size(network) for name, network in parts.items() if network is not None}
    batch, autocast = batch_size // ranks, "bf16" in str(precision)
    dtype = torch.bfloat16 if autocast else torch.float32
    try:
        memory = measure_step(module, batch_size=batch, device=device, dtype=dtype)
    except RuntimeError:  # an operation that asks for values
        memory = None
    pays = device.type != "cpu" or has_kernels(torch.bfloat16)
    return StepReport(networks, memory, settings_for_less(module, batch, batch_size, pays and not autocast))


def settings_for_less(module: GenerativeModule, batch: int, global_batch: int, bf16: bool) -> list[str]:
    """The overrides that make a step take less memory and are not set yet, those without a price first.

    Args:
        module: before its training.
        batch: images in a step on one device.
        global_batch: images in a step.
        bf16: whether to recommend bfloat16.
    """
    settings = ["trainer.precision=bf16-mixed"] if bf16 else []
    if isinstance(module, GAN) and batch % (4 * module.accumulate) == 0:  # parts have two images or more
        settings.append(f"optimizer.accumulate={2 * module.accumulate}")
    if not module.generator.checkpointing:
        settings.append("generator_checkpointing=true")
    if global_batch >= 4:
        settings.append(f"data.batch_size={global_batch // 2}")
    return settings


def gib(size: int) -> str:
    """Bytes as a number of GiB."""
    return f"{size / 2**30:.2g}" if size < 10 * 2**30 else f"{size / 2**30:,.0f}"


def _size(network: nn.Module) -> Size:
    everything = [*network.parameters(), *(p for each in getattr(network, "backbones", ()) for p in each.parameters())]
    sizes = {id(p): (p.numel(), p.requires_grad) for p in everything}.values()
    return Size(sum(size for size, _ in sizes), sum(size for size, trains in sizes if not trains))
