"""Trainings that start from the files of other projects, which tell the networks' sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from public_networks import BigGANPyTorch, PublicDiscriminator, PublicGenerator, StudioGAN, biggan_deep
from runs import ANY_MODEL, CACHE, called, train

from transfergen import Generator
from transfergen.commands.check import main as check_main
from transfergen.commands.train import main as train_main
from transfergen.config import CONF_DIR, instantiate
from transfergen.training.build import set_num_classes
from transfergen.transfer.initialisation import initialise
from transfergen.transfer.public_sources import follow_source, read_public, started_from

LAYOUTS = {"studiogan": StudioGAN, "biggan_pytorch": BigGANPyTorch}
TINY = [*ANY_MODEL[:1], "samples.count=4", "evaluation.count=4", "max_images=8", "data.batch_size=8"]


@pytest.fixture
def files(tmp_path):
    """Both networks of both projects: {layout: [setting=path]}."""
    overrides = {}
    for layout, project in LAYOUTS.items():
        networks = {
            "generator": PublicGenerator(project, 32, width=4),
            "discriminator": PublicDiscriminator(project, 32, width=4),
        }
        for kind, network in networks.items():
            torch.save(network.state_dict(), tmp_path / f"{layout}-{kind}.pth")
        overrides[layout] = [f"init_from.{kind}={tmp_path / f'{layout}-{kind}.pth'}" for kind in networks]
    return overrides


@pytest.fixture
def deep(tmp_path):
    """A small BigGAN-deep of three classes."""
    path = tmp_path / "biggan-deep-128-pytorch_model.bin"
    torch.save(biggan_deep(channel_width=4, z_dim=6, class_embed_dim=6, num_classes=3).state_dict(), path)
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder of pictures, to which `classes` may be added."""

    def folder(classes=()):
        root = tmp_path / f"pictures{len(classes)}"
        for name in classes or ["."]:
            (root / name).mkdir(parents=True, exist_ok=True)
            for i in range(24):
                Image.fromarray(np.full((32, 32, 3), 10 * i, np.uint8)).save(root / name / f"{i}.png")
        return root

    return folder


def composed(*overrides, classes=3):
    """A config whose networks have followed the files, for pictures of so many classes."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    OmegaConf.set_struct(config, False)
    follow_source(config, [override.partition("=")[0] for override in overrides])
    set_num_classes(config, classes)
    return config


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("classes", [3, 2, 0])
def test_the_files_tell_the_sizes_and_all_tensors_are_copied(files, layout, classes, caplog):
    config = composed("model=biggan", f"init_from={layout}", *files[layout], classes=classes)
    generator, discriminator = instantiate(config.generator), instantiate(config.discriminator)
    initialise(generator, discriminator, config.init_from)
    assert config.data.resolution == generator.resolution == 32
    assert generator.num_classes == discriminator.num_classes == (classes or 1)
    differences = [line.split()[0] for record in caplog.records for line in record.getMessage().splitlines()[1:]]
    assert (differences == []) == (classes == 3)
    assert all(name.startswith("embedding.") for name in differences)


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize(
    ("chosen", "weights"), [("[1]", [[0, 1, 0]] * 2), ("[2,{0:1,1:3}]", [[0, 0, 1], [0.25, 0.75, 0]])]
)
def test_new_classes_start_from_those_of_the_source_that_are_chosen(files, chosen, weights, mixture):
    config = composed(
        "init_from=studiogan", *files["studiogan"], f"init_from.classes={chosen}", "model=biggan", classes=2
    )
    source = read_public("generator", config.init_from).state["embedding.weight"]
    generator, discriminator = instantiate(config.generator), instantiate(config.discriminator)
    initialise(generator, discriminator, config.init_from, mixture=mixture)
    torch.testing.assert_close(generator.embedding.weight.detach(), torch.tensor(weights, dtype=torch.float) @ source)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_pretrained_networks_join_the_discriminator_of_a_file(files, layout):
    config = composed("experiment=fine_tune", f"init_from={layout}", *files[layout])
    discriminator = instantiate(config.discriminator)
    before = {name: tensor.clone() for name, tensor in discriminator.judges.state_dict().items()}
    initialise(instantiate(config.generator), discriminator, config.init_from)
    theirs = read_public("discriminator", config.init_from).state
    torch.testing.assert_close(dict(discriminator.ordinary.state_dict()), theirs, rtol=0, atol=0)
    torch.testing.assert_close(dict(discriminator.judges.state_dict()), before, rtol=0, atol=0)
    assert discriminator.num_classes == 3


def test_options_that_no_file_tells_stay(files):
    config = composed("model=biggan", "init_from=studiogan", files["studiogan"][0], "generator.orthogonal=0.5")
    assert (config.generator.orthogonal, config.generator.width) == (0.5, 4)
    assert config.discriminator.width == 96  # no file of it was given


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("generator.width=64", r"generator\.width=64: init_from\.generator=.* has 4; leave it out"),
        ("data.resolution=64", r"data\.resolution=64: init_from\.generator=.* has 32; leave it out"),
        ("generator=fastgan", r"generator: init_from\.generator=.* is a ResNet of its own sizes; leave it out"),
        ("data.num_classes=0", r"data\.num_classes=0: init_from\.generator=.* has classes; set 1"),
        ("init_from.layout=gan", r"init_from\.layout=gan: choose one of studiogan"),
    ],
)
def test_what_contradicts_the_file_is_refused_by_name(files, override, words):
    with pytest.raises(ValueError, match=words):
        composed("model=biggan", "init_from=studiogan", files["studiogan"][0], override)


@pytest.mark.parametrize(
    ("choice", "key"),
    [("init_from=studiogan", "layout=studiogan"), ("init_from=pytorch_dcgan", "keys=")],
)
def test_a_choice_of_another_project_without_a_file_is_refused_and_not_a_start_from_scratch(choice, key):
    with pytest.raises(ValueError, match=rf"^init_from\.{key}.*there is no file to read; set init_from\.generator"):
        composed("model=dcgan", choice)


@pytest.mark.parametrize("main", [train_main, check_main])
def test_the_settings_that_are_shown_have_the_sizes_in_the_files(files, main):
    given = ["model=biggan", "data=shapes", "init_from=studiogan", *files["studiogan"]]
    code, out, err = called(main, *given, "--cfg", "job")
    assert code == 0, err
    shown, trained = OmegaConf.create(out), compose_with(given)
    follow_source(trained, [])
    assert (shown.generator.width, shown.discriminator.width, shown.data.resolution) == (4, 4, 32)
    for node in ("generator", "discriminator", "data"):
        assert OmegaConf.to_container(shown[node]) == OmegaConf.to_container(trained[node])
    code, out, err = called(main, *given, "generator.width=64", "--cfg", "all")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "generator.width=64: init_from.generator=" in err


def test_help_reads_no_file():
    code, out, err = called(train_main, "init_from=studiogan", "init_from.generator=nowhere.pth", "--help")
    assert (code, err) == (0, "")
    assert "python train.py" in out


@pytest.mark.parametrize("choice", ["init_from=studiogan", "init_from=biggan_pytorch", "init_from=pytorch_dcgan"])
def test_the_command_does_not_train_from_scratch_where_the_files_were_forgotten(tmp_path, choice):
    code, _, err = train(tmp_path / "run", *ANY_MODEL, choice)
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no file to read; set init_from.generator" in err


def test_a_layout_beside_a_run_or_a_generator_of_this_package_is_refused(tmp_path):
    for given in (str(tmp_path), "builtin:cifar10"):
        line = (
            rf"^init_from\.generator={given}: is no file of studiogan; leave init_from=studiogan out to start from it$"
        )
        with pytest.raises(ValueError, match=line):
            composed("init_from=studiogan", f"init_from.generator={given}")


def test_a_discriminator_for_images_of_another_size_is_refused(tmp_path, files):
    large, generator = tmp_path / "large.pth", files["studiogan"][0]
    torch.save(PublicDiscriminator(StudioGAN, 64, width=4).state_dict(), large)
    given = ["model=biggan", "init_from=studiogan", f"init_from.discriminator={large}"]
    words = r"^init_from\.discriminator=.*large\.pth: is for images of 64 pixels, and this run's have 32; "
    with pytest.raises(ValueError, match=words + "give that of a generator for as many"):
        composed(*given, generator)
    with pytest.raises(ValueError, match=words + r"set init_from\.generator, too, or data\.resolution=64$"):
        composed(*given, "data.resolution=32")
    assert composed(*given, "data.resolution=64").discriminator.resolution == 64


def test_what_contradicts_the_file_of_an_ordinary_discriminator_is_refused_by_name(files):
    words = r"discriminator\.ordinary\.width: init_from\.discriminator=.* is a ResNetDiscriminator of its own sizes"
    with pytest.raises(ValueError, match=words):
        composed("experiment=fine_tune", "init_from=studiogan", *files["studiogan"], "discriminator.ordinary.width=64")


def test_beside_a_discriminator_without_classes_all_pictures_are_one_class(files):
    config = composed("init_from=studiogan", files["studiogan"][0], "discriminator=dcgan", classes=0)
    assert (config.data.num_classes, config.generator.num_classes) == (1, 1)
    assert instantiate(config.generator).embedding.weight.shape == (1, 5)
    two = composed("init_from=studiogan", files["studiogan"][0], "discriminator=dcgan", "data.num_classes=2")
    assert two.generator.num_classes == 2


def test_a_layout_may_be_named_before_the_file(files):
    path = files["biggan_pytorch"][0].partition("=")[2]
    config = composed("model=biggan", f"init_from.generator=biggan_pytorch:{path}")
    assert (config.generator.width, config.generator.eps) == (4, 1e-5)


def test_one_command_trains_a_biggan_deep_on_a_folder(tmp_path, deep, pictures):
    source = ["init_from=biggan_deep", f"init_from.generator={deep}", "experiment=few_shot"]
    code, _, err = train(tmp_path / "run", *source, f"data.path={pictures()}", *TINY, small=False)
    assert code == 0, err
    generator = Generator.from_pretrained(tmp_path / "run")
    assert (generator.resolution, generator.num_classes, generator.z_dim) == (128, 1, 6)
    assert generator.network.embedding.weight.shape == (1, 6)


def test_a_run_from_public_files_goes_on_without_them(tmp_path, files, pictures):
    data = ["data=image_folder", f"data.path={pictures(('cats', 'dogs'))}", f"data.cache_dir={CACHE}"]
    options = ["model=biggan", "init_from=studiogan", *files["studiogan"], *data, *TINY, "optimizer.d_steps=1"]
    code, _, err = train(tmp_path / "run", *options, small=False)
    assert code == 0, err
    words = "studiogan-generator.pth of studiogan (licence: MIT)"
    assert Generator.from_pretrained(tmp_path / "run").metadata["started_from"] == words
    for override in files["studiogan"]:
        Path(override.partition("=")[2]).unlink()
    code, _, err = train(tmp_path / "run", f"resume={tmp_path / 'run'}", "max_images=16", small=False)
    assert code == 0, err
    generator = Generator.from_pretrained(tmp_path / "run")
    assert generator.num_classes == 2
    generator.save_pretrained(tmp_path / "saved")
    assert (
        f"trained on 16 images (repeats counted), started from {words}."
        in (tmp_path / "saved" / "README.md").read_text()
    )
    given = {"generator": str(tmp_path / "saved"), "layout": None}
    assert started_from(given) == words  # and so has what starts from it


def test_whose_generator_a_training_starts_from(tmp_path, files):
    path = files["studiogan"][0].partition("=")[2]
    fresh, words = {"generator": None}, "studiogan-generator.pth of studiogan (licence: MIT)"
    assert started_from(fresh) is None
    assert started_from({"generator": path, "layout": "studiogan"}) == words
    assert started_from(fresh, f"studiogan:{path}") == words
    Generator.from_pretrained(f"studiogan:{path}").save_pretrained(tmp_path / "saved")
    for place in (tmp_path / "saved", tmp_path / "saved" / "generator.safetensors"):
        assert started_from({"generator": str(place)}) == started_from(fresh, str(place)) == words
    assert started_from({"generator": path}) is None  # a file that tells nothing
    assert started_from({"generator": "builtin:cifar10"}).endswith("(licence: Apache-2.0)")


def test_what_a_model_of_the_hub_started_from_is_not_forgotten(tmp_path, files, monkeypatch):
    Generator.from_pretrained(f"studiogan:{files['studiogan'][0].partition('=')[2]}").save_pretrained(tmp_path)

    def download(model, file):
        if model == "else/dogs":
            raise FileNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    words = "someone/cats of the Hugging Face hub, from studiogan-generator.pth of studiogan (licence: MIT)"
    fresh = {"generator": None}
    assert started_from({"generator": "someone/cats"}) == started_from(fresh, "someone/cats") == words
    assert started_from({"generator": "else/dogs"}) == "else/dogs of the Hugging Face hub"


def test_truncation_of_the_statistics_that_training_starts_from_is_a_choice(deep):
    means = []
    for truncation in ("1.0", "0.4"):
        overrides = [f"init_from.generator={deep}", f"init_from.truncation={truncation}"]
        config = composed("init_from=biggan_deep", *overrides, "discriminator=dcgan")
        assert config.generator.statistics == 0
        generator = instantiate(config.generator)
        initialise(generator, None, {**config.init_from, "discriminator": None})
        means.append(generator.to_rgb[0].running_mean)
    assert not torch.equal(*means)
    with pytest.raises(ValueError, match=r"init_from\.resolution=256: .* is for 128 pixels; leave it out"):
        composed("init_from=biggan_deep", overrides[0], "init_from.resolution=256", "discriminator=dcgan")


def test_without_a_network_the_command_is_refused_in_one_line(tmp_path, monkeypatch, pictures):
    def unreachable(*args):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    small = ["init_from=biggan_deep", "init_from.resolution=256", "experiment=few_shot", f"data.path={pictures()}"]
    code, _, err = train(tmp_path / "run", *small, small=False)
    assert (code, err.count("\n")) == (2, 1)
    assert "init_from.generator=biggan_deep:256: cannot download https://" in err
    assert "biggan-deep-256-pytorch_model.bin" in err


def test_generator_that_comes_with_the_package_sets_its_sizes(pictures):
    """Its data are not CIFAR-10's: only what makes the network is taken from its file."""
    given = [f"data.path={pictures()}", "data=image_folder", "init_from.generator=builtin:cifar10"]
    config = compose_with(given)
    follow_source(config, ["data.path", "init_from.generator"])
    generator = instantiate(config.generator)
    initialise(generator, None, {**config.init_from, "discriminator": None})
    latents = torch.randn(2, 100)
    expected = Generator.from_pretrained("builtin:cifar10").network(latents)
    torch.testing.assert_close(generator.eval()(latents), expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"generator\.width=64: init_from\.generator=builtin:cifar10 has 48"):
        follow_source(compose_with(given, "generator.width=64"), ["init_from.generator", "generator.width"])


def compose_with(overrides, *more):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=[*overrides, *more])
