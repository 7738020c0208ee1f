"""Faults that a run must survive, as somebody meets them; those of one module alone are tested beside it."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from forks import start_python
from PIL import Image
from runs import ANY_MODEL, ROOT, SMALL_MODELS, called, command, train

from transfergen.commands import evaluate

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"]]


def pictures(folder, count=40):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (40 + i % 3, 40, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def own(folder, cache):
    """Overrides that train on a folder of pictures."""
    return [o for o in SMALL if not o.startswith(("data=", "data.source", "data.cache"))] + [
        "data=image_folder",
        f"data.path={folder}",
        f"data.cache_dir={cache}",
    ]


def images_saved(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["transfergen"]["images_seen"]


def test_two_runs_started_at_once_have_two_folders_and_one_cache(tmp_path):
    folder, cache = pictures(tmp_path / "pictures"), tmp_path / "cache"
    arguments = [str(ROOT / "train.py"), *own(folder, cache), "data.max_memory_mib=0", "max_images=8"]
    stderrs = [tmp_path / f"{name}.stderr" for name in "ab"]
    both = [start_python(*arguments, folder=tmp_path, stderr=str(stderr)) for stderr in stderrs]
    for process, stderr in zip(both, stderrs, strict=True):
        process.join(200)
        assert process.exitcode == 0, stderr.read_text()
    assert len(list((tmp_path / "outputs").glob("*/*/metrics.json"))) == 2
    assert len(list(cache.glob("*.npy"))) == 2  # one a split


def test_read_only_folder_of_pictures_works(tmp_path):
    folder = pictures(tmp_path / "pictures")
    bind = ["mount", "--bind", str(folder), str(folder)]
    if shutil.which("mount") is None or subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs more rights than these")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (folder / "new").touch()
        code, _, err = train(tmp_path / "run", *own(folder, tmp_path / "cache"), "max_images=8", small=False)
        assert code == 0, err
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_too_few_pictures_and_an_empty_class_end_before_training(tmp_path):
    few = own(pictures(tmp_path / "few", count=6), tmp_path / "cache")
    code, _, err = train(tmp_path / "run", *few, small=False)
    assert code == 2
    assert "data.batch_size=8: the training split has 5 images; set at most that many" in err
    (pictures(tmp_path / "classes" / "cat").parent / "dog").mkdir()
    code, _, err = train(tmp_path / "run", *own(tmp_path / "classes", tmp_path / "cache"), small=False)
    assert code == 2
    assert "the class folder dog holds no picture" in err


def test_damaged_pictures_stop_a_run_or_are_left_out(tmp_path):
    folder = pictures(tmp_path / "pictures")
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:500])
    settings = own(folder, tmp_path / "cache")
    code, _, err = train(tmp_path / "run", *settings, "max_images=8", small=False)
    assert code == 2
    assert "7.png" in err
    assert "set data.damaged=skip" in err
    skipping = ["data.damaged=skip", "data.max_damaged=0.1", "max_images=8"]
    code, _, err = train(tmp_path / "run", *settings, *skipping, small=False)
    assert code == 0, err
    assert "of 36 pictures cannot be read" in (tmp_path / "run" / "train.log").read_text()


def test_a_run_finds_its_pictures_from_any_folder_and_says_that_their_split_is_another(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    code, _, err = train("run", *own("pictures", tmp_path / "cache"), "max_images=8", small=False)
    assert code == 0, err
    (tmp_path / "elsewhere").mkdir()
    pictures(tmp_path / "elsewhere" / "pictures", count=20)  # others, where the relative path leads from there
    monkeypatch.chdir(tmp_path / "elsewhere")
    for i in range(40, 80):
        shutil.copy(folder / f"{i - 40}.png", folder / f"{i}.png")
    code, _, err = train(None, f"resume={tmp_path / 'run'}", "max_images=16", small=False)
    assert code == 0, err
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"data.path={folder}: the test split is not the one that the run began with, of 4 pictures then and 8" in log
    code, _, err = called(evaluate.main, f"run={tmp_path / 'run'}", "metrics=pixels", "neighbours=0")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["data_path"] == str(folder)


def test_what_leaves_nothing_to_train_on_or_to_measure_is_refused_by_name(tmp_path):
    settings = own(pictures(tmp_path / "pictures", count=12), tmp_path / "cache")
    code, _, err = train(tmp_path / "run", *settings, small=False)
    assert code == 2
    assert "not measured on 1 test image with pixels, 16x16; have more, as by a larger data.source.holdout" in err
    code, _, err = train(tmp_path / "run", *settings, "trainer.limit_train_batches=0.01", small=False)
    assert code == 2
    assert "trainer.limit_train_batches=0.01: leaves no batch of an epoch; set more" in err


def train_on_two_ranks(run_dir, *overrides):
    """Run train.py in a process that starts another: (exit code, stderr)."""
    stderr = run_dir.with_name(f"{run_dir.name}.stderr")
    process = start_python(str(ROOT / "train.py"), *overrides, "trainer.devices=2", stderr=str(stderr))
    process.join(300)  # on a busy machine the imports of two ranks take minutes
    return process.exitcode, stderr.read_text()


def test_divergence_stops_both_ranks_before_the_update(tmp_path):
    code, err = train_on_two_ranks(tmp_path, f"hydra.run.dir={tmp_path}", *SMALL, "optimizer.generator.lr=1e30")
    assert code == 3, err
    assert "not finite" in err
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_run_goes_on_with_another_number_of_devices(tmp_path):
    code, _, err = train(tmp_path, *SMALL, "max_images=24", small=False)
    assert code == 0, err
    code, err = train_on_two_ranks(tmp_path, f"resume={tmp_path}", "max_images=48")
    assert code == 0, err
    assert images_saved(tmp_path) == 48


@pytest.mark.faults
def test_memory_does_not_grow_over_2000_steps_and_event_files_stay_small(tmp_path):
    """A long run without a fault: a leak would show in the slope of the second half."""
    watched = tmp_path / "watch.py"
    watched.write_text(
        "import resource, sys\n"
        "from transfergen.training.callbacks import StopAtImages\n"
        "from transfergen.commands.train import main\n"
        "before = StopAtImages.on_train_batch_end\n"
        "def batch_end(self, trainer, module, *rest):\n"
        "    if module.images_seen % (8 * 500) == 0:\n"
        "        pages = int(open('/proc/self/statm').read().split()[1])\n"
        "        print('MEMORY', module.images_seen // 8, pages * resource.getpagesize(), file=sys.stderr)\n"
        "    before(self, trainer, module, *rest)\n"
        "StopAtImages.on_train_batch_end = batch_end\n"
        "main()\n"
    )
    steps = ["max_images=20000", "trainer.max_epochs=100000", "samples.every_images=800", "checkpoint_every_images=800"]
    ran = command(tmp_path / "run", *SMALL, *steps, script=watched, timeout=600)
    assert ran.returncode == 0, ran.stderr
    memory = {int(line.split()[1]): int(line.split()[2]) for line in ran.stderr.splitlines() if "MEMORY" in line}
    assert sorted(memory) == [500, 1000, 1500, 2000, 2500]
    assert memory[2500] - memory[500] < 32 * 2**20, memory
    events = sum(file.stat().st_size for file in (tmp_path / "run").rglob("events.out.tfevents.*"))
    assert events < 40 * 2**20, events
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))) <= 3
