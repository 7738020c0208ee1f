"""Sweeps with trials that fail, are killed, or are finished."""

import inspect
import io
import json
import re
import time

import pytest
from forks import start_python
from PIL import Image
from rich.console import Console
from runs import ANY_MODEL, SMALL_MODELS, command, train

from transfergen.commands.sweep import PENALTY, _table, collect, plot, run_trial, trials_left, varied
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import save

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "evaluation.count=16", "max_images=8"]


def sweep(folder, *overrides):
    return train(None, "-m", *SMALL, f"hydra.sweep.dir={folder}", *overrides, small=False)


def test_a_diverging_trial_does_not_end_the_sweep_and_is_in_the_table(tmp_path):
    code, out, err = sweep(tmp_path, "optimizer.generator.lr=1e-4,1e30,2e-4", "max_images=32")
    assert code == 0, err
    assert "not finite" in " ".join(out.split())
    trials = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert [each["error"] is None for each in trials] == [True, True, False]
    assert trials[0]["value"] <= trials[1]["value"] < trials[2]["value"] == PENALTY
    assert trials[2]["name"] == "1"
    assert (tmp_path / "sweep.png").stat().st_size > 5000


def test_a_sweep_whose_trials_all_fail_says_why_and_ends_with_an_error(tmp_path):
    code, _, err = sweep(tmp_path, "generator.width=8,16", "data.batch_size=1000")
    assert code == 2
    assert "no trial succeeded, and the first failed with: data.batch_size=1000: the training split has 64" in err


def test_the_same_command_goes_on_with_a_sweep_and_another_one_is_refused(tmp_path, monkeypatch):
    trained = []

    def stub(config, run_dir, checkpoint, *, composed):
        (run_dir / artefacts.COMPOSED).write_text(composed)
        trained.append((run_dir.name, checkpoint))
        return float(config.seed)

    monkeypatch.setattr("transfergen.training.fit.train", stub)
    assert sweep(tmp_path, "seed=1,2")[0] == 0
    (tmp_path / "1" / artefacts.TRIAL).unlink()  # as if it had been killed in the second trial
    save({}, tmp_path / "1" / artefacts.LAST_CHECKPOINT)
    code, _, err = sweep(tmp_path, "seed=1,2", "trainer.max_epochs=400")
    assert code == 2
    assert "holds a sweep with other settings; choose another folder" in err
    code, _, err = sweep(tmp_path, "seed=1,2,3")
    assert code == 0, err
    assert trained == [("0", None), ("1", None), ("1", tmp_path / "1" / artefacts.LAST_CHECKPOINT), ("2", None)]
    assert [each["value"] for each in collect(tmp_path)] == [1, 2, 3]


def test_a_metric_of_nan_is_a_failure_with_a_finite_value(tmp_path):
    assert run_trial(tmp_path, str, [], lambda begun, composed: float("nan")) == PENALTY
    assert json.loads((tmp_path / "trial.json").read_text())["error"] == "its metric is nan"
    assert run_trial(tmp_path, str, [], lambda begun, composed: 2.0) == 2.0  # failed ones are tried again
    assert run_trial(tmp_path, str, [], lambda begun, composed: 3.0) == 2.0  # and others are done


@pytest.mark.parametrize("error", [RuntimeError("[enforce fail]: can't allocate memory\nmore"), MemoryError("malloc")])
def test_a_trial_without_memory_says_what_to_set_as_a_training_does(tmp_path, error):
    def train(begun, composed):
        raise error

    assert run_trial(tmp_path, str, [], train) == PENALTY
    settings = "data.batch_size, optimizer.accumulate=2 or generator_checkpointing=true"
    line = f"not enough memory ({str(error).splitlines()[0]}); set a smaller {settings}"
    assert json.loads((tmp_path / "trial.json").read_text())["error"] == line


def test_a_finished_trial_stays_finished_though_its_source_is_gone(tmp_path):
    def gone():
        raise ValueError("init_from.generator=x: there is no such file")

    assert run_trial(tmp_path, gone, [], lambda begun, composed: 2.0) == PENALTY
    assert run_trial(tmp_path, str, [], lambda begun, composed: 2.0) == 2.0
    assert run_trial(tmp_path, gone, [], lambda begun, composed: 3.0) == 2.0
    assert json.loads((tmp_path / "trial.json").read_text())["error"] is None


def test_a_source_that_does_not_fit_fails_its_trial_and_not_the_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("transfergen.training.fit.train", lambda config, *_, composed: float(config.seed))
    code, _, err = sweep(tmp_path, "init_from.generator=builtin:cifar10,null", "seed=3")
    assert code == 0, err
    good, failed = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert (good["name"], good["value"], failed["name"]) == ("1", 3, "0")
    assert failed["error"].startswith("generator.width=8: init_from.generator=builtin:cifar10 has")


@pytest.mark.parametrize("content", ["", '{"va', "[1]", "3", '{"value": 1}'])
def test_a_trial_whose_outcome_is_damaged_is_left_out_and_trained_again(tmp_path, content, caplog):
    trained = []
    for name in ("0", "1"):
        (tmp_path / name).mkdir()
        run_trial(tmp_path / name, lambda: "", [], lambda *given: trained.append(given) or 2.0)
    (tmp_path / "0" / artefacts.TRIAL).write_text(content)
    assert [trial["name"] for trial in collect(tmp_path)] == ["1"]
    assert "trial.json is damaged" in caplog.text
    for name in ("0", "1"):
        run_trial(tmp_path / name, lambda: "", [], lambda *given: trained.append(given) or 2.0)
    assert len(trained) == 3
    assert len(collect(tmp_path)) == 2


def test_settings_that_differ_are_plotted(tmp_path):
    about = {"error": None, "seconds": 1.0, "name": "x"}
    trials = [
        {"value": 2.0, "started": 1.0, "overrides": ["lr=1e-4", "model=dcgan", "trials=2"], **about},
        {
            "value": 1.0,
            "started": 2.0,
            "overrides": ["lr=1e-2", "model=dcgan", "ema.rampup=0", "~logger", "trials=3"],
            **about,
        },
    ]
    assert varied(trials) == {"ema.rampup": [None, "0"], "lr": ["1e-4", "1e-2"], "~logger": [None, ""]}
    plot(trials, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_has_the_numbers_of_the_trials_and_the_values_that_were_tried(tmp_path, monkeypatch):
    figures = []
    draw = "transfergen.runs.curves.to_picture"
    monkeypatch.setattr(draw, lambda figure: figures.append(figure) or Image.new("RGB", (1, 1)))
    trials = [
        {"name": name, "value": value, "started": float(name), "seconds": 1.0, "error": error, "overrides": overrides}
        for name, value, error, overrides in (
            ("0", 2.0, None, ["width=8", "lr=1e-4"]),
            ("1", PENALTY, "diverged", ["width=12", "lr=1e-4"]),
            ("2", 1.0, None, ["width=16", "lr=1e-2"]),
        )
    ]
    plot(trials, tmp_path / "plot.png")
    over_trials, rates, widths = figures[0].axes
    assert [[*line.get_xdata()] for line in over_trials.lines] == [[0, 2], [0, 2]]
    for axis, scale, ticks, labels in (
        (rates, "log", [1e-4, 1e-2], ["1e-4", "1e-2"]),
        (widths, "linear", [8, 16], ["8", "16"]),
    ):
        assert axis.get_xscale() == scale
        assert [*axis.get_xticks()] == ticks
        assert [label.get_text() for label in axis.get_xticklabels()] == labels


def test_a_table_of_a_narrow_terminal_has_each_setting_and_reason_whole():
    key, reason = "optimizer.generator.momentum", "optimizer.generator.momentum=-1: choose a number, 0 to below 1"
    about = {"started": 0.0, "seconds": 1.0}
    trials = [
        {"name": "0", "value": 1.5, "error": None, "overrides": [f"{key}=0.123456", "width=100000000"], **about},
        {"name": "1", "value": PENALTY, "error": reason, "overrides": [f"{key}=-1", "width=8"], **about},
    ]
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(_table(trials))
    lines = [re.split("[│┃]", line)[1:-1] for line in console.export_text().splitlines() if line[0] in "│┃"]
    columns = ["".join(cells).replace(" ", "") for cells in zip(*lines, strict=True)]
    assert key in columns[1]
    assert "0.1235" in columns[1]
    assert "100000000" in columns[2]
    assert reason.replace(" ", "") in columns[3]


def stub(config, run_dir, checkpoint, *, composed):
    (run_dir / artefacts.COMPOSED).write_text(composed)
    return config.optimizer.generator.lr


SEARCH = f"""
from transfergen.commands.train import main
from transfergen.runs import artefacts
from transfergen.training import fit

{inspect.getsource(stub)}

fit.train = stub
main()
"""


def test_a_killed_search_goes_on_from_its_database(tmp_path, monkeypatch):
    script, folder = tmp_path / "search.py", tmp_path / "sweep"
    script.write_text(SEARCH)
    search = ["-m", "experiment=sweep", *SMALL, f"hydra.sweep.dir={folder}"]
    first = start_python(str(script), *search, "trials=500")
    try:
        deadline = time.monotonic() + 240
        while len(list(folder.glob("*/trial.json"))) < 2:
            assert time.monotonic() < deadline
            assert first.exitcode is None
            time.sleep(0.05)
    finally:
        first.kill()
        first.join()
    storage = f"sqlite:///{folder / 'study.db'}"
    before = 1000 - trials_left(storage, "transfergen", 1000)
    assert before >= 1
    monkeypatch.setattr("transfergen.training.fit.train", stub)
    time.sleep(1)  # the folder of a trial is named by the second
    code, _, err = train(None, *search, f"trials={before + 2}", small=False)
    assert code == 0, err
    assert trials_left(storage, "transfergen", before + 2) == 0
    assert len(collect(folder)) in (before + 2, before + 3)  # the killed process may not have recorded its last trial


def test_missing_extra_is_named(tmp_path):
    blocked = tmp_path / "hydra_plugins"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("")  # a package of that name hides the namespace with the plugins
    ran = command(None, "-m", "experiment=sweep", env={"PYTHONPATH": str(tmp_path)})
    assert ran.returncode == 2
    assert "pip install 'transfergen[sweep]'" in ran.stderr


@pytest.mark.parametrize("storage", ["sqlite:///{}/none.db"])
def test_without_a_database_all_trials_are_left(tmp_path, storage):
    assert trials_left(storage.format(tmp_path), "transfergen", 7) == 7
