"""Each command of the README and the docs runs, shrunk; and the backbone that the docs add works."""

import re
import shlex
import shutil
from functools import partial

import datasets
import numpy as np
import pytest
import timm
import torch
from public_networks import PublicDiscriminator, PublicGenerator, StudioGAN, biggan_deep
from runs import ROOT, SMALL, called, command, train
from safetensors.torch import load_file

from transfergen import Generator
from transfergen.__main__ import main
from transfergen.data.shapes import shapes
from transfergen.sampling.latents import Latent

READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = [page.read_text() for page in (*READMES, *sorted((ROOT / "docs").rglob("*.md")))]
LINES = [
    line.split("  #")[0].strip().replace("python train.py", "transfergen train")
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
COMMANDS = list(dict.fromkeys(line.removeprefix("transfergen ") for line in LINES if line.startswith("transfergen ")))
TRAININGS = [line.removeprefix("train").strip() for line in COMMANDS if line.startswith("train")]
OTHERS = [line for line in COMMANDS if not line.startswith("train") and "format=web" not in line]  # it downloads
TINY = [
    *("max_images=8", "data.batch_size=4", "generator.width=4", "samples.count=4", "evaluation.count=16"),
    "memory_report=false",
]


def test_there_are_commands_to_run():
    assert len(TRAININGS) >= 50
    assert {line.split()[0] for line in OTHERS} == {"check", "evaluate", "explore", "export", "generate", "report"}


TRANSFORMER = ["weights=random", "taps=[0,1]", "input_size=112"]  # a multiple of 14 and of 16


FROM_SCRATCH = {"dcgan", "wgan", "wgan_gp", "sagan", "biggan"}
OTHER_DISCRIMINATORS = {"discriminator", "discriminator.width", "init_from", "init_from.discriminator"}


def weights_from_here(overrides, vgg_weights):
    """Weights from here for each network whose own would be downloaded.

    VGG19 is shallow, and its images are small, unless the command says otherwise.
    """
    given = {o.partition("=")[0] for o in overrides}
    vgg = [f"backbone.weights={vgg_weights}"]
    if "backbone.cut" not in given:
        vgg.append("backbone.cut=relu2_2")
    if "backbone=vgg19_multiscale" in overrides or "model=vae_gan" in overrides:
        return [*vgg, "backbone.taps=[relu1_2]"]
    if "model=vision_aided" in overrides:
        node = "discriminator.backbones"
        instead = [] if f"{node}.vgg19=null" in overrides else [o.replace("backbone", f"{node}.vgg19") for o in vgg]
        instead += [f"{node}.r18.weights=random"] * any("r18" in o for o in overrides)
        return instead + [f"{node}.dino.{o}" for o in TRANSFORMER] * any("dino" in o for o in overrides)
    if "discriminator=stylegan_t" in overrides:
        return [f"backbone.{o}" for o in TRANSFORMER]
    if {"model=projected", "discriminator=projected"} & {*overrides}:
        return ["backbone.input_size=null", "discriminator.width=4"]  # made for a GPU
    models = [o for o in overrides if o.startswith(("model=", "experiment="))]
    if (models and models not in (["model=vgg_disc"], ["experiment=tutorial"])) or "discriminator=dcgan" in overrides:
        narrow = {o.partition("=")[2] for o in models} & FROM_SCRATCH and not given & OTHER_DISCRIMINATORS
        return ["discriminator.width=4"] * bool(narrow)  # nothing is pretrained, or the weights come with a package
    if "data.resolution" not in given:
        vgg.append("data.resolution=32")
    return ["discriminator.hidden=8", *([] if "backbone=efficientnet_lite0" in overrides else vgg)]


@pytest.fixture(scope="module")
def source_run(tmp_path_factory):
    """The folder that RUN_DIR stands for: a run of a small DCGAN, at the resolution of the others."""
    folder = tmp_path_factory.mktemp("source")
    small = [
        *TINY,
        "model=dcgan",
        "data=shapes",
        "data.source.train=8",
        "data.source.test=8",
        "evaluation.every_images=8",
        "snapshot_every_images=8",
    ]
    code, _, err = train(folder, *small, small=False)
    assert code == 0, err
    return folder


@pytest.fixture(scope="module")
def few_cifar10(cifar10_parquet, tmp_path_factory):
    """The first images of the real CIFAR-10, in the same layout: to read all of them takes most of a test's time."""
    folder, cache = tmp_path_factory.mktemp("cifar10"), tmp_path_factory.mktemp("cache")
    for split in ("train", "test"):
        name = f"{split}-00000-of-00001.parquet"
        rows = datasets.Dataset.from_parquet(str(cifar10_parquet / name), cache_dir=str(cache))
        rows.select(range(64)).to_parquet(folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folder that pictures/ and FOLDER stand for."""
    folder = tmp_path_factory.mktemp("pictures")
    drawn = shapes(None, "train", size=40, train=20)
    for i in range(20):
        drawn.open(i).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def archives(pictures, tmp_path_factory):
    """The files that archives of pictures stand for."""
    base = str(tmp_path_factory.mktemp("archives") / "pictures")
    made = {kind: shutil.make_archive(base, kind, pictures) for kind in ("zip", "gztar", "tar")}
    shards = dict.fromkeys(("shards/train-{0000..0009}.tar", "shards/val-*.tar"), made["tar"])
    return {
        "pictures.zip": made["zip"],
        "pictures.tar.gz": made["gztar"],
        "fake=many.zip": f"fake={made['zip']}",
        **shards,
    }


@pytest.fixture(scope="module")
def public_files(tmp_path_factory):
    """A folder with StudioGAN's networks, and in TORCH_HOME the published BigGAN-deep, narrow ones all."""
    folder = tmp_path_factory.mktemp("public")
    cached = folder / "hub" / "checkpoints"
    cached.mkdir(parents=True)
    for name, network in {"G": PublicGenerator, "G_ema": PublicGenerator, "D": PublicDiscriminator}.items():
        torch.save({"state_dict": network(StudioGAN, 32, width=4).state_dict()}, folder / f"{name}.pth")
    deep = biggan_deep(channel_width=4, z_dim=4, class_embed_dim=4)
    torch.save(deep.state_dict(), cached / "biggan-deep-128-pytorch_model.bin")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TORCH_HOME", str(folder))
        yield folder


BUILTIN = "init_from.generator=builtin:cifar10"
OTHERWISE_TESTED = ("resume=", "devices=2", "launcher=slurm", "logger=")


@pytest.mark.parametrize("line", [line for line in TRAININGS if not any(word in line for word in OTHERWISE_TESTED)])
def test_training_command_runs(
    line, tmp_path, monkeypatch, few_cifar10, vgg_weights, source_run, pictures, archives, public_files
):
    """Data and weights from here replace those on the network and the reader's own."""
    for theirs, ours in {
        "RUN_DIR": str(source_run),
        "pictures/": str(pictures),
        "netG.pth": str(tmp_path / "netG.pth"),
        "trials=20": "trials=2",
        "trainer=gpu": "trainer=cpu",
        "data.resolution=1024": "data.resolution=64",
        "data.path=OWNER/NAME": f"data.path={few_cifar10} data.cache_dir={tmp_path}",
        **archives,
    }.items():
        line = line.replace(theirs, ours)
    overrides = [o for o in shlex.split(line) if not o.startswith("hydra.sweep.dir=")]
    instead = list(TINY)
    if any(o in overrides for o in ("init_from=biggan_deep", "init_from=studiogan", BUILTIN)):
        monkeypatch.chdir(public_files)
        instead.remove("generator.width=4")  # the file tells it
    if "init_from=pytorch_dcgan" in overrides:
        layers = load_file(source_run / "generator.safetensors")
        torch.save({key.replace("layers.", "main."): tensor for key, tensor in layers.items()}, tmp_path / "netG.pth")
    if "data=image_folder" in overrides or any(o.startswith("data.path=") for o in overrides):
        overrides = [o.replace("cifar10/", str(few_cifar10)) for o in overrides]
    elif "experiment=quickstart" in overrides:
        instead += ["data.source.train=16", "data.source.test=8"]
    else:
        instead += ["data=huggingface", f"data.path={few_cifar10}"]
    if "data.resolution=512" in overrides:
        instead += ["max_images=2", "data.batch_size=2"]  # one step
    if "experiment=quickstart" not in overrides:
        overrides = [o for o in overrides if not o.startswith("backbone.weights=")]
        instead += weights_from_here(overrides, vgg_weights)
    directory = [f"hydra.sweep.dir={tmp_path / 'sweep'}"] if "-m" in overrides else []
    run_dir = None if directory else tmp_path / "run"
    code, _, err = train(run_dir, *overrides, *instead, *directory, small=False)
    assert code == 0, err
    assert list(tmp_path.rglob("grid.png"))


@pytest.mark.parametrize("line", OTHERS)
def test_other_command_runs(line, tmp_path, monkeypatch, request, source_run, pictures, archives, public_files):
    """There are fewer images, random weights instead of those on the network, and no server of the page."""
    name, *arguments = shlex.split(line)
    if name == "explore":
        monkeypatch.setattr(pytest.importorskip("gradio").Blocks, "launch", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    shutil.copy(pictures / "0.png", "mine.jpg")
    if "real=stats.npz" in arguments:
        np.savez("stats.npz", mu=np.zeros(1280), sigma=np.eye(1280))
        np.savez("samples.npz", np.zeros((8, 32, 32, 3), np.uint8))
    if {"metrics=inception", "metrics=clip"} & {*arguments}:
        request.getfixturevalue("narrow_clip")
        arguments.append("metrics.weights=random")
    ours = {
        "RUN_DIR": source_run,
        "outputs/DATE/TIME": source_run,
        "outputs/sweeps/lr": source_run.parent,
        "pictures/": pictures,
        "studiogan:": f"studiogan:{public_files}/",
        "fake=FOLDER": f"fake={pictures}",
        "real=FOLDER": f"real={pictures}",
        "num=50_000": "num=8",
        "num=1000": "num=8",
        "data.resolution=512": "data.resolution=64",
        "checkpoint=25_024": "checkpoint=8",
        **archives,
    }
    for theirs, mine in ours.items():
        arguments = [argument.replace(theirs, str(mine)) for argument in arguments]
    if "metrics=dinov2_large" in arguments:
        monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=1))
        arguments = [o for o in arguments if not o.startswith("metrics.weights=")]
        arguments += ["metrics.weights=random", "metrics.input_size=28"]
    if "samples/latent.safetensors" in line:
        latent = torch.ones(1, Generator.from_pretrained(source_run).z_dim)
        Latent(latent).save(tmp_path / "samples" / "latent.safetensors")
    few = {"check": ["data.batch_size=4"], "evaluate": ["count=8"]}.get(name, [])
    kinds = {"invert=": "steps=2", "interpolate=": "frames=2"}
    few += [setting for kind, setting in kinds.items() if any(o.startswith(kind) for o in arguments)]
    code, out, err = called(main, name, *arguments, *few)
    assert code == 0, err
    assert out or list(tmp_path.iterdir()) != [tmp_path / "mine.jpg"]


def test_backbone_of_ones_own_is_one_file_and_one_yaml(tmp_path):
    python, yaml = (
        re.search(rf"```{kind}\n# (\S*tiny\S*)\n(.*?)```", "".join(PAGES), re.DOTALL) for kind in ("python", "yaml")
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
