"""The overrides on a command line: paths are taken as they are typed, and what is refused is explained in one line."""

import re
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from transfergen.config import CONF_DIR, flatten
from transfergen.settings import PATHS

NO_HOME = "HOME is not set, and this user has no home directory: set HOME=FOLDER"
_GOES_WITH = {
    "transfer.last_k": ("transfer.trunk=last_k",),
    "transfer.generator_last_k": ("transfer.generator=last_k",),
    "transfer.unfreeze_every_images": ("transfer.trunk=gradual", "transfer.generator=gradual"),
    "transfer.trunk_lr_scale": ("transfer.trunk=trainable", "transfer.trunk=last_k", "transfer.trunk=gradual"),
}
"""Settings that change nothing unless another one has this value, or one of several."""
_EXTRAS = {"optuna": "sweep", "submitit_slurm": "slurm", "submitit_local": "slurm"}


def check_options(arguments: Sequence[str]) -> None:
    """Check that Hydra has the options among the arguments and finds all settings, and that no path is empty.

    Raises:
        ValueError: it has not one of the options, one stands between settings, or a path is empty.
    """
    _, unknown = get_args_parser().parse_known_args(arguments)
    if unknown:
        if unknown[0].startswith("-"):
            raise ValueError(f"{unknown[0]}: there is no such option; a setting is KEY=VALUE, without dashes")
        raise ValueError(f"{unknown[0]}: is apart from the other settings; give all of them before --options, or after")
    check_paths(arguments)


def check_paths(arguments: Sequence[str]) -> None:
    """Check that no path is empty, which would stand for the current folder where a shell's variable is not set.

    Raises:
        ValueError: one is.
    """
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key.lstrip("+") in PATHS and not value.strip("\"' "):
            raise ValueError(f"{argument}: is empty, as where a variable of the shell is not set; give a path")


def quote_path(argument: str, *, sweeps: bool) -> str:
    """An override whose key holds a path, quoted if Hydra would take its value for anything but text.

    Raises:
        ValueError: the value begins with ~, and there is no home directory.
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATHS:
        return argument
    try:
        if value.startswith("~"):
            return f"{key}={_quoted(str(Path(value).expanduser()))}"
        parsed = OverridesParser.create().parse_override(argument)
    except RuntimeError as error:
        raise ValueError(f"{argument}: {NO_HOME}") from error
    except HydraException:
        return f"{key}={_quoted(value)}"
    is_text = isinstance(parsed.value(), str | None) or (sweeps and parsed.is_sweep_override())
    return argument if is_text else f"{key}={_quoted(value)}"


def for_resumed(arguments: Sequence[str]) -> list[str]:
    """The command line of a resumed run: its single settings need not be those of the default choices.

    Each begins with `++`, as Hydra wants it. `check_keys` then compares them with those of the run.
    """
    resumes = [each.partition("=")[2] for each in arguments if each.startswith("resume=")]
    if not resumes or resumes[-1] in ("auto", "null", ""):
        return [*arguments]
    single = re.compile(r"(?!hydra\.)\w+(\.\w+)+=")
    return [f"++{each}" if single.match(each) else each for each in arguments]


def check_keys(saved: DictConfig, overrides: Sequence[str]) -> None:
    """Check that a run has the settings that `for_resumed` marked.

    Raises:
        ValueError: it has not.
    """
    for override in overrides:
        key = override.removeprefix("++").partition("=")[0]
        parent, _, name = key.rpartition(".")
        if override.startswith("++") and name not in (OmegaConf.select(saved, parent) or ()):
            raise ValueError(_no_such_key(key))


def check_used(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse settings that would be ignored, such as those of an optimizer without a discriminator.

    Models and experiments set some of them, too, so that only the command line tells whether they were meant.

    Raises:
        ValueError: one is set.
    """
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    ignored = [key for key in keys if f"{key}.".startswith("optimizer.discriminator.")]
    if ignored and config.encoder and not config.discriminator:
        raise ValueError(f"{ignored[0]}: a plain VAE has no use for it; leave it out, or set model=vae_gan")
    decay = [key for key in keys if key in ("lr_decay.end_images", "lr_decay.final_factor")]
    if decay and config.lr_decay.start_images is None:
        raise ValueError(f"{decay[0]}: the learning rates do not fall; set lr_decay.start_images, too, or leave it out")
    for key, choices in _GOES_WITH.items():
        pairs = [choice.split("=") for choice in choices]
        if key in keys and all(OmegaConf.select(config, other) != value for other, value in pairs):
            raise ValueError(f"{key}: is for {' or '.join(choices)}; set that, too, or leave it out")


def refuse_ignored(overrides: Sequence[str], purposes: Mapping[str, str]) -> None:
    """Refuse settings that a command has, but not for what it is asked for.

    Args:
        overrides: the command line's.
        purposes: for each setting that would be ignored, what it is for.

    Raises:
        ValueError: one is set.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key in purposes:
            raise ValueError(f"{override.lstrip('+')}: is for {purposes[key]}; leave it out")


def _quoted(value: str) -> str:
    """A value in quotes, by the rules of Hydra's grammar."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), value) + '"'


def explain(error: Exception, *, command: str = "train", sweeps: bool = False) -> str:
    """Hydra's message in one line, with the nearest name that a command has. `sweeps`: Hydra runs several jobs."""
    cause = error.__cause__ or error  # of a log that cannot be opened
    if isinstance(cause, OSError) and cause.filename:  # some of Hydra's own errors are OSErrors, without a filename
        setting = "hydra.sweep.dir" if sweeps else "hydra.run.dir"
        return f"{setting}: cannot write {cause.filename} ({cause.strerror}); choose another folder"
    text = _unreadable(error.override) if isinstance(error, OverrideParseException) else str(error)
    if isinstance(error, MissingConfigException) and error.options:
        name, _, wrong = str(error.missing_cfg_file).rpartition("/")
        install = f" (pip install 'transfergen[{_EXTRAS[wrong]}]')" if wrong in _EXTRAS else ""
        options = [option for option in error.options if not option.startswith("_")]  # _base holds what they share
        near = nearest(wrong, options)
        return f"{name}={wrong}: there is no such {name}{install}{near}; choose {', '.join(options)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: set {error.full_key}=VALUE"
    if isinstance(error, InterpolationResolutionError):  # raised by cli.run_dir
        return text.rsplit("resolving interpolation: ", maxsplit=1)[-1].split("\n", maxsplit=1)[0]
    key = re.search(r"Could not override '([\w./@]+)'", text)
    if key:
        return _no_such_key(key[1], command)
    if several := re.match("Ambiguous value for argument '(.*)'\n", text):
        name, _, values = several[1].partition("=")
        text = f"{several[1]}: for a list give {name}=[{values}], for a sweep add --multirun"
    elif "Cannot merge" in str(error.__cause__):
        override = text.removeprefix("Error merging override ")
        text = f"{override}: give {'a list, as in [a,b]' if '={' in override else 'a mapping, as in {a: b}'}"
    return text.split("\nSet the environment", maxsplit=1)[0]


def _no_such_key(key: str, command: str = "train") -> str:
    known = _all_keys(command)
    group, dot, _ = key.partition(".")
    others = dot and key in known
    why = f"what was chosen of {group} has no" if others else "there is no"
    near = "" if others else nearest(key, [each for each in known if each != key])
    return f"{key}: {why} such key{near} (--cfg job lists all)"


def _unreadable(override: str) -> str:
    """The message for an override that Hydra cannot parse, with the quotes that it needs."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: give KEY=VALUE"
    items = [item if item.isdigit() else _quoted(item) for item in value.strip("[]").split(",")]  # a seed is no text
    quoted = f"[{','.join(items)}]" if value.startswith("[") else _quoted(value)
    return f"{override}: the value cannot be read; put it in quotes: {shlex.quote(f'{key}={quoted}')}"


def nearest(wrong: str, options: Sequence[str]) -> str:
    """`, did you mean OPTION?`, or nothing if no option resembles what was given."""
    close = get_close_matches(wrong, options, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _all_keys(command: str) -> list[str]:
    """The names of a command's groups, and the dotted names of all keys that some config file of them sets."""
    settings: Any = OmegaConf.to_container(OmegaConf.load(CONF_DIR / f"{command}.yaml"))
    parts = settings.pop("defaults", [])
    keys = {key for key in flatten(settings) if not key.startswith("hydra.")}
    for base in (part for part in parts if isinstance(part, str) and part != "_self_"):
        keys |= set(_all_keys(base))
    for group in {name for part in parts if isinstance(part, dict) for name in part if " " not in name}:
        keys.add(group)
        for file in (CONF_DIR / group).glob("*.yaml"):
            own: Any = OmegaConf.to_container(OmegaConf.load(file))
            keys |= {f"{group}.{key}" for key in flatten(own)}
    return sorted(keys)
