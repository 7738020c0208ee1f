"""The seeded order in which training images are read."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class BatchOrder(Sampler[np.ndarray]):
    """Batches of indices (B / ranks,) into a data set of N images, in an order that all ranks share.

    Epoch e is a permutation of all N images, drawn with the seed (seed, e) and cut into N // B whole batches; the rest
    is left out of this epoch. Each rank reads its own part of every batch, so that together the ranks read what one
    process would.

    The position in this order is the number of images seen: it gives the epoch to begin with, and how many batches of
    that epoch have been read already.

    Args:
        samples: N, at least B.
        batch_size: B, over all ranks; a multiple of their number.
        seed: of the permutations.
        rank, ranks: this process, and how many there are.
        images_seen: images, over all ranks, that were read before.
        batches_per_epoch: how many batches the training reads of each epoch; None: all.
    """

    def __init__(
        self,
        samples: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        images_seen: int = 0,
        batches_per_epoch: int | None = None,
    ) -> None:
        assert batch_size % ranks == 0
        assert samples >= batch_size
        self.samples, self.batch_size, self.seed, self.rank, self.ranks = samples, batch_size, seed, rank, ranks
        self._start = divmod(images_seen // batch_size, batches_per_epoch or len(self))
        self.epoch = self._start[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is read next. Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        share = self.batch_size // self.ranks
        first_epoch, first_batch = self._start
        for batch in range(first_batch if self.epoch == first_epoch else 0, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield order[start : start + share]
