"""The LightningDataModule over all sources: pictures -> uint8 store -> whole batches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from transfergen.data import store
from transfergen.data.decoding import MEGAPIXELS, Damaged, check_damaged
from transfergen.data.pictures import Fit, Pictures, Split, at_most, check_fit, of_classes
from transfergen.data.sampler import BatchOrder
from transfergen.data.store import Batch, Store


class ImageDataModule(LightningDataModule):
    """Train and test split of a source, as uint8 batches in a seeded order that all ranks share.

    Args:
        source: a function (path, split) -> Pictures.
        path: where the source reads from.
        resolution: pixels of the images that the networks see, 32 to 256.
        batch_size: over all ranks.
        fit: what becomes of pictures that are not square: `crop` to their centre, `pad` with black, or `stretch`.
        max_memory_mib: a larger store goes to a memory-mapped file in `cache_dir`.
        cache_dir: folder for that file.
        num_workers: processes that read batches ahead; 0 reads in the training process, which takes microseconds
            where the store is in memory.
        classes: only pictures of these, by name or number, renumbered in this order; null: all.
        max_images: at most so many training pictures: a random choice that is always the same, as even over classes as
            it can be; null: all.
        num_classes: that conditional networks are told of; null: as many as the pictures have; 0: none.
        damaged: what becomes of pictures that cannot be read: `error` stops, `skip` leaves them out.
        max_damaged: no more than this part of a split may be left out.
        max_megapixels: a larger picture counts as damaged and is not decoded.
        seed: of the order.

    Raises:
        ValueError: a setting out of range, or a source without pictures.
    """

    train_set: Store
    test_set: Store
    images_seen: int = 0
    """Real images that the training has seen. A resumed run sets it before the batches are read."""

    def __init__(
        self,
        source: Callable[..., Pictures],
        *,
        path: str,
        resolution: int = 64,
        batch_size: int = 128,
        fit: Fit = "crop",
        max_memory_mib: int = 4096,
        cache_dir: str = "~/.cache/transfergen",
        num_workers: int = 0,
        classes: Sequence[str | int] | None = None,
        max_images: int | None = None,
        num_classes: int | None = None,
        damaged: Damaged = "error",
        max_damaged: float = 0.01,
        max_megapixels: float = MEGAPIXELS,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_fit(fit)
        check_damaged(damaged)
        if not 32 <= resolution <= 256:
            raise ValueError(f"data.resolution={resolution}: choose 32 to 256 pixels")
        if batch_size < 2:
            raise ValueError(f"data.batch_size={batch_size}: batch normalisation needs at least 2")
        if max_images is not None and max_images < 1:
            raise ValueError(f"data.max_images={max_images}: at least 1, or null for all")
        self.source, self.path, self.resolution, self.batch_size = source, path, resolution, batch_size
        self.fit, self.max_memory_mib, self.seed = fit, max_memory_mib, seed
        self.cache_dir = Path(cache_dir).expanduser()
        self.num_workers, self.num_classes = num_workers, num_classes
        self.classes, self.max_images = classes, max_images
        self.damaged, self.max_damaged, self.max_megapixels = damaged, max_damaged, max_megapixels
        self._found: dict[Split, Pictures] = {}

    @property
    def class_count(self) -> int:
        """How many classes the pictures have; 0: none.

        Raises:
            ValueError: not as many as `num_classes`.
        """
        count = len(self.pictures("train").classes)
        if self.num_classes not in (None, 0, count):
            raise ValueError(f"data.num_classes={self.num_classes}: the pictures have {count}; set null or 0")
        return count

    @property
    def batches_per_epoch(self) -> int:
        """How many batches the training reads of each epoch. Known after `setup`."""
        batches = len(self.train_set) // self.batch_size
        limit = self.trainer.limit_train_batches if self.trainer else None
        if limit is None:
            return batches
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def prepare_data(self) -> None:
        """Find the pictures, and download them where the source does that (under a lock)."""
        self.pictures("train")
        self.pictures("test")

    def setup(self, stage: str | None = None) -> None:
        """Decode both splits, once."""
        if not hasattr(self, "train_set"):
            self.train_set, self.test_set = self._store("train"), self._store("test")
            if len(self.train_set) < self.batch_size:
                raise ValueError(
                    f"data.batch_size={self.batch_size}: there are {len(self.train_set)} training images; set at most "
                    "that many"
                )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Whole shuffled batches of this rank's share."""
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if self.batch_size % ranks or self.batch_size < 2 * ranks:
            raise ValueError(
                f"data.batch_size={self.batch_size} is over all {ranks} devices; set a multiple of {ranks}, "
                "at least 2 for each"
            )
        order = BatchOrder(
            len(self.train_set),
            self.batch_size,
            seed=self.seed,
            rank=rank,
            ranks=ranks,
            images_seen=self.images_seen,
            batches_per_epoch=self.batches_per_epoch,
        )
        return DataLoader(
            self.train_set,
            batch_size=None,  # the sampler gives whole batches
            sampler=order,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # or else each epoch draws from the generator that dropout draws from
            pin_memory=torch.cuda.is_available(),
        )

    def pictures(self, split: Split) -> Pictures:
        """The pictures of a split, not decoded yet.

        Raises:
            ValueError: there are none, or the source cannot be read.
        """
        if split not in self._found:
            pictures = self.source(self.path, split)
            if self.classes is not None:
                pictures = of_classes(pictures, self.classes)
            if self.max_images is not None and split == "train":
                pictures = at_most(pictures, self.max_images)
            if not len(pictures):
                raise ValueError(f"data.path={self.path}: no pictures in its {split} split")
            self._found[split] = pictures
        return self._found[split]

    def _store(self, split: Split) -> Store:
        return store.build(
            self.pictures(split),
            resolution=self.resolution,
            fit=self.fit,
            max_memory_mib=self.max_memory_mib,
            cache_dir=self.cache_dir,
            damaged=self.damaged,
            max_damaged=self.max_damaged,
            max_megapixels=self.max_megapixels,
        )


def _as_it_is(batch: Any) -> Any:
    return batch
