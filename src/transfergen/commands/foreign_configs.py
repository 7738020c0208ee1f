"""Checks of config files from other folders: they may say settings, and nothing that runs code."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfergen.config import CONF_DIR
from transfergen.runs.artefacts import COMPOSED, refuse_links

_REFERENCE = re.compile(r"\$\{[\w.\[\]]*\}")


class ConfigLoader(ConfigLoaderImpl):
    """Hydra's loader, which looks at what can be somebody else's before Hydra calls or writes anything.

    Files of other folders, such as those of `--config-dir`, may only say settings: what they say of `hydra` would run
    before our own checks, as callbacks, log handlers and plugins do, and resolvers such as `oc.env` would carry the
    environment into a run's files. And no run or sweep goes on in a folder with links, through which it would write.
    """

    def load_configuration(
        self, config_name: str | None, overrides: list[str], run_mode: RunMode, *more: Any, **settings: Any
    ) -> DictConfig:
        """See Hydra.

        Raises:
            ValueError: a file sets what it may not, or the folder to go on in holds links.
        """
        config = super().load_configuration(config_name, overrides, run_mode, *more, **settings)
        key = "sweep" if run_mode == RunMode.MULTIRUN else "run"
        with suppress(OmegaConfBaseException):  # Hydra meets it again, or knows more by then
            folder = Path(config.hydra[key].dir)
            trains = "resume" in config and config_name != "check"
            begun = trains and (config.resume is not None or (folder / COMPOSED).exists())
            if key == "sweep" or begun:
                refuse_links(folder, f"hydra.{key}.dir={folder}")
        return config

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        loaded = super()._load_single_config(default, repo)
        if loaded.path.startswith("file://") and Path(loaded.path.removeprefix("file://")) != CONF_DIR:
            file = f"{loaded.path.removeprefix('file://')}/{default.config_path}"
            if "hydra" in loaded.config:
                raise ValueError(f"{file}: sets hydra.*, which only the command line and {CONF_DIR} may")
            if "${" in _REFERENCE.sub("", OmegaConf.to_yaml(loaded.config)):
                raise ValueError(f"{file}: calls a resolver; only references to other keys, as ${{seed}}, are allowed")
        return loaded


@contextmanager
def checked_configs() -> Iterator[None]:
    """A context in which Hydra loads configs by `ConfigLoader`; it has no setting for that."""
    module: Any = hydra._internal.hydra
    theirs, module.ConfigLoaderImpl = module.ConfigLoaderImpl, ConfigLoader
    try:
        yield
    finally:
        module.ConfigLoaderImpl = theirs


def trusted_names(arguments: Sequence[str]) -> list[str]:
    """The value of `trust` on the command line; a value in the config can be somebody else's."""
    given = OverridesParser.create().parse_overrides([each for each in arguments if each.startswith("trust=")])
    names = given[-1].value() if given else []
    return [str(name) for name in (names if isinstance(names, list) else [names])]
