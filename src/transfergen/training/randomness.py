"""The random state of one rank: its latents, and the global generator that dropout draws from."""

import torch
from torch import Tensor


class RankRandomness:
    """Latents that differ from rank to rank. Lightning gives all ranks one seed, and so the same noise.

    Args:
        device: where latents are drawn.
        seed, images_seen, rank: seed this rank's latents and its global generator, together.
    """

    def __init__(self, device: torch.device, *, seed: int, images_seen: int, rank: int) -> None:
        self.device = device
        self._latents = torch.Generator(device)
        mixed = hash((seed, images_seen, rank)) % 2**63  # of integers: the same in every process
        self._latents.manual_seed(mixed)
        torch.manual_seed(mixed)

    def latents(self, count: int, z_dim: int) -> Tensor:
        """(count, z_dim) ~ N(0, 1) on the device."""
        return torch.randn(count, z_dim, generator=self._latents, device=self.device)

    def state(self) -> dict[str, Tensor]:
        """The state of all generators, for a checkpoint: of the latents, of the CPU, and of any other device."""
        state = {"latents": self._latents.get_state(), "cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            state[self.device.type] = torch.get_device_module(self.device).get_rng_state(self.device)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned. From that of another kind of device, nothing is taken up."""
        if state.keys() != self.state().keys():
            return
        self._latents.set_state(state["latents"].cpu())
        torch.set_rng_state(state["cpu"].cpu())
        if self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(state[self.device.type].cpu(), self.device)
