"""The processes of a run, where there are several."""

from typing import Any

import torch.distributed as dist


def ranks() -> tuple[int, int]:
    """This rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def of_all_ranks(item: Any) -> list[Any]:
    """What each rank gave, in their order. To be called on all of them."""
    world = ranks()[1]
    if world == 1:
        return [item]
    items: list[Any] = [None] * world
    dist.all_gather_object(items, item)
    return items
