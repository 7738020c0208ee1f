"""The processes of a distributed run: their number, and values that are gathered or summed over them."""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world_size() -> tuple[int, int]:
    """The rank of this process and the number of processes; (0, 1) if the run is not distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def all_gather_objects(item: Any) -> list[Any]:
    """The items of all ranks, in the order of ranks. To be called on all of them."""
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return [item]
    items: list[Any] = [None] * world_size
    dist.all_gather_object(items, item)
    return items


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, with gradients of any order. To be called on all of them.

    Gradients are those of the sum of the ranks' losses. DistributedDataParallel averages them over ranks, which gives
    those of the mean loss.
    """
    return cast(Tensor, _Sum.apply(tensor)) if rank_and_world_size()[1] > 1 else tensor


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """The mean of a tensor over all ranks, with gradients; see `sum_over_ranks`."""
    return sum_over_ranks(tensor) / rank_and_world_size()[1]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (B, ...) of each rank -> those of all ranks (ranks * B, ...) in their order, with gradients."""
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return rows
    return sum_over_ranks(torch.cat([rows if i == rank else torch.zeros_like(rows) for i in range(world_size)]))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        return cast(Tensor, _Sum.apply(gradients[0]))
