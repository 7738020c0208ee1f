import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from transfergen.runs import artefacts
from transfergen.runs.saved_config import confine, dump_composed, parse_yaml, read_composed, read_config

CONFIG = OmegaConf.create(
    {
        "seed": 0,
        "data": {"path": "here", "resolution": 64, "source": {"_target_": "a.b"}, "cache_dir": artefacts.CACHE},
        "backbone": {"weights": "imagenet"},
        "generator": {"resolution": "${data.resolution}"},
        "discriminator": {"backbone": "${backbone}", "name": "${oc.env:HOME}"},
        "logger": {"csv": {"_target_": "c.d", "name": "csv"}},
    }
)
CHOICES = OmegaConf.create({"model": "dcgan", "experiment": None})
BOMB = "a: &a [x, x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)


@pytest.fixture
def saved(tmp_path):
    """A run directory with the config as a training saves it."""
    (tmp_path / artefacts.COMPOSED).write_text(dump_composed(CONFIG, CHOICES))
    OmegaConf.save(CONFIG, tmp_path / artefacts.CONFIG, resolve=True)
    return tmp_path


def changed(run_dir, old, new, name=artefacts.COMPOSED):
    text = (run_dir / name).read_text()
    assert old in text
    (run_dir / name).write_text(text.replace(old, new))


def test_a_saved_config_is_plain_and_what_referred_to_a_key_still_follows_it(saved):
    assert "${" not in (saved / artefacts.COMPOSED).read_text()
    config, choices = read_composed(saved, like=CONFIG)
    assert OmegaConf.to_container(config, resolve=True) == OmegaConf.to_container(CONFIG, resolve=True)
    assert choices == CHOICES
    config.backbone.weights, config.data.resolution = "file.pth", 32
    assert (config.discriminator.backbone.weights, config.generator.resolution) == ("file.pth", 32)


def test_a_setting_that_is_younger_than_the_run_has_its_default(saved):
    assert read_composed(saved, like=OmegaConf.merge(CONFIG, {"report": True}))[0] == {**CONFIG, "report": True}
    with pytest.raises(ValueError, match=r"of another version"):
        read_composed(saved, like=OmegaConf.merge(CONFIG, {"report": {"format": "html"}}))


def test_a_resolver_is_called_when_the_run_is_composed_and_never_again(saved, monkeypatch):
    before = read_composed(saved, like=CONFIG)[0].discriminator.name
    monkeypatch.setenv("HOME", "elsewhere")
    assert read_composed(saved, like=CONFIG)[0].discriminator.name == before


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a ${seed} b", "${trials_left:sqlite:///new.db,study,1}"])
def test_a_saved_config_with_an_interpolation_is_refused_and_nothing_is_resolved(saved, value, monkeypatch):
    monkeypatch.chdir(saved)
    changed(saved, "path: here", f"path: '{value}'")
    changed(saved, "path: here", f"path: '{value}'", artefacts.CONFIG)
    for read in (lambda: read_composed(saved, like=CONFIG), lambda: read_config(saved)):
        with pytest.raises(ValueError, match=r"yaml is damaged \(it holds an interpolation") as refused:
            read()
        assert str(Path.home()) not in str(refused.value)
    assert not Path("new.db").exists()


def test_a_file_that_would_take_minutes_or_gigabytes_is_refused_before(saved):
    (saved / artefacts.CONFIG).write_text(BOMB)
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml(saved, artefacts.CONFIG)
    (saved / artefacts.CONFIG).write_text("[" + "x," * 2**20 + "]")
    with pytest.raises(ValueError, match="larger than any config"):
        parse_yaml(saved, artefacts.CONFIG)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "5",
        "a: [",
        "\x00",
        "{config: 5, choices: {}, references: {}}",
        "{config: {}, choices: {}}",
        "[" * 5000,
        "[" * 1_000_000,  # as large as a config may be
    ],
    ids=lambda content: f"{content[:12]}-{len(content)}",
)
def test_a_composed_config_of_wrong_types_gets_one_line(saved, content):
    (saved / artefacts.COMPOSED).write_text(content)
    with pytest.raises(ValueError, match=rf"^resume={re.escape(str(saved))}: \.composed\.yaml is damaged"):
        read_composed(saved, like=CONFIG)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  discriminator.backbone: backbone", "  discriminator.backbone: data"),  # would add what is not there
        ("  discriminator.backbone: backbone", "  discriminator.backbone: oc.env:HOME"),
        (
            "  discriminator.backbone: backbone",
            "  discriminator.backbone: backbone\n  backbone: discriminator.backbone",
        ),
        ("  seed: 0", "  seed: {a: 1}"),
        ("  backbone:\n    weights: imagenet\n  gen", "  backbone: 3\n  gen"),
    ],
)
def test_a_forged_reference_or_group_is_refused(saved, old, new):
    changed(saved, old, new)
    with pytest.raises(ValueError, match=r"\.composed\.yaml is damaged"):
        read_composed(saved, like=CONFIG)


@pytest.mark.parametrize("value", ["../../elsewhere", "/elsewhere", "~/elsewhere", "$HOME/elsewhere", "a/../../b"])
@pytest.mark.parametrize("key", ["name", "version", "sub_dir"])
def test_a_resumed_runs_logger_stays_in_its_folder_unless_the_command_line_says_otherwise(saved, key, value):
    config = read_config(saved)
    OmegaConf.update(config, f"logger.csv.{key}", value, force_add=True)
    with pytest.raises(ValueError, match=f"^logger.csv.{key}={re.escape(value)}: outside of"):
        confine(config, saved)
    for given in (f"logger.csv.{key}", "logger"):
        confine(config, saved, [given])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("wandb.offline", False),
        ("wandb.offline", None),
        ("mlflow.tracking_uri", "https://example.org"),
        ("mlflow.tracking_uri", "sqlite:////elsewhere.db"),
    ],
)
def test_a_resumed_runs_logger_reaches_no_server_unless_the_command_line_says_so(saved, key, value):
    config = read_config(saved)
    OmegaConf.update(config, f"logger.{key}", value, force_add=True)
    with pytest.raises(ValueError, match=f"^logger.{key}={value}: outside of .* counts on the command line only"):
        confine(config, saved)
    confine(config, saved, [f"logger.{key}"])


def test_a_runs_cache_stays_in_its_folder_or_the_usual_one_unless_the_command_line_says_otherwise(saved, caplog):
    for value, used in {
        "/elsewhere": artefacts.CACHE,
        "run/../..": artefacts.CACHE,
        str(saved / "cache"): str(saved / "cache"),
        artefacts.CACHE: artefacts.CACHE,
    }.items():
        changed(saved, artefacts.CACHE, value, artefacts.CONFIG)
        assert Path(read_config(saved).data.cache_dir).expanduser() == Path(used).expanduser()
        assert read_config(saved, given=["data.cache_dir"]).data.cache_dir == value
        changed(saved, value, artefacts.CACHE, artefacts.CONFIG)
    assert "data.cache_dir=/elsewhere: outside of" in caplog.text


def test_a_run_downloads_nothing_to_a_place_of_its_own_choice(saved):
    config = read_config(saved)
    config.data.source.download = True
    for path, download in {"/elsewhere": False, str(Path(artefacts.CACHE) / "cifar10"): True}.items():
        its = config.copy()
        its.data.path = path
        confine(its, saved)
        assert its.data.source.download == download
    config.data.path = "/elsewhere"
    confine(config, saved, ["data"])
    assert config.data.source.download


def test_a_config_without_data_or_none_at_all_gets_one_line(saved, tmp_path):
    (saved / artefacts.CONFIG).write_text("data: 3\n")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged"):
        read_config(saved)
    with pytest.raises(ValueError, match=r"^run=.*none: there is no such folder$"):
        read_config(tmp_path / "none")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"^run=.*: no config\.yaml in it"):
        read_config(tmp_path / "none")
