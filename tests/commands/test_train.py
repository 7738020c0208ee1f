"""The command `train`, before a training starts."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from runs import train

from transfergen.commands.train import absolute_path

HUGGINGFACE, FOLDER = "transfergen.data.huggingface.huggingface", "transfergen.data.image_folder.image_folder"


@pytest.mark.parametrize(
    ("target", "path", "expected"),
    [
        (FOLDER, "new", "{here}/new"),
        (FOLDER, "~/pictures", "{here}/home/pictures"),
        (FOLDER, 2024, "{here}/2024"),
        (HUGGINGFACE, "someone/something", "someone/something"),
        (HUGGINGFACE, "local", "{here}/local"),
        ("transfergen.data.shapes.shapes", None, None),
    ],
)
def test_a_path_is_kept_from_the_root_and_a_name_on_the_hub_as_it_is(tmp_path, monkeypatch, target, path, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "local").mkdir()
    found = absolute_path(OmegaConf.create({"path": path, "source": {"_target_": target}}))
    assert found == (expected and expected.format(here=Path.cwd()))


def test_a_run_is_not_resumed_into_another_folder(tmp_path):
    (tmp_path / "run").mkdir()
    code, _, err = train(tmp_path / "new", f"resume={tmp_path / 'run'}", small=False)
    assert code == 2
    assert f"hydra.run.dir={tmp_path / 'new'}: resume={tmp_path / 'run'} goes on in its own folder; leave it out" in err
