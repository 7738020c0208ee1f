"""What a process needs to know of the other processes of a distributed run."""

from typing import Any

import torch.distributed as dist


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
