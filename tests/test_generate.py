import json
import sys
from unittest import mock

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from runs import train

from transfergen.generate import main


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert train(folder, "max_images=16")[0] == 0
    return folder


def generate(out, **settings):
    GlobalHydra.instance().clear()
    arguments = [f"{key}={value}" for key, value in ({"out": out} | settings).items()]
    with mock.patch.object(sys, "argv", ["generate", *arguments]):
        main()
    return {file.name: np.asarray(Image.open(file)) for file in sorted((out / "images").iterdir())}


def test_images_are_numbered_and_in_a_grid(run_dir, tmp_path):
    images = generate(tmp_path / "out", run=run_dir, num=5)
    assert list(images) == [f"{i:06d}.png" for i in range(5)]
    assert all(image.shape == (32, 32, 3) for image in images.values())
    assert Image.open(tmp_path / "out" / "grid.png").size == (3 * 34 + 2, 2 * 34 + 2)


def test_same_seed_gives_the_same_images_whatever_the_number_and_the_batch(run_dir, tmp_path):
    a = generate(tmp_path / "a", run=run_dir, num=6, seed=3)
    b = generate(tmp_path / "b", run=run_dir, num=4, seed=3, batch_size=3)
    c = generate(tmp_path / "c", run=run_dir, num=4, seed=4)
    for name in b:
        assert np.abs(a[name].astype(int) - b[name]).max() <= 1  # a batch of another size rounds differently
    assert np.abs(a["000001.png"].astype(int) - c["000000.png"]).max() <= 1
    assert not np.array_equal(a["000000.png"], c["000000.png"])


def test_truncation_changes_the_images(run_dir, tmp_path):
    plain = generate(tmp_path / "plain", run=run_dir, num=1)
    truncated = generate(tmp_path / "truncated", run=run_dir, num=1, truncation=0.1)
    assert not np.array_equal(plain["000000.png"], truncated["000000.png"])


def refusal(capsys, out, **settings):
    with pytest.raises(SystemExit) as stop:
        generate(out, **settings)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_what_is_no_run_is_refused(run_dir, tmp_path, capsys):
    assert "run=RUN_DIR" in refusal(capsys, tmp_path / "out")
    assert "no such folder" in refusal(capsys, tmp_path / "out", run=tmp_path / "nowhere")
    assert "generator.json" in refusal(capsys, tmp_path / "out", run=tmp_path)
    assert "num=0" in refusal(capsys, tmp_path / "out", run=run_dir, num=0)
    assert "truncation=0" in refusal(capsys, tmp_path / "out", run=run_dir, truncation=0)
    assert "classes=[3]: this generator has 0" in refusal(capsys, tmp_path / "out", run=run_dir, classes="[3]")


def test_damaged_or_foreign_files_are_refused(run_dir, tmp_path, capsys):
    for name in ("generator.json", "generator.safetensors"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    about = json.loads((tmp_path / "generator.json").read_text())
    about["generator"]["width"] = 16
    (tmp_path / "generator.json").write_text(json.dumps(about))
    assert "another architecture" in refusal(capsys, tmp_path / "out", run=tmp_path)
    about["generator"] = {"_target_": "os.system", "command": "true"}
    (tmp_path / "generator.json").write_text(json.dumps(about))
    assert "refused" in refusal(capsys, tmp_path / "out", run=tmp_path)
    (tmp_path / "generator.json").write_text("{")
    assert "damaged" in refusal(capsys, tmp_path / "out", run=tmp_path)
