"""Presets of other folders: they say settings, and nothing that runs before a setting is looked at."""

import pytest
from runs import called

from transfergen.commands.train import main

CALLBACK = "{hydra: {callbacks: {evil: {_target_: transfergen.runs.artefacts.write}}}}"


@pytest.fixture
def preset(tmp_path):
    """A function that writes experiment=nice with this content, and composes the config of a training with it."""

    def compose(content, header="# @package _global_", group="experiment", *overrides):
        folder = tmp_path / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "nice.yaml").write_text(f"{header}\n{content}\n")
        return called(main, f"--config-dir={tmp_path}", f"{group}=nice", *overrides, "--cfg", "job")

    return compose


def test_a_preset_says_settings_and_refers_to_others(preset):
    code, out, err = preset("{defaults: [override /model: dcgan], seed: 7, max_images: '${seed}'}")
    assert code == 0, err
    assert "seed: 7" in out


@pytest.mark.parametrize(
    ("content", "header", "group"),
    [
        (CALLBACK, "# @package _global_", "experiment"),
        ("{job: {env_set: {LD_PRELOAD: evil.so}}}", "# @package hydra", "experiment"),
        ("{evil: {_target_: transfergen.runs.artefacts.write}}", "", "hydra/callbacks"),
        ("{defaults: [{/other@hydra.callbacks.evil: nice}]}", "# @package _global_", "experiment"),
    ],
    ids=["global", "package", "group", "defaults"],
)
def test_a_preset_that_sets_hydra_is_refused(preset, tmp_path, content, header, group):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "nice.yaml").write_text("_target_: transfergen.runs.artefacts.write\n")
    code, _, err = preset(content, header, group)
    assert code == 2
    assert "nice: sets hydra.*, which only the command line" in err


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${now:%Y}", "a${${seed}:HOME}", "${oc.${seed}:HOME}"])
def test_a_preset_that_calls_a_resolver_is_refused(preset, value):
    code, _, err = preset(f"{{data: {{cache_dir: '{value}'}}}}")
    assert code == 2
    assert "nice: calls a resolver" in err


def test_a_whole_folder_of_configs_is_no_more_trusted(tmp_path):
    (tmp_path / "train.yaml").write_text(f"{CALLBACK}\n")
    code, _, err = called(main, f"--config-path={tmp_path}", "--cfg", "job")
    assert code == 2
    assert "sets hydra.*" in err


def test_the_command_line_may_set_hydra(preset):
    code, _, err = preset("{seed: 7}", "# @package _global_", "experiment", "hydra.job.name=mine")
    assert code == 0, err
