"""The configs that a run directory holds: plain values, written and read without calling a resolver.

A run directory may be somebody else's. An interpolation in its config, such as `${oc.env:TOKEN}`, would carry the
environment of whoever reads it into a page, a path or a request.
"""

import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from transfergen.config import flatten
from transfergen.errors import first_line
from transfergen.runs import artefacts

log = logging.getLogger(__name__)

_KEY = r"\w+(?:\.\w+)*"


def parse_yaml(folder: Path, name: str) -> Any:
    """The content of a YAML file in a run directory. An interpolation is text like any other.

    Raises:
        FileNotFoundError: there is none.
        Exception: of some kind, if it is damaged; ValueError, if it is larger than any config, or holds an alias, which
            can make gigabytes of a few bytes.
    """
    text = artefacts.read(folder, name).decode()
    if len(text) > 2**20:
        raise ValueError("it is larger than any config")
    # libyaml comes first, since it refuses deep nesting at once, on which the other spends hours.
    for loader in (getattr(yaml, "CSafeLoader", yaml.SafeLoader), yaml.SafeLoader):
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, loader)):
            raise ValueError("it holds aliases")
    return OmegaConf.to_container(OmegaConf.create(text))


def _read_yaml(folder: Path, name: str, override: str) -> dict[str, Any]:
    artefacts.check_folder(folder, override)
    try:
        content = parse_yaml(folder, name)
        if not isinstance(content, dict):
            raise TypeError("it holds no keys")
        if "${" in str(content):
            raise ValueError("it holds an interpolation, where a saved config is plain")
    except FileNotFoundError as error:
        raise ValueError(f"{override}={folder}: no {name} in it: give the folder of a run") from error
    except Exception as error:  # whatever the parser raises
        raise ValueError(f"{override}={folder}: {name} is damaged ({first_line(error)})") from error
    return content


def read_config(run_dir: Path, given: Collection[str] = ()) -> DictConfig:
    """The config of a run.

    Args:
        run_dir: holds it.
        given: see `confine`.

    Raises:
        ValueError: there is none, it is damaged, or it would have others write outside the folder.
    """
    config = OmegaConf.create(_read_yaml(run_dir, artefacts.CONFIG, "run"))
    if not isinstance(OmegaConf.select(config, "data.source"), DictConfig):
        raise ValueError(f"run={run_dir}: {artefacts.CONFIG} is damaged: it says nothing of data.source")
    confine(config, run_dir, given)
    return config


def dump_composed(config: DictConfig, choices: DictConfig) -> str:
    """The config that a resumed run starts from, as YAML.

    Args:
        config: as composed. Values are written plain, and separately which keys refer to which others, so that these
            follow when those are overridden.
        choices: the model and the experiment.
    """
    written = flatten(OmegaConf.to_container(config))
    matches = {key: re.fullmatch(rf"\$\{{({_KEY})\}}", str(value)) for key, value in written.items()}
    references = {key: match[1] for key, match in matches.items() if match}
    plain = OmegaConf.to_container(config, resolve=True)
    return OmegaConf.to_yaml(OmegaConf.create({"choices": choices, "config": plain, "references": references}))


def read_composed(run_dir: Path, like: DictConfig) -> tuple[DictConfig, DictConfig]:
    """The config that `dump_composed` wrote, and the choices.

    Args:
        run_dir: holds the file.
        like: a config of this version of the program.

    Raises:
        ValueError: there is no such file, or it is damaged.
    """
    saved = _read_yaml(run_dir, artefacts.COMPOSED, "resume")
    try:
        return _with_references(**saved, like=like), OmegaConf.create(saved["choices"])
    except Exception as error:  # whatever forged keys and types provoke
        raise ValueError(
            f"resume={run_dir}: {artefacts.COMPOSED} is damaged, or of another version of transfergen"
        ) from error


def _with_references(
    config: dict[str, Any], choices: dict[str, Any], references: dict[str, str], like: DictConfig
) -> DictConfig:
    for key in set(like) - {"resume", "overwrite"}:
        if key not in config and not isinstance(like[key], DictConfig):
            config[str(key)] = like[key]  # a setting that is younger than the run
        if isinstance(config[str(key)], dict) != isinstance(like[key], DictConfig):
            raise TypeError(key)
    plain, result = OmegaConf.create(config), OmegaConf.create(config)
    for key, target in references.items():
        same = OmegaConf.select(plain, key) == OmegaConf.select(plain, target)  # a reference adds nothing
        if not (same and re.fullmatch(_KEY, key) and re.fullmatch(_KEY, target)):
            raise ValueError(key)
        OmegaConf.update(result, key, f"${{{target}}}", merge=False)
    OmegaConf.to_container(result, resolve=True)  # not in a circle
    return result


def confine(config: DictConfig, run_dir: Path, given: Collection[str] = ()) -> None:
    """Let a saved config write to no place but its run directory and the usual cache.

    Nor may a logger reach a server. Another `data.cache_dir` is replaced by the usual one, and pictures are not
    downloaded to another `data.path`.

    Args:
        config: as saved, or with overrides.
        run_dir: its run directory.
        given: dotted keys that the command line sets, with all below them; they are the user's own word.

    Raises:
        ValueError: a logger writes to another place.
    """

    def inside(path: Path) -> bool:
        return any(path.resolve().is_relative_to(root.resolve()) for root in (run_dir, usual))

    def foreign(key: str) -> bool:
        return not any(key == each or key.startswith(f"{each}.") for each in given)

    usual, data = Path(artefacts.CACHE).expanduser(), config.data
    cache = str(data.get("cache_dir", usual))
    if foreign("data.cache_dir") and not inside(Path(cache).expanduser()):
        log.warning(f"data.cache_dir={cache}: outside of {run_dir} it counts on the command line only; using {usual}")
        data.cache_dir = str(usual)
    if data.source.get("download") and foreign("data.path") and not inside(Path(str(data.path)).expanduser()):
        data.source.download = False
    for key, value in flatten(OmegaConf.to_container(config).get("logger", {}), "logger").items():  # type: ignore[union-attr]
        elsewhere = isinstance(value, str) and ({"~", "$", ":"} & set(value) or not inside(run_dir / value))
        if foreign(key) and (elsewhere or (key.endswith(".offline") and not value)):
            raise ValueError(f"{key}={value}: outside of {run_dir} it counts on the command line only; give it there")
