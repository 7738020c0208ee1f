"""The command `train`, before a training starts."""

import gc
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from runs import ANY_MODEL, SMALL_MODELS, train

from transfergen.commands.train import absolute_path, keep_sources
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import save

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


def test_garbage_is_not_searched_for_while_modules_are_imported_but_afterwards(tmp_path, monkeypatch):
    searched = []

    def check(config):
        searched.append(gc.isenabled())
        raise ValueError("a mistake")

    monkeypatch.setattr("transfergen.commands.train.check", check)
    code, _, err = train(tmp_path, *ANY_MODEL, *SMALL_MODELS["dcgan"], small=False)
    assert (code, err) == (2, "transfergen: a mistake\n")
    assert searched == [False]
    assert gc.isenabled()
    assert gc.get_freeze_count() > 100_000


def test_a_run_is_not_resumed_into_another_folder(tmp_path):
    (tmp_path / "run").mkdir()
    code, _, err = train(tmp_path / "new", f"resume={tmp_path / 'run'}", small=False)
    assert code == 2
    assert f"hydra.run.dir={tmp_path / 'new'}: resume={tmp_path / 'run'} goes on in its own folder; leave it out" in err


def test_what_networks_are_read_from_is_kept_from_the_root_and_a_name_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("source", "cifar10"):
        (tmp_path / folder).mkdir()

    def kept(value, saved=None):
        config = OmegaConf.create({key: {} for key in ("init_from", "backbone", "metrics", "transfer")})
        config.transfer.source, config.backbone.weights = value, "${transfer.source}"
        config.discriminator = {"backbones": {"vgg19": {"weights": value}, "dino": None}}
        keep_sources(config, saved and OmegaConf.create({"transfer": {"source": saved}}))
        assert OmegaConf.is_interpolation(config.backbone, "weights")
        if saved is None:
            assert config.discriminator.backbones.vgg19.weights == config.transfer.source
        return config.transfer.source

    here = Path.cwd()
    assert kept("source") == f"{here}/source"
    assert kept("studiogan:source") == f"studiogan:{here}/source"
    assert [kept(name) for name in ("builtin:cifar10", "owner/model", None)] == ["builtin:cifar10", "owner/model", None]
    assert kept("gone", saved=f"{here}/gone") == f"{here}/gone"
    assert kept("gone", saved=f"{here}/other") == "gone"


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """The folder of a run that distils `teacher`, and the configs that trainings get; nothing trains."""
    configs = []

    def stub(config, run_dir, checkpoint, *, composed):
        (run_dir / artefacts.COMPOSED).write_text(composed)
        configs.append(config)
        return 0.0

    monkeypatch.setattr("transfergen.training.fit.train", stub)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    settings = ["transfer=distillation", "transfer.teacher=teacher", "transfer.output=5", "init_from.generator=teacher"]
    code, _, err = train(tmp_path / "run", *ANY_MODEL, *SMALL_MODELS["dcgan"], *settings, small=False)
    assert code == 0, err
    save({}, tmp_path / "run" / artefacts.LAST_CHECKPOINT)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run", configs


def resume(run_dir, *settings):
    code, _, err = train(None, f"resume={run_dir}", *settings, small=False)
    return code, err


def test_a_run_goes_on_from_another_folder_with_its_teacher(begun):
    run_dir, configs = begun
    code, err = resume(run_dir)
    assert code == 0, err
    assert [config.transfer.teacher for config in configs] == [str(run_dir.parent / "teacher")] * 2


def test_a_resumed_run_takes_each_setting_that_it_has_and_no_other(begun):
    run_dir, configs = begun
    code, err = resume(run_dir, "transfer.teacher=moved", "trainer.max_epochs=3")
    assert code == 0, err
    changed = configs[-1]
    assert (changed.transfer.teacher, changed.transfer.output, changed.trainer.max_epochs) == ("moved", 5, 3)
    for setting, line in (
        ("transfer.source=x", "transfer.source: what was chosen of transfer has no such key"),
        ("trainer.max_epchs=3", "trainer.max_epchs: there is no such key, did you mean trainer.max_epochs?"),
    ):
        code, err = resume(run_dir, setting)
        assert code == 2
        assert line in err


def test_the_settings_that_are_shown_of_a_resumed_run_are_those_that_it_goes_on_with(begun):
    run_dir, configs = begun
    settings = [f"resume={run_dir}", "trainer.max_epochs=3"]
    code, out, err = train(None, *settings, "--cfg", "job", "--resolve", small=False)
    assert code == 0, err
    assert len(configs) == 1, "nothing trains"
    shown = OmegaConf.create(out)
    assert (shown.resume, shown.transfer.output, shown.trainer.max_epochs) == (str(run_dir), 5, 3)
    assert resume(run_dir, "trainer.max_epochs=3") == (0, "")
    for key in ("resume", "overwrite"):
        del shown[key]
    assert shown == OmegaConf.to_container(configs[-1], resolve=True)
    code, out, _ = train(None, *settings, "--cfg", "all", small=False)
    assert "${" in out
    assert OmegaConf.create(out).hydra.job.name == "train"
    code, _, err = train(None, settings[0], "trainer.max_epchs=3", "--cfg", "job", small=False)
    assert (code, err.count("\n")) == (2, 1)
    assert "trainer.max_epchs: there is no such key, did you mean trainer.max_epochs?" in err


def test_a_resumed_run_gets_no_other_first_weights(begun):
    run_dir, _ = begun
    for setting in ("init_from.generator=builtin:cifar10", "init_from.classes=[1]", "init_from=biggan_deep"):
        code, err = resume(run_dir, setting)
        assert code == 2
        assert f"{setting}: a resumed run goes on with the weights of its checkpoint; leave it out" in err
    (run_dir.parent / "teacher").rmdir()
    code, err = resume(run_dir, "init_from.generator=../teacher", f"init_from.generator={run_dir.parent}/teacher")
    assert code == 0, err  # a job that is queued again repeats its command


def test_a_sweep_resumes_no_run(tmp_path, begun):
    code, _, err = train(None, "-m", f"resume={begun[0]}", f"hydra.sweep.dir={tmp_path / 'sweep'}", small=False)
    assert code == 2
    assert f"resume={begun[0]}: a sweep (-m) starts runs of its own" in err
