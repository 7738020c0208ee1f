"""Bad input gets exit code 2 and one line that names the override to change, without a traceback."""

import logging
import os
import threading
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from runs import called, train
from safetensors.torch import save_file

from transfergen.commands import cli
from transfergen.commands.overrides import NO_HOME
from transfergen.config import CONF_DIR
from transfergen.errors import printable

SHAPES_ON_VGG = ["data=shapes", "backbone.weights=random"]


def refusal(run_dir, *overrides, small=False):
    code, out, err = train(run_dir, *overrides, small=small)
    assert code == 2
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("transfergen: ")
    assert "epoch" not in out
    return lines[0]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=imge_folder"], ["data=imge_folder", "did you mean image_folder"]),
        (["modl=vgg_disc"], ["modl", "did you mean model"]),
        (["batch_size=8"], ["batch_size: there is no such key, did you mean data.batch_size"]),
        (["--resume", "somewhere"], ["--resume: there is no such option; a setting is KEY=VALUE, without dashes"]),
        (["model=dcgan", "--cfg", "job", "seed=1"], ["seed=1: is apart", "all of them before --options, or after"]),
        (["backbone.cutt=pool4"], ["backbone.cutt", "did you mean backbone.cut"]),
        (["model=dcgan", "discriminator.hidden=8"], ["discriminator.hidden", "what was chosen of discriminator"]),
        (
            [*SHAPES_ON_VGG, "+discriminator.layers=3"],
            ["VGGDiscriminator has no", "~discriminator.layers"],
        ),
        (["data=image_folder"], ["data.path"]),
        (["data=image_folder", "data.path=nowhere", "trainer.devices=two"], ["trainer.devices=two: give a number"]),
        (["data=image_folder", "data.path=nowhere"], ["data.path=", "/nowhere", "no such folder"]),
        (["data=huggingface", "data.path=./nowhere"], ["data.path=./nowhere", "no such folder"]),
        ([*SHAPES_ON_VGG, "data.resolution=48"], ["data.resolution=48", "32, 64, 128 or 256"]),
        ([*SHAPES_ON_VGG, "data.resolution=2048"], ["data.resolution=2048", "32 to 1024"]),
        ([*SHAPES_ON_VGG, "generator.resolution=32"], ["generator.resolution", "data.resolution"]),
        ([*SHAPES_ON_VGG, "data.aspect=[9,16]"], ["data.resolution=64", "aspect=[9, 16]", "72, 144, 288 or 576"]),
        ([*SHAPES_ON_VGG, "data.aspect=[3,2]", "data.resolution=48"], ["data.resolution=48", "32, 64, 128 or 256"]),
        ([*SHAPES_ON_VGG, "data.aspect=[3]"], ["data.aspect=[3]", "two whole numbers"]),
        ([*SHAPES_ON_VGG, "data.channels=2"], ["data.channels=2", "1, 3, 4"]),
        ([*SHAPES_ON_VGG, "generator.image_channels=1"], ["data.channels=1", "generator.image_channels"]),
        ([*SHAPES_ON_VGG, "data.fit=oval"], ["data.fit=oval", "crop, pad, stretch"]),
        ([*SHAPES_ON_VGG, "backbone.cut=relu3_9"], ["backbone.cut=relu3_9", "relu3_4"]),
        (
            [*SHAPES_ON_VGG, "backbone.cut=pool5", "data.resolution=32"],
            ["data.resolution=32", "shallower cut"],
        ),
        (["data=shapes", "backbone.weights=nowhere.pth"], ["backbone.weights=nowhere.pth", "no such file"]),
        (["data=shapes", "backbone=timm", "backbone.weights=package"], ["backbone.weights=package", "resnet18"]),
        ([*SHAPES_ON_VGG, "trainer.devices=999"], ["trainer.devices=999", "set trainer.devices="]),
        ([*SHAPES_ON_VGG, "trainer.accelerator=abacus"], ["trainer.accelerator=abacus"]),
        ([*SHAPES_ON_VGG, "+trainer.colour=red"], ["colour"]),
        ([*SHAPES_ON_VGG, "transfer.trunk=molten"], ["transfer.trunk=molten", "gradual"]),
        (
            [*SHAPES_ON_VGG, "transfer.trunk=last_k", "transfer.last_k=9"],
            ["transfer.last_k=9", "transfer.trunk=trainable"],
        ),
        ([*SHAPES_ON_VGG, "optimizer.d_steps=0"], ["optimizer.d_steps=0"]),
        ([*SHAPES_ON_VGG, "optimizer.extrapolation=-1"], ["optimizer.extrapolation=-1", "0 or more"]),
        (
            [*SHAPES_ON_VGG, "optimizer.simultaneous=true", "optimizer.d_steps=2"],
            ["optimizer.simultaneous=true", "set optimizer.d_steps=1"],
        ),
        ([*SHAPES_ON_VGG, "trainer.precision=bf16-true"], ["trainer.precision=bf16-true", "bf16-mixed"]),
        ([*SHAPES_ON_VGG, "trainer.max_time=1h"], ["trainer.max_time: ", "DD:HH:MM:SS"]),
        ([*SHAPES_ON_VGG, "trainer.log_every_n_steps=0"], ["trainer.log_every_n_steps=0", "1 or more"]),
        (
            [*SHAPES_ON_VGG, "lr_decay.start_images=8", "max_images=null", "trainer.max_epochs=-1"],
            ["lr_decay.end_images=null", "set max_images"],
        ),
        (
            [*SHAPES_ON_VGG, "lr_decay.start_images=8", "max_images=9", "lr_decay.final_factor=2"],
            ["lr_decay.final_factor=2", "0 to 1"],
        ),
        (
            [*SHAPES_ON_VGG, "data.channels=4", "discriminator.image_channels=3"],
            ["set discriminator.image_channels=4"],
        ),
        (["data=shapes", "model=vae", "augment=flip"], ["augment=none", "model=vae_gan"]),
        (["data=shapes", "model=vae", "discriminator=dcgan"], ["discriminator=none", "model=vae_gan"]),
        (["data=shapes", "model=vae", "optimizer.d_steps=2"], ["optimizer.d_steps=1", "model=vae_gan"]),
        (
            ["data=shapes", "model=vae", "optimizer.discriminator.lr=1"],
            ["optimizer.discriminator.lr:", "model=vae_gan"],
        ),
        (["data=shapes", "model=vae", "transfer=fine_tuning"], ["transfer.trunk=frozen", "model=vae_gan"]),
        ([*SHAPES_ON_VGG, "objective._target_=os.system"], ["_target_=os.system", "refused"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_mistake_gets_one_line_with_the_override(tmp_path, overrides, words):
    line = refusal(tmp_path / "run", *overrides)
    for word in words:
        assert word in line


@pytest.mark.parametrize("mistake", ["trainer.max_time=1h", "+trainer.profiler=nothing", "trainer.devices=999"])
def test_a_trainer_is_refused_before_any_data_is_read(tmp_path, mistake):
    line = refusal(tmp_path / "run", f"data.path={tmp_path / 'nowhere'}", "data=image_folder", mistake)
    assert "trainer" in line
    assert "data.path" not in line


def test_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    line = refusal(tmp_path / "run", "data=image_folder", f"data.path={tmp_path / 'pictures'}")
    assert "no picture" in line


@pytest.mark.parametrize("damage", ["flipped architecture", "html", "empty", "pickle"])
def test_files_that_hold_no_weights_of_the_backbone_are_refused(tmp_path, damage):
    file = tmp_path / "weights.pth"
    if damage == "flipped architecture":
        file = tmp_path / "weights.safetensors"
        save_file({"features.0.weight": torch.zeros(3, 3)}, file)
    elif damage == "pickle":
        torch.save({"features.0.weight": Payload(tmp_path / "ran")}, file)
    else:
        file.write_text("<html>not found</html>" if damage == "html" else "")
    line = refusal(tmp_path / "run", "data=shapes", f"backbone.weights={file}")
    assert f"backbone.weights={file}" in line
    assert not (tmp_path / "ran").exists()


class Payload:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


def test_output_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    line = refusal(tmp_path / "file" / "run", "data=image_folder", "data.path=nowhere")
    assert f"hydra.run.dir: cannot write {tmp_path / 'file' / 'run'} (Not a directory)" in line


def test_sweep_folder_that_cannot_be_written_is_named_by_its_own_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings(action="error"):
        line = refusal(None, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'file' / 'sweep'}")
    assert f"hydra.sweep.dir: cannot write {tmp_path / 'file' / 'sweep'} (Not a directory)" in line


def test_a_log_that_cannot_be_opened_is_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "train.log").mkdir()
    line = refusal(tmp_path, *SHAPES_ON_VGG)
    assert f"hydra.run.dir: cannot write {tmp_path / 'train.log'} (Is a directory)" in line


def test_resuming_a_folder_that_is_no_run_is_refused_and_makes_nothing(tmp_path):
    assert "no such folder" in refusal(None, f"resume={tmp_path / 'nowhere'}")
    assert not (tmp_path / "nowhere").exists()
    assert "last.ckpt" in refusal(None, f"resume={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_saved_nothing_yet_is_begun_again(tmp_path):
    (tmp_path / ".composed.yaml").write_text("held")
    line = refusal(None, f"resume={tmp_path}")
    assert f"has saved no checkpoint yet; begin it again with hydra.run.dir={tmp_path} overwrite=true" in line


@pytest.mark.parametrize(
    ("overrides", "held"), [([], "config.yaml"), ([], ".composed.yaml"), (["resume=auto"], "generator.safetensors")]
)
def test_a_new_run_in_the_folder_of_another_is_refused(tmp_path, overrides, held):
    (tmp_path / held).write_text("held")
    line = refusal(tmp_path, *SHAPES_ON_VGG, *overrides)
    assert f"hydra.run.dir={tmp_path}: holds a run; set resume={tmp_path} to go on with it, or overwrite=true" in line
    assert (tmp_path / held).read_text() == "held"


@pytest.mark.parametrize("value", ["no", "off", "maybe", "1", "[false]"])
def test_no_word_but_true_removes_a_run(tmp_path, value):
    (tmp_path / "config.yaml").write_text("held")
    line = refusal(tmp_path, *SHAPES_ON_VGG, f"overwrite={value}")
    assert f"overwrite={value.replace('false', 'False')}: choose true or false" in line
    assert (tmp_path / "config.yaml").read_text() == "held"


def test_a_path_with_odd_characters_reaches_the_command_as_it_was_typed(tmp_path):
    odd = tmp_path / "größe, o'brien (a=1)"
    assert f"data.path={odd}/nowhere: there is no such folder" in refusal(
        odd / "run", "data=image_folder", f"data.path={odd}/nowhere"
    )
    assert (odd / "run").is_dir()


def test_a_value_that_cannot_be_read_is_answered_with_the_quotes_that_work(tmp_path):
    assert """put it in quotes: 'backbone.name="größe"'""" in refusal(tmp_path, "backbone.name=größe")


def run_report(task, *arguments):
    """Run a task of our own in place of the command `report`."""
    return called(partial(cli.run, "report", task, arguments))


def test_relative_paths_are_the_users_whatever_hydra_makes_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    code, _, err = run_report(lambda _: seen.append(Path.cwd()), "hydra.job.chdir=true", "hydra.run.dir=out")
    assert (code, err, seen) == (0, "", [tmp_path])


def test_a_home_that_is_not_there_is_said_in_one_line(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # KeyError
    code, _, err = run_report(lambda _: Path("~/.cache").expanduser())
    assert (code, err) == (2, f"transfergen: {NO_HOME}\n")


def test_sweep_over_several_devices_is_refused(tmp_path):
    line = refusal(
        None, "-m", "seed=1,2", "trainer.devices=2", *SHAPES_ON_VGG, f"hydra.sweep.dir={tmp_path}", small=False
    )
    assert "trainer.devices=1" in line


def test_sweep_trains_one_run_after_the_other(tmp_path):
    code, _, err = train(None, "-m", "optimizer.generator.lr=1e-4,2e-4", "max_images=8", f"hydra.sweep.dir={tmp_path}")
    assert code == 0, err
    assert all((tmp_path / str(job) / "grid.png").exists() for job in (0, 1))


def test_failed_download_names_url_path_and_override(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    line = refusal(tmp_path / "run", "data=shapes")
    for word in ("https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", str(tmp_path / "cache"), "backbone.weights"):
        assert word in line


def test_hydra_full_error_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match=r"data\.fit=oval"):  # which nothing catches
        train(tmp_path / "run", "data.fit=oval")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9 TiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nSee the documentation."),
    ],
)
def test_exhausted_memory_gets_one_line(error, capsys):
    def task(config):
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run("report", task, [])
    lines = capsys.readouterr().err.splitlines()
    assert (ended.value.code, len(lines)) == (2, 1)
    assert "not enough memory" in lines[0]
    assert lines[0].endswith("); end other programs")
    assert cli.memory_line(error, "generate").endswith("); set a smaller batch_size")


def test_names_of_files_cannot_steer_the_terminal(capsys):
    hostile = "\x1b[2J\x1b]0;owned\x07\udcff.png"

    def task(config):
        raise ValueError(f"data.path={hostile}: damaged")

    with pytest.raises(SystemExit):
        cli.run("report", task, [])
    assert capsys.readouterr().err == "transfergen: data.path=\\x1b[2J\\x1b]0;owned\\x07\\udcff.png: damaged\n"
    record = logging.makeLogRecord(
        {"levelno": logging.INFO, "msg": f"%s\n  two lines, a\ttab: é {hostile}", "args": (hostile,)}
    )
    assert cli.escape_record(record)
    assert record.getMessage() == f"{printable(hostile)}\n  two lines, a\ttab: é {printable(hostile)}"
    assert "\x1b" not in record.getMessage()


def test_precision_with_a_loss_scaler_is_refused(tmp_path):
    line = refusal(tmp_path / "run", "trainer.precision=16-mixed", small=True)
    assert "trainer.precision=16-mixed: set bf16-mixed or 32-true" in line


def test_help_lists_each_group_with_all_its_options():
    code, out, _ = train(None, "--help", small=False)
    assert code == 0
    assert f"the comments in {CONF_DIR}." in out
    for group in (f for f in CONF_DIR.iterdir() if f.is_dir() and f.name != "hydra"):
        line = next(line for line in out.splitlines() if line.startswith(f"  {group.name} "))
        assert line.rsplit(": ", 1)[1].split(", ") == sorted(f.stem for f in group.glob("[!_]*.yaml")), group.name


@pytest.mark.parametrize(("rank", "told"), [("0", [20, 30, 40]), ("1", [40])])
def test_of_several_ranks_the_first_tells_what_all_find_and_each_its_errors(monkeypatch, rank, told):
    monkeypatch.setenv("LOCAL_RANK", rank)
    records = [logging.LogRecord("data", level, "", 0, "read as %s", ("splits",), None) for level in (20, 30, 40)]
    assert [record.levelno for record in records if cli.escape_record(record)] == told
    assert {record.getMessage() for record in records} == {"read as splits"}


def test_rank_whose_first_process_ended_before_it_looked_ends_too(monkeypatch):
    codes, ended = [], threading.Event()

    def end(code):
        codes.append(code)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setenv("LOCAL_RANK", "0")
    cli.die_with_parent()
    assert os.environ["TRANSFERGEN_PARENT"] == str(os.getpid())  # what the ranks that it starts look for
    monkeypatch.setenv("LOCAL_RANK", "1")
    cli.die_with_parent()  # started by the process above, which is no longer the parent
    assert ended.wait(30)
    assert codes == [143]


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as a notebook does, which would keep each step of the bar
    assert list(cli.track([1, 2], "items")) == [1, 2]
    assert capsys.readouterr().err == ""
