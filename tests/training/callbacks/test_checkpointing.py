import json

import torch

from transfergen.networks.generators.resnet import ResNet
from transfergen.runs.generator_files import load_generator, read_metadata
from transfergen.training.callbacks.checkpointing import Checkpointing, Snapshots

CONFIG = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 32, "width": 4}


def saved(run_dir):
    """Images seen according to the checkpoint and to the generator's file."""
    checkpoint, generator = run_dir / "checkpoints" / "last.ckpt", run_dir / "generator.json"
    if not checkpoint.exists():
        return None
    assert json.loads(generator.read_text())["images_seen"] == int(checkpoint.read_text())
    return int(checkpoint.read_text())


def test_checkpoint_and_generator_are_saved_together_at_intervals_and_at_the_end(fit, tmp_path):
    files = Checkpointing(tmp_path, CONFIG, every_images=16)
    found = []
    for images in (8, 16, 24, 32):
        fit(files, images=images, end=False)
        found.append(saved(tmp_path))
    assert found == [None, 16, 16, 32]
    fit(files, images=40)
    assert saved(tmp_path) == 40
    assert load_generator(tmp_path).resolution == 32


def test_each_snapshot_stays(fit, module, tmp_path):
    snapshots = Snapshots(tmp_path, CONFIG, every_images=16)
    weights = {}
    for images in (8, 16, 24, 32):
        fit(snapshots, images=images, end=False)
        weights[images] = module.generator.state_dict()["layers.0.weight"].clone()
    fit(snapshots, images=40)
    assert sorted(folder.name for folder in (tmp_path / "snapshots").iterdir()) == [
        "000000016",
        "000000032",
        "000000040",
    ]
    for images in (16, 32):
        folder = tmp_path / "snapshots" / f"{images:09d}"
        assert read_metadata(folder)["images_seen"] == images
        assert torch.equal(load_generator(folder).state_dict()["layers.0.weight"], weights[images])


def test_a_conditional_generators_file_names_the_classes_that_it_was_trained_on(fit, trainer, module, tmp_path):
    config = {"resolution": 32, "width": 4, "num_classes": 2}
    trainer.datamodule.train_set.classes = ("cat", "dog")
    for name in ("unconditional", "conditional"):
        (tmp_path / name).mkdir()
    fit(Checkpointing(tmp_path / "unconditional", CONFIG, every_images=8), images=8)
    assert "classes" not in read_metadata(tmp_path / "unconditional")
    module.generator = ResNet(**config)
    target = {"_target_": "transfergen.networks.generators.resnet.ResNet", **config}
    fit(Checkpointing(tmp_path / "conditional", target, every_images=8), images=16)
    assert read_metadata(tmp_path / "conditional")["classes"] == ["cat", "dog"]
