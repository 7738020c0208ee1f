import numpy as np
import torch
from PIL import Image

from transfergen.images import to_grid
from transfergen.networks.generators.base import sample
from transfergen.training.callbacks.collapse_warning import GRACE_IMAGES
from transfergen.training.callbacks.samples import SampleGrid


def test_grids_are_of_fixed_latents_and_named_by_images_seen(fit, module, tmp_path):
    fit(SampleGrid(tmp_path, every_images=16, count=4, seed=7), images=40)
    names = sorted(file.name for file in (tmp_path / "samples").iterdir())
    assert names == ["000000016.png", "000000032.png", "000000040.png", "reals.png"]
    expected = np.asarray(to_grid(sample(module.generator, range(7, 11), torch.device("cpu"))))
    for name in ("samples/000000016.png", "samples/000000040.png", "grid.png"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), expected)


def test_reals_are_of_the_training_set(fit, trainer, tmp_path):
    trainer.datamodule.test_set = None
    fit(SampleGrid(tmp_path, every_images=16, count=4), images=8)
    pixels = trainer.datamodule.train_set.sample_images(4).pixels
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples" / "reals.png")), np.asarray(to_grid(pixels)))


def test_diversity_is_logged_and_a_collapse_is_warned_of(fit, trainer, module, tmp_path, caplog):
    module.images_seen = GRACE_IMAGES - GRACE_IMAGES % 8
    for weights in module.generator.parameters():
        weights.data.mul_(1e-3)
    fit(SampleGrid(tmp_path, every_images=8, count=4), images=module.images_seen + 8)
    ((step, scalars),) = trainer.loggers[0]
    assert step == module.images_seen
    assert 0 <= scalars["samples/diversity"] < 0.3
    assert f"is {scalars['samples/diversity']:.2f} after {step:,} images" in caplog.text
    assert "try a lower" in caplog.text


def test_a_collapse_that_was_warned_of_is_not_warned_of_again_by_a_resumed_run(fit, module, tmp_path, caplog):
    module.images_seen = GRACE_IMAGES - GRACE_IMAGES % 8
    for weights in module.generator.parameters():
        weights.data.mul_(1e-3)
    first, resumed = (SampleGrid(tmp_path, every_images=8, count=4) for _ in range(2))
    fit(first, images=module.images_seen + 8)
    resumed.load_state_dict(first.state_dict())
    fit(resumed, images=module.images_seen + 8)
    assert caplog.text.count("may be collapsing") == 1


def test_a_single_sample_has_no_diversity(fit, trainer, tmp_path):
    fit(SampleGrid(tmp_path, every_images=8, count=1), images=8)
    assert trainer.loggers[0] == []


def test_a_grid_takes_the_place_of_a_link_and_is_not_written_through_it(fit, tmp_path):
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"mine")
    (tmp_path / "grid.png").symlink_to(elsewhere)
    fit(SampleGrid(tmp_path, every_images=8, count=4), images=8)
    assert elsewhere.read_bytes() == b"mine"
    assert Image.open(tmp_path / "grid.png").size
