"""The size of the networks and the memory of a step, told before there is one."""

import logging
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from transfergen.training.base_module import GenerativeModule
from transfergen.training.gan_module import GAN
from transfergen.training.memory import measure_step

log = logging.getLogger(__name__)


class MemoryReport(Callback):
    """Says how many parameters train, how much memory a step takes on a device, and which settings it takes less with.

    Args:
        batch_size: images in a step, over all devices.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell of the memory, and warn where a CUDA device has less."""
        assert isinstance(pl_module, GenerativeModule)
        device, batch = trainer.strategy.root_device, self.batch_size // trainer.world_size
        low = "bf16" in str(trainer.precision)
        try:
            memory = measure_step(
                pl_module, batch_size=batch, device=device, dtype=torch.bfloat16 if low else torch.float32
            )
        except RuntimeError as error:  # an operation that asks for values
            log.info(f"{describe_networks(pl_module)}; the memory of a step is not known: {error}")
            return
        parts = f"weights {gib(memory.weights)}, gradients and optimizers {gib(memory.updates)}"
        step = f"a step takes about {gib(memory.total)} GiB ({parts}, activations {gib(memory.activations)})"
        less = " or ".join(settings_for_less(pl_module, batch, self.batch_size, low))
        log.info(f"{describe_networks(pl_module)}; {step}; less with {less}")
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
            if memory.total > free:
                log.warning(f"{device} has {gib(free)} GiB free, and a step takes {gib(memory.total)}; set {less}")


def describe_networks(module: GenerativeModule) -> str:
    """How many parameters the networks have, and how many of them are frozen."""
    networks: dict[str, Any] = {"generator": module.generator, "discriminator": getattr(module, "discriminator", None)}
    networks["encoder"] = getattr(module, "encoder", None)
    return ", ".join(f"{name} {_count(network)}" for name, network in networks.items() if network is not None)


def settings_for_less(module: GenerativeModule, batch: int, global_batch: int, low_precision: bool) -> list[str]:
    """The overrides that make a step take less memory and are not set yet, those without a price first.

    Args:
        module: before its training.
        batch: images in a step on one device.
        global_batch: images in a step.
        low_precision: whether autocast is on.
    """
    settings = [] if low_precision else ["trainer.precision=bf16-mixed"]
    if isinstance(module, GAN) and batch % (4 * module.accumulate) == 0:  # parts have two images or more
        settings.append(f"optimizer.accumulate={2 * module.accumulate}")
    if not module.generator.checkpointing:
        settings.append("generator_checkpointing=true")
    return [*settings, f"data.batch_size={max(2, global_batch // 2)}"]


def gib(size: int) -> str:
    """Bytes as a number of GiB."""
    return f"{size / 2**30:.2g}" if size < 10 * 2**30 else f"{size / 2**30:,.0f}"


def _count(network: nn.Module) -> str:
    everything = [*network.parameters(), *(p for each in getattr(network, "backbones", ()) for p in each.parameters())]
    sizes = {id(p): (p.numel(), p.requires_grad) for p in everything}.values()
    total, frozen = sum(size for size, _ in sizes), sum(size for size, trains in sizes if not trains)
    return f"{total / 1e6:.1f} M" + (f" ({frozen / 1e6:.1f} M frozen)" if frozen else "")
