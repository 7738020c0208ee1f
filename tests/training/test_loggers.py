"""Each logger in a training and when it is resumed; nothing needs a network."""

import sqlite3
import sys

import pytest
from runs import ANY_MODEL, SMALL_MODELS, train

from transfergen.training.loggers import WeightsAndBiases

DCGAN = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "samples.every_images=8", "evaluation.count=16"]


def train_and_resume(run_dir, logger):
    """Two batches, then two more at another learning rate."""
    code, _, err = train(run_dir, *DCGAN, f"logger={logger}", "max_images=16", small=False)
    assert code == 0, err
    code, _, err = train(None, f"resume={run_dir}", "max_images=32", "optimizer.generator.lr=1e-4", small=False)
    assert code == 0, err
    assert (run_dir / "csv" / "version_1" / "metrics.csv").exists(), "for the report"
    assert not (run_dir / "tensorboard").exists()


@pytest.fixture
def _wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


@pytest.mark.usefixtures("_wandb")
def test_wandb_keeps_curves_grids_and_settings_of_one_run_in_the_folder(tmp_path):
    run_dir = tmp_path / "run"
    train_and_resume(run_dir, "wandb")
    first, second = sorted((run_dir / "wandb").glob("offline-run-*"))
    name = (run_dir / "wandb" / "run_id").read_text()
    assert first.name.endswith(f"-{name}")
    assert second.name.endswith(f"-{name}")
    for part in (first, second):
        logged = (part / f"run-{name}.wandb").read_bytes()
        for key in (b"images_seen", b"loss/generator", b"metrics/kernel_distance", b"optimizer.generator.lr"):
            assert key in logged
        titles = sorted(file.name.split("_")[0] for file in (part / "files" / "media" / "images").iterdir())
        assert titles == ["precision"] * (part is second) + ["reals", "samples", "samples"]
    assert not [path for path in run_dir.rglob("*") if path.is_symlink()], "a run that holds links is not resumed"


@pytest.mark.usefixtures("_wandb")
def test_wandb_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    import wandb

    def refuse(**_):
        raise wandb.errors.UsageError("no API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ValueError, match=r"^offline=False: Weights & Biases does not start \(no API key configured\)$"):
        WeightsAndBiases(save_dir=tmp_path, offline=False)


def test_mlflow_keeps_curves_grids_and_settings_of_one_run_in_the_folder(tmp_path):
    pytest.importorskip("mlflow", reason="the extra mlflow is not in dev: mlflow-skinny alone is 75 MB")
    train_and_resume(tmp_path, "mlflow")
    name = (tmp_path / "mlflow" / "run_id").read_text()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select run_uuid, status from runs").fetchall() == [(name, "FINISHED")]
        steps = database.execute("select step from metrics where key = 'loss/generator' order by step").fetchall()
        assert [step for (step,) in steps] == [8, 16, 24, 32]
        settings = dict(database.execute("select key, value from params").fetchall())
    assert settings["generator.width"] == "8"
    assert settings["optimizer.generator.lr"] == "0.0002", "as the run began: MLflow keeps no second value"
    pictures = [file.name.split("+")[:3] for file in (tmp_path / "mlflow" / name).rglob("*.png")]
    assert sorted(step for title, _, step in pictures if title == "samples") == ["16", "24", "32", "8"]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_whose_package_is_missing_says_how_to_install_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    code, _, err = train(tmp_path, *DCGAN, f"logger={name}", "max_images=8", small=False)
    assert code == 2
    assert err == f"transfergen: logger={name} needs one more package: pip install 'transfergen[{name}]'\n"
    assert not (tmp_path / "config.yaml").exists()
