"""The LightningDataModule of all data sources: pictures -> uint8 store -> batches."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from transfergen.data.decoding import MEGAPIXELS, Damaged
from transfergen.data.formats import bytes_digest
from transfergen.data.pictures import Fit, Pictures, Split, select_classes, subsample
from transfergen.data.sampler import BatchOrder
from transfergen.data.store import Batch, Store, build_store
from transfergen.data.streaming import Filled, Stream, Streamed, fill
from transfergen.errors import counted
from transfergen.image_shape import LARGEST, SMALLEST, Channels, image_shape

log = logging.getLogger(__name__)


def too_few(pictures: int, batch_size: int, noun: str = "picture") -> str | None:
    """Why a training refuses a split of so many pictures, in a line; None: it does not."""
    has = f"the training split has {counted(pictures, noun)}"
    if pictures < 2:
        return f"data.path, data.max_images: {has}, and a batch needs 2; give more pictures"
    return f"data.batch_size={batch_size}: {has}; set at most that many" if pictures < batch_size else None


class ImageDataModule(LightningDataModule):
    """The training and the test split of a data source; the training split as batches in a seeded order.

    Args:
        source: a function (path, split) -> Pictures, or what reads them from a stream.
        path: where the source reads from.
        resolution: the shorter side of the images that the networks see, 32 to 1024 pixels.
        aspect: their width and height as whole numbers, such as (3, 2) or (9, 16).
        channels: of the images: 1, grey; 3, RGB; 4, RGB and alpha, which is opaque where pictures have none.
        batch_size: images per batch, over all ranks.
        fit: how pictures get this shape: `crop` to the centre, `pad` with black or with what is transparent, or
            `stretch`.
        max_memory_mib: a larger store is kept in a memory-mapped file in `cache_dir`.
        cache_dir: folder for that file.
        num_workers: processes that read batches ahead; 0: the training process reads them, which takes microseconds
            if the store is in memory.
        classes: classes to keep, by name or number, renumbered in this order; None: all.
        max_images: training pictures to keep, a random choice that is the same in each run and balanced over classes;
            None: all. Of a stream, no more are read of each split, the first ones.
        num_classes: classes that conditional networks distinguish; None: all; 1: all pictures are one class; 0:
            unconditional.
        damaged: what happens at a picture that cannot be read: `error` stops, `skip` leaves it out.
        max_damaged: the largest fraction of a split that may be left out.
        max_megapixels: a larger picture counts as damaged and is not decoded.
        seed: of the order of the training images.

    Raises:
        ValueError: there are no images of this shape.
    """

    train_set: Store
    test_set: Store
    images_seen: int = 0
    """Real images that the training has seen. A resumed run sets it before the batches are read."""

    def __init__(
        self,
        source: Callable[..., Pictures | Streamed],
        *,
        path: str,
        resolution: int = 64,
        aspect: Sequence[int] = (1, 1),
        channels: Channels = 3,
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
        if not SMALLEST <= resolution <= LARGEST:
            raise ValueError(f"data.resolution={resolution}: choose {SMALLEST} to {LARGEST} pixels")
        self.image_shape = image_shape(resolution, aspect, channels)
        self.source, self.path, self.resolution, self.batch_size = source, path, resolution, batch_size
        self.fit, self.max_memory_mib, self.seed = fit, max_memory_mib, seed
        self.cache_dir = Path(cache_dir).expanduser()
        self.num_workers, self.num_classes = num_workers, num_classes
        self.classes, self.max_images = classes, max_images
        self.damaged, self.max_damaged, self.max_megapixels = damaged, max_damaged, max_megapixels
        self._decoding: dict[str, Any] = {
            "shape": self.image_shape,
            "fit": fit,
            "cache_dir": self.cache_dir,
            "damaged": damaged,
            "max_damaged": max_damaged,
            "max_megapixels": max_megapixels,
        }
        self._pictures: dict[Split, Pictures] = {}
        self._filled: dict[str, Filled] = {}

    @property
    def class_count(self) -> int:
        """The number of classes that the pictures have; 0: none.

        Raises:
            ValueError: `num_classes` is another number, and neither 0 nor 1.
        """
        count = len(self.pictures("train").classes)
        if self.num_classes not in (None, 0, count):
            raise ValueError(f"data.num_classes={self.num_classes}: the pictures have {count}; set null, 1 or 0")
        return count

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches that the training reads in each epoch, after `setup`."""
        batches = len(self.train_set) // self.batch_size
        limit = self.trainer.limit_train_batches if self.trainer else None
        if limit is None:
            return batches
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def prepare_data(self) -> None:
        """Find the pictures of both splits, and say how the source was read; some sources download, under a lock."""
        first = not self._pictures
        for note in self.notes():
            log.log(logging.INFO if first else logging.DEBUG, note)

    def setup(self, stage: str | None = None) -> None:
        """Decode both splits, unless they are already.

        Raises:
            ValueError: a picture cannot be read, there are fewer training images than `batch_size` or no test images,
                or `trainer.limit_train_batches` leaves no batch.
        """
        if not hasattr(self, "train_set"):
            self.train_set, self.test_set = self._store("train"), self._store("test")
            if refusal := too_few(len(self.train_set), self.batch_size, "image"):
                raise ValueError(refusal)
            if not len(self.test_set):
                raise ValueError(
                    f"data.path={self.path}: no picture of its test split can be read; mend or replace them"
                )
        if self.trainer and self.batches_per_epoch < 1:
            limit = self.trainer.limit_train_batches
            raise ValueError(f"trainer.limit_train_batches={limit}: leaves no batch of an epoch; set more, or null")

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of this rank, each its share of a global batch, shuffled.

        Raises:
            ValueError: `batch_size` cannot be divided over the ranks.
        """
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        if self.batch_size % ranks or self.batch_size < 2 * ranks:
            raise ValueError(
                f"data.batch_size={self.batch_size}: it is divided over {ranks} devices; set a multiple of {ranks}, "
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
            collate_fn=_identity,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # else each epoch would change the random numbers of dropout
            pin_memory=torch.cuda.is_available(),
        )

    def pictures(self, split: Split) -> Pictures:
        """The pictures of a split, with `classes`, `max_images` and `num_classes` applied; only streams are decoded.

        Raises:
            ValueError: the split has no pictures, or the source cannot be read.
        """
        if split not in self._pictures:
            found = self.source(self.path, split)
            pictures = found if isinstance(found, Pictures) else found(self._fill)
            if self.classes is not None:
                before, pictures = len(pictures), select_classes(pictures, self.classes)
                if before and not len(pictures):
                    raise ValueError(
                        f"data.classes={list(self.classes)}: {split} split without pictures of them, of "
                        f"{counted(before, 'picture')}; choose more classes, or another data.source.holdout"
                    )
            if self.max_images is not None and split == "train":
                pictures = subsample(pictures, self.max_images)
            if self.num_classes == 1:
                pictures = replace(pictures, labels=np.zeros_like(pictures.labels), classes=("all",))
            if not len(pictures):
                raise ValueError(f"data.path={self.path}: no pictures in its {split} split")
            self._pictures[split] = pictures
        return self._pictures[split]

    def notes(self) -> list[str]:
        """Lines on how the source was read and what it left out."""
        return list(dict.fromkeys(self.pictures("train").notes + self.pictures("test").notes))

    def splits(self) -> dict[str, dict[str, Any]]:
        """The number of pictures in each split, and a digest that tells whether they are the same another time.

        The digest is that of 1,000 pictures at even distances, so that it costs little.
        """
        about = {}
        for split in get_args(Split):
            pictures = self.pictures(split)
            positions = np.unique(np.linspace(0, len(pictures) - 1, 1000).astype(int))
            digests = sorted(pictures.content_digest(int(i)) for i in positions)
            about[split] = {"pictures": len(pictures), "digest": bytes_digest(b"".join(digests)).hex()}
        return about

    def _fill(self, stream: Stream) -> Filled:
        if stream.identity not in self._filled:
            self._filled[stream.identity] = fill(stream, limit=self.max_images, **self._decoding)
        return self._filled[stream.identity]

    def _store(self, split: Split) -> Store:
        return build_store(self.pictures(split), max_memory_mib=self.max_memory_mib, **self._decoding)


def _identity(batch: Any) -> Any:
    return batch
