"""The processes of a run, where there are several."""

from typing import Any

import torch.distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """This rank, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def all_gather_objects(item: Any) -> list[Any]:
    """What each rank gave, in their order. To be called on all of them."""
    world = rank_and_world_size()[1]
    if world == 1:
        return [item]
    items: list[Any] = [None] * world
    dist.all_gather_object(items, item)
    return items
