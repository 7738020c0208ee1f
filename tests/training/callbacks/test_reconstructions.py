import numpy as np
import pytest
import torch
from PIL import Image

from transfergen.images import to_float, to_grid
from transfergen.losses.divergence import Elbo
from transfergen.networks.encoders.dcgan import DCGANEncoder
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.callbacks.reconstructions import Reconstructions
from transfergen.training.vae_module import VAE


@pytest.fixture
def module(trainer):
    """A small VAE in a training that has seen no image yet."""
    networks = DCGAN(resolution=32, width=4, z_dim=8), DCGANEncoder(resolution=32, width=4, z_dim=8)
    trainer.module = VAE(*networks, Elbo(), g_optimizer=torch.optim.Adam, ema_halflife_images=0)
    return trainer.module


def pixels(file):
    return np.asarray(Image.open(file))


def test_grids_are_of_test_images_and_of_what_lies_between_them(fit, trainer, module, tmp_path):
    trainer.datamodule.train_set = None
    fit(Reconstructions(tmp_path, every_images=16), images=24)
    for kind in ("reconstructions", "interpolations"):
        assert sorted(file.name for file in (tmp_path / kind).iterdir()) == ["000000016.png", "000000024.png"]
    images = to_float(trainer.datamodule.test_set.sample_images(32).pixels)
    z = module.encode(images)
    pairs = torch.stack([images, module.decode(z)], dim=1).flatten(0, 1)
    found = pixels(tmp_path / "reconstructions" / "000000024.png")
    assert np.array_equal(found, np.asarray(to_grid(pairs, columns=8)))
    rows = pixels(tmp_path / "interpolations" / "000000024.png")
    assert rows.shape == (8 * 34 + 2, 8 * 34 + 2, 3)  # 16 test images: 8 lines from the first 8 to the others
    ends = [pixel for i in range(8) for pixel in (z[i], z[8 + i])]
    expected = np.asarray(to_grid(module.decode(torch.stack(ends)), columns=2))
    for column, left in ((0, 0), (1, 7 * 34)):  # the first and the last image of each row
        assert np.abs(rows[:, left : left + 34].astype(int) - expected[:, 34 * column :][:, :34]).max() <= 1


def test_a_class_conditional_decoder_gets_the_classes_of_the_images(fit, module, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(module.generator, "num_classes", 3)
    monkeypatch.setattr(module, "decode", lambda z, y: given.append((len(z), y)) or torch.zeros(len(z), 3, 32, 32))
    fit(Reconstructions(tmp_path, every_images=8), images=8)
    assert [(count, len(y)) for count, y in given] == [(16, 16), (64, 64)]
