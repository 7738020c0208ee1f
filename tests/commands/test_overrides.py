"""Overrides on a command line: paths as they are typed, and one line for what cannot be read."""

import re

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from transfergen.commands.overrides import check_paths, check_used, explain, quote_path
from transfergen.config import CONF_DIR
from transfergen.settings import PATHS


def read(argument):
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("key", ["data.path", "run", "hydra.run.dir", "+init_from.generator"])
@pytest.mark.parametrize(
    "path",
    [
        "größe",
        "图片",
        "o'brien",
        'say "hi"',
        "a(b)",
        "runs/lr=1",
        "a,b",
        "[x]",
        "{x}",
        "2024",
        "1e3",
        "true",
        "a b",
        "C:\\",
        "",
    ],
)
def test_a_path_is_taken_as_it_is_typed(key, path):
    assert read(quote_path(f"{key}={path}", sweeps=False)) == path


def test_a_path_may_begin_at_home_and_keeps_what_hydra_understands(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(quote_path("hydra.run.dir=~/runs", sweeps=False)) == "/home/me/runs"
    for argument in (
        "data.path=null",
        "run='a,b'",
        "out=${oc.env:HOME}/x",
        "num=3",
        "-m",
        "data=cifar10",
        "runs=[a,b]",
    ):
        assert quote_path(argument, sweeps=False) == argument


def test_a_sweep_over_paths_stays_one():
    assert quote_path("data.path=a,b", sweeps=True) == "data.path=a,b"
    assert read(quote_path("data.path=größe", sweeps=True)) == "größe"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("backbone.name=größe", """backbone.name=größe: .*put it in quotes: 'backbone.name="größe"'"""),
        ("runs=[~/a,b]", """runs=\\[~/a,b\\]: .*put it in quotes: 'runs=\\["~/a","b"\\]'"""),
        ("interpolate=[7,~/a]", """interpolate=\\[7,~/a\\]: .*put it in quotes: 'interpolate=\\[7,"~/a"\\]'"""),
        ("größe", "größe: give KEY=VALUE"),
    ],
)
def test_another_value_that_cannot_be_read_is_answered_with_the_quotes_that_work(override, line):
    with pytest.raises(HydraException) as refused:
        OverridesParser.create().parse_overrides([override])
    assert re.fullmatch(line, explain(refused.value))


def test_several_values_are_answered_with_the_list_and_the_sweep():
    with pytest.raises(HydraException) as refused, initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        compose("generate", ["interpolate=1,5"])
    assert explain(refused.value) == "interpolate=1,5: for a list give interpolate=[1,5], for a sweep add --multirun"


@pytest.mark.parametrize("override", ["++optimizer.discriminator.lr=1", "~optimizer.discriminator.fused"])
def test_the_discriminators_optimizer_is_refused_only_where_there_is_no_discriminator(override):
    encoder, discriminator = {"_target_": "encoder"}, {"_target_": "discriminator"}
    check_used(OmegaConf.create({"encoder": encoder, "discriminator": discriminator}), [override])
    vae = OmegaConf.create({"encoder": encoder, "discriminator": {}})
    check_used(vae, ["optimizer.generator.lr=1", "optimizer=muon", "discriminator=none"])
    key = override.lstrip("+~").partition("=")[0]
    with pytest.raises(ValueError, match=f"^{re.escape(key)}: a plain VAE .*; leave it out, or set model=vae_gan$"):
        check_used(vae, [override])


@pytest.mark.parametrize("override", ["lr_decay.end_images=9", "++lr_decay.final_factor=0.5"])
def test_settings_of_rates_that_do_not_fall_are_refused(override):
    config = OmegaConf.create({"encoder": {}, "discriminator": {}, "lr_decay": {"start_images": 0}})
    check_used(config, [override])
    config.lr_decay.start_images = None
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{re.escape(key)}: .*; set lr_decay\.start_images, too, or leave it out$"):
        check_used(config, [override])


@pytest.mark.parametrize(
    ("key", "goes_with"),
    [
        ("transfer.last_k", ["transfer.trunk=last_k"]),
        ("transfer.generator_last_k", ["transfer.generator=last_k"]),
        ("transfer.unfreeze_every_images", ["transfer.trunk=gradual", "transfer.generator=gradual"]),
        ("transfer.trunk_lr_scale", [f"transfer.trunk={mode}" for mode in ("trainable", "last_k", "gradual")]),
    ],
)
def test_a_setting_that_goes_with_another_is_refused_without_it(key, goes_with):
    config = OmegaConf.create({"encoder": {}, "transfer": {"trunk": "frozen", "generator": "all"}})
    with pytest.raises(ValueError, match=rf"^{key}: is for {' or '.join(goes_with)}; set that, too, or leave it out$"):
        check_used(config, [f"{key}=2"])
    for other in goes_with:
        check_used(OmegaConf.merge(config, OmegaConf.from_dotlist([other])), [f"{key}=2"])


def test_a_home_that_is_not_there_is_said_in_one_line(monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ValueError, match=r"^run=~/x: HOME is not set.*set HOME=FOLDER$"):
        quote_path("run=~/x", sweeps=False)


@pytest.mark.parametrize("key", sorted(PATHS))
@pytest.mark.parametrize("value", ["", "''", '""', " "])
def test_an_unset_variable_does_not_stand_for_the_current_folder(key, value):
    with pytest.raises(ValueError, match=rf"^{key}={value}: is empty, .*; give a path$"):
        check_paths(["num=3", f"{key}={value}"])


def test_other_settings_may_be_empty_and_paths_null():
    check_paths(["prompt=", "data.path", "data.path=null", "run=a", "-m"])


@pytest.mark.parametrize(
    ("command", "key", "near"),
    [
        ("export", "checkpont", ", did you mean checkpoint?"),
        ("export", "batch_siz", ""),  # which training has, and this command has not
        ("report", "checkpoint", ""),
        ("evaluate", "data.resolutoin", ", did you mean data.resolution?"),
        ("train", "fromat", ""),
        ("check", "fromat", ", did you mean format?"),
        ("check", "generator.widht", ", did you mean generator.width?"),
    ],
)
def test_the_key_that_may_have_been_meant_is_one_of_the_command(command, key, near):
    with (
        initialize_config_dir(str(CONF_DIR), version_base="1.3"),
        pytest.raises(HydraException) as refused,
    ):
        compose(command, [f"{key}=1"])
    assert explain(refused.value, command=command) == f"{key}: there is no such key{near} (--cfg job lists all)"
