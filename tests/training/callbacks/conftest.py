"""Stand-ins that callbacks can be called with, without a training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from transfergen.data.pictures import from_array
from transfergen.data.store import Store
from transfergen.image_shape import ImageShape
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.base_module import GenerativeModule
from transfergen.training.finite_updates import FiniteUpdates

BATCH_SIZE = 8


class Curves(list):
    """A logger that collects (images seen, scalars)."""

    def log_metrics(self, metrics, step):
        self.append((step, metrics))

    def save(self):
        pass


@pytest.fixture
def trainer():
    """A trainer on one device with data and a logger; checkpoints are files that hold the number of images seen."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    images = Store(pixels, from_array("noise", pixels, np.zeros(16, np.int64), ()))
    data = SimpleNamespace(
        batch_size=BATCH_SIZE,
        batches_per_epoch=len(pixels) // BATCH_SIZE,
        image_shape=ImageShape(3, 32, 32),
        cache_dir=None,
        train_set=images,
        test_set=images,
    )

    def save_checkpoint(path, weights_only):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(str(stand_in.module.images_seen))

    stand_in = SimpleNamespace(
        datamodule=data,
        loggers=[Curves()],
        optimizers=[],
        is_global_zero=True,
        should_stop=False,
        progress_bar_callback=None,
        strategy=SimpleNamespace(broadcast=lambda value: value),
        save_checkpoint=save_checkpoint,
    )
    return stand_in


@pytest.fixture
def module(trainer):
    """A small generator in a training that has seen no image yet."""
    trainer.module = GenerativeModule(DCGAN(resolution=32, width=4), ema_halflife_images=0, ema_rampup=0, seed=0)
    trainer.module.updates = FiniteUpdates(torch.device("cpu"))
    return trainer.module


@pytest.fixture
def fit(trainer, module):
    """A function that shows callbacks all batches until `images` images were seen, as a training does."""

    def run(*callbacks, images, end=True):
        for callback in callbacks:
            callback.on_train_start(trainer, module)
        while module.images_seen < images and not trainer.should_stop:
            for callback in callbacks:
                callback.on_train_batch_start(trainer, module, None, 0)
            module.images_seen += BATCH_SIZE
            for callback in callbacks:
                callback.on_train_batch_end(trainer, module, None, None, 0)
        if end:
            for callback in callbacks:
                callback.on_train_end(trainer, module)

    return run
