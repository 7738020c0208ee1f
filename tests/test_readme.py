"""Each command of the README runs, shrunk; and its own backbone works."""

import re
import shlex
import shutil

import pytest
from runs import ROOT, SMALL, command, train

from transfergen.data.shapes import shapes

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip().removeprefix("python train.py").strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("python train.py")
]
TINY = ["max_images=8", "data.batch_size=4", "generator.width=4", "samples.count=4", "evaluation.count=16"]


def test_readme_has_commands():
    assert len(COMMANDS) >= 8


def pretrained(overrides, vgg_weights):
    """Weights from here for each network whose own would be downloaded."""
    if "model=dcgan" in overrides or "model=vae" in overrides:
        return []
    if "model=vision_aided" in overrides:
        vgg = "discriminator.backbones.vgg19"
        instead = [] if f"{vgg}=null" in overrides else [f"{vgg}.weights={vgg_weights}", f"{vgg}.cut=relu3_4"]
        return instead + ["discriminator.backbones.r18.weights=random"] * any("r18" in o for o in overrides)
    if "backbone=vgg19_multiscale" in overrides:
        return [f"backbone.weights={vgg_weights}", "backbone.cut=relu3_4", "backbone.taps=[relu1_2,relu2_2]"]
    if "model=projected" in overrides or "experiment=distill" in overrides:
        return []
    return ["discriminator.hidden=8", f"backbone.weights={vgg_weights}", "backbone.cut=relu3_4"]


@pytest.fixture(scope="module")
def source_run(tmp_path_factory):
    """What RUN_DIR stands for: a run of a small DCGAN, at the resolution of the others."""
    folder = tmp_path_factory.mktemp("source")
    small = [*TINY, "model=dcgan", "data=shapes", "data.source.train=8", "data.source.test=8"]
    code, _, err = train(folder, *small, small=False)
    assert code == 0, err
    return folder


@pytest.mark.parametrize("line", [line for line in COMMANDS if "resume=" not in line and "devices=2" not in line])
def test_training_command_runs(line, tmp_path, cifar10_parquet, vgg_weights, source_run):
    """With data and weights from here where the README's are on the network or the reader's own."""
    line = (
        line.replace("RUN_DIR", str(source_run)).replace("trials=20", "trials=2").replace("trainer=gpu", "trainer=cpu")
    )
    line = line.replace("launcher=slurm hydra.launcher.partition=NAME", "launcher=submitit_local")
    overrides = [o for o in shlex.split(line) if not o.startswith("hydra.sweep.dir=")]
    keys = {override.split("=")[0] for override in overrides}
    instead = list(TINY)
    if not keys & {"data", "experiment"} or {"experiment=tutorial", "experiment=distill", "experiment=sweep"} & set(
        overrides
    ):
        overrides += ["data=huggingface"]
        instead += [f"data.path={cifar10_parquet}"]
    if "data=image_folder" in overrides:
        train_set = tmp_path / "pictures"
        train_set.mkdir()
        pictures = shapes(None, "train", size=40, train=20)
        for i in range(20):
            pictures.open(i).save(train_set / f"{i}.png")
        overrides = [o for o in overrides if not o.startswith("data.path=")] + [f"data.path={train_set}"]
    if "data=huggingface" in overrides:
        overrides = [o for o in overrides if not o.startswith("data.path=")] + [f"data.path={cifar10_parquet}"]
    if "experiment=quickstart" in overrides:
        instead += ["data.source.train=16", "data.source.test=8"]
    else:
        overrides = [o for o in overrides if not o.startswith("backbone.weights=")]
        instead += pretrained(overrides, vgg_weights)
    directory = [f"hydra.sweep.dir={tmp_path / 'sweep'}"] if "-m" in overrides else []
    run_dir = None if directory else tmp_path / "run"
    code, _, err = train(run_dir, *overrides, *instead, *directory, small=False)
    assert code == 0, err
    assert list(tmp_path.rglob("grid.png"))


def test_backbone_of_ones_own_is_one_file_and_one_yaml(tmp_path):
    python, yaml = (
        re.search(rf"```{kind}\n# (\S*tiny\S*)\n(.*?)```", README, re.DOTALL) for kind in ("python", "yaml")
    )
    for folder in ("src", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for match in (python, yaml):
        (tmp_path / match[1]).write_text(match[2])
    shutil.copy(ROOT / "train.py", tmp_path)
    overrides = [o for o in SMALL if not o.startswith("backbone.")]
    overrides += ["backbone=tiny", "max_images=16"]
    path = {"PYTHONPATH": str(tmp_path / "src")}
    ran = command(tmp_path / "run", *overrides, script=tmp_path / "train.py", env=path)
    assert ran.returncode == 0, ran.stderr


def test_each_test_that_the_readme_names_is_there():
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", README))
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in tests]
    assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[\w/]+\.py)`", README))
