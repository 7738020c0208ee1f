"""Real images and their features, as the discriminator sees them."""

from collections.abc import Callable

import torch
from torch import Tensor

from transfergen.data.store import Batch, Store
from transfergen.images import Size, to_float
from transfergen.networks.acceleration import winograd
from transfergen.networks.discriminators.base import Discriminator
from transfergen.training.augmentation import Augmentation
from transfergen.training.turn_losses import Features


class RealFeatures:
    """The training set's images, and the features that a discriminator's frozen blocks have of them.

    Args:
        store: the training set.
        size: H and W, in pixels.
        discriminator: its frozen blocks compute the features.
        augment: what images go through first. With any augmentation, no features are kept.
        cache_mib: memory for features that are kept; see FeatureCache.
    """

    def __init__(
        self, store: Store, size: Size, discriminator: Discriminator, augment: Augmentation, *, cache_mib: int
    ) -> None:
        self._store, self._size = store, size
        self._discriminator, self._augment = discriminator, augment
        self._cache = FeatureCache(len(store), cache_mib if augment.is_identity else 0)

    def sample_images(self, count: int, seed: int, device: torch.device) -> Tensor:
        """`count` images (N, C, H, W) in [-1, 1], chosen at random by the seed: the same on all ranks."""
        return to_float(self._store.sample_images(count, seed).pixels.to(device), self._size)

    def images(self, batch: Batch, positions: Tensor | None = None) -> Tensor:
        """The images of a batch, or those at `positions` (N,) in it: (N, C, H, W) in [-1, 1]."""
        pixels = batch.pixels
        if positions is not None and len(positions) < len(pixels):
            pixels = pixels[positions.to(pixels.device, non_blocking=True)]
        return to_float(pixels, self._size)

    def of_batch(self, batch: Batch) -> Features:
        """The features of a batch's augmented images, from the cache where they are in it."""

        def compute(positions: Tensor | None) -> Features:
            return self._discriminator.features(self._augment(self.images(batch, positions)))

        if self._discriminator.frozen_blocks and self._cache.has_room:
            with winograd.not_used():  # a resumed run finds what is missing here in other batches
                features = self._cache.get(torch.from_numpy(batch.indices), compute)
            if features is not None:
                return features
        return compute(None)

    def clear_cache(self) -> None:
        """Compute all features anew from now on: the frozen blocks have changed."""
        self._cache.clear()


class FeatureCache:
    """Features of real images by their index, so that a frozen prefix sees each image once and not once an epoch.

    Only sound where the features of an image never change: a frozen prefix in eval mode, images without augmentation.

    Args:
        size: number of images in the training set.
        max_mib: nothing is kept if the features of all of them would take more.
    """

    def __init__(self, size: int, max_mib: int) -> None:
        self.size, self.max_bytes = size, max_mib * 2**20
        self.clear()

    def clear(self) -> None:
        """Drop all features: the prefix has changed."""
        self.has_room = self.max_bytes > 0
        """Whether the features of all images fit, as far as is known yet."""
        self._store: Features | None = None
        self._known = torch.zeros(self.size, dtype=torch.bool)

    @torch.no_grad()
    def get(self, indices: Tensor, compute: Callable[[Tensor], Features]) -> Features | None:
        """Features of the images `indices` (B,), on the CPU; None: those of all images do not fit.

        `compute` gives those of some positions in the batch.
        """
        missing = (~self._known[indices]).nonzero().squeeze(1)
        if len(missing) == len(indices):
            fresh = compute(missing)
            self._put(indices, fresh)
            return fresh if self.has_room else None
        if len(missing):
            self._put(indices[missing], compute(missing))
        assert self._store is not None
        found = [store[indices.to(store.device, non_blocking=True)] for store in self._store]
        return [found[i] for i in self._order]

    def _put(self, indices: Tensor, features: Features) -> None:
        distinct = {id(f): f for f in features}  # the last frozen tap may be the next block's input as well
        if self._store is None:
            bytes_an_image = sum(f[0].numel() * f.element_size() for f in distinct.values())
            self.has_room = bytes_an_image * self.size <= self.max_bytes
            if not self.has_room:
                return
            self._store = [f.new_empty((self.size, *f.shape[1:])) for f in distinct.values()]
            self._order = [list(distinct).index(id(f)) for f in features]
        for store, feature in zip(self._store, distinct.values(), strict=True):
            store[indices.to(store.device, non_blocking=True)] = feature
        self._known[indices] = True
