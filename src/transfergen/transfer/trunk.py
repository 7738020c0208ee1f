"""Which of the trunk's blocks train, and from when on."""

from typing import Literal, get_args

Mode = Literal["frozen", "tuned", "last_k", "gradual"]


class TrunkSchedule:
    """The number of frozen blocks of a trunk as a function of the images seen.

    Args:
        trunk: `frozen` (none train), `tuned` (all train), `last_k` (the deepest `last_k` train), or `gradual` (all are
            frozen at first, and one more thaws, the deepest first, each `thaw_every_images`).
        last_k: blocks that train; for `last_k` alone.
        thaw_every_images: real images between two thaws; for `gradual` alone.
        cache_mib: memory for the frozen blocks' features of real images, which then are computed once and not in each
            epoch; 0 turns this off. Where all the features would not fit, none are kept.

    Raises:
        ValueError: an unknown mode, or a number out of range.
    """

    def __init__(
        self, *, trunk: Mode = "frozen", last_k: int = 1, thaw_every_images: int = 100_000, cache_mib: int = 2048
    ) -> None:
        if trunk not in get_args(Mode):
            raise ValueError(f"transfer.trunk={trunk}: choose one of {', '.join(get_args(Mode))}")
        if last_k < 1 or thaw_every_images < 1:
            raise ValueError("transfer.last_k and transfer.thaw_every_images are at least 1")
        self.trunk, self.last_k, self.thaw_every_images, self.cache_mib = trunk, last_k, thaw_every_images, cache_mib

    def frozen_blocks(self, blocks: int, images_seen: int) -> int:
        """How many of a trunk's first `blocks` are frozen after `images_seen` real images.

        Raises:
            ValueError: more blocks are to train than there are.
        """
        if self.trunk == "tuned":
            return 0
        if self.trunk == "last_k":
            if blocks == 0:
                raise ValueError("transfer.trunk=last_k: nothing in this discriminator is pretrained; set frozen")
            if self.last_k > blocks:
                raise ValueError(
                    f"transfer.last_k={self.last_k}: the trunk has {blocks} block(s) up to its cut; set "
                    f"transfer.last_k={blocks} or transfer.trunk=tuned"
                )
            return blocks - self.last_k
        if self.trunk == "gradual":
            return max(0, blocks - images_seen // self.thaw_every_images)
        return blocks
