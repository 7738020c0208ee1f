"""The order of samples: seeded, shared by all ranks, never kept anywhere."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class BatchOrder(Sampler[np.ndarray]):
    """The positions (B / ranks,) that this rank reads, batch by batch.

    Epoch e shuffles all N samples by (seed, e) and cuts the order into whole batches of the global size B; each rank
    takes its share of every batch. So the ranks together see what one process would see, and an epoch can be replayed
    from its number alone. Samples beyond the last whole batch wait for another epoch's shuffle.

    Args:
        samples: N.
        batch_size: B, at most N, over all ranks; the ranks divide it.
    """

    def __init__(self, samples: int, batch_size: int, *, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        assert batch_size % ranks == 0
        assert samples >= batch_size
        self.samples, self.batch_size, self.seed, self.rank, self.ranks = samples, batch_size, seed, rank, ranks
        self.epoch = 0
        self.skip = 0
        """Batches at the start of the next epoch that are left out: a resumed run has seen them."""

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.samples // self.batch_size

    def __iter__(self) -> Iterator[np.ndarray]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.samples)
        share = self.batch_size // self.ranks
        first, self.skip = self.skip, 0
        for batch in range(first, len(self)):
            start = batch * self.batch_size + self.rank * share
            yield order[start : start + share]
