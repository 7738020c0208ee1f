"""What all commands share: arguments become a config, and an error becomes one line and an exit code."""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from transfergen.commands.foreign_configs import checked_configs, trusted_names
from transfergen.commands.output import check_printed, open_streams
from transfergen.config import CONF_DIR
from transfergen.errors import SignalError, ended_by_signals, exit_by_signal, first_line, printable
from transfergen.targets import trust


def _run_dir(resume: str | None, new: str) -> str:
    """Hydra's run directory: that of the resumed run, or a new one."""
    if resume in (None, "auto"):
        return new
    path = Path(resume).expanduser()
    if not path.is_dir():
        raise ValueError(f"resume={resume}: there is no such folder; give that of a run")
    return str(path)


def _hydra_dir(resume: str | None) -> str:
    """Hydra's folder in the run directory: a resumed run keeps the one of the command that began it."""
    return ".hydra" if resume in (None, "auto") else ".hydra/resumed"


OmegaConf.register_new_resolver("run_dir", _run_dir)
OmegaConf.register_new_resolver("hydra_dir", _hydra_dir)

USER_ERROR, DIVERGED, RANK_LOST = 2, 3, 4
"""Exit codes."""
NO_RUN = "run=RUN_DIR is missing: the folder of a training run, or a model of the Hugging Face hub"
_FULL_ERROR, _PARENT = "HYDRA_FULL_ERROR", "TRANSFERGEN_PARENT"
_EXTRAS = {"optuna": "sweep", "submitit_slurm": "slurm", "submitit_local": "slurm"}

Item = TypeVar("Item")


def run(config_name: str, task: Callable[[DictConfig], object], arguments: Sequence[str] | None = None) -> None:
    """Compose a config from `arguments`, by default those of the process, and run `task` on it.

    A user's mistake ends in one line on stderr and exit code 2.
    """
    wants_traceback, argv = os.environ.get(_FULL_ERROR), sys.argv

    def guarded(config: DictConfig) -> object:
        _restore(wants_traceback)
        sys.argv = argv  # Lightning starts the other ranks by it
        for handler in (*logging.getLogger().handlers, *filter(None, [logging.lastResort])):
            handler.addFilter(escape_record)
        trust(trusted_names(overrides()))
        try:
            result = task(config)
            if config_name != "train":  # what others print is what they are asked for
                check_printed()
            return result
        except OmegaConfBaseException as error:
            _exit(USER_ERROR, error, _explain(error))
        except (ValueError, OSError) as error:
            _exit(USER_ERROR, error)
        except FloatingPointError as error:
            _exit(DIVERGED, error)
        except SignalError as error:  # here as well, since a job of a cluster runs nothing else
            exit_by_signal(error)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
                line = f"not enough memory ({first_line(error)}); set a smaller batch size, or smaller networks"
                _exit(USER_ERROR, error, line)
            if "by peer" not in str(error):
                raise
            line = "another process of this run has ended; resume=RUN_DIR goes on from the last checkpoint"
            _exit(RANK_LOST, error, line)

    open_streams()
    die_with_parent()
    os.environ[_FULL_ERROR] = "1"  # Hydra then raises its own errors instead of printing them
    if arguments is not None:
        sys.argv = [argv[0], *arguments]  # Hydra reads no other
    try:
        with ended_by_signals(), checked_configs():
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        _restore(wants_traceback)
        _exit(USER_ERROR, error, _explain(error))
    finally:
        sys.argv = argv
        _restore(wants_traceback)


def die_with_parent() -> None:
    """In a rank that Lightning started: watch the process that started it, and exit when that ends."""
    if not int(os.environ.get("LOCAL_RANK", "0")) or "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ[_PARENT] = str(os.getpid())  # for the ranks that are started here
        return
    parent = int(os.environ.get(_PARENT, os.getppid()))  # the parent now may be another already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_directory() -> Path:
    """The run directory that Hydra chose for this job.

    Raises:
        ValueError: it cannot be written to.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    if not os.access(path, os.W_OK):
        raise ValueError(f"hydra.run.dir={path}: cannot write there; choose another folder")
    return path


def is_sweep() -> bool:
    """Whether Hydra runs several jobs in this process."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def overrides() -> list[str]:
    """The command line's own overrides, without Hydra's."""
    return list(HydraConfig.get().overrides.task)


def choices() -> dict[str, str | None]:
    """The options chosen of the groups that set no values of their own but select those of other groups."""
    chosen = HydraConfig.get().runtime.choices
    return {group: chosen.get(group) for group in ("model", "experiment")}


def plain(config: DictConfig) -> DictConfig:
    """The config without `resume`. No value is missing, and each interpolation can be resolved.

    Interpolations stay, so that an error can name the key that a value is taken from.
    """
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.pop("resume", None)
    return config


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a progress bar on stderr, if that is a terminal."""
    from rich import progress
    from rich.console import Console

    screen = Console(stderr=True)
    return progress.track(items, description, console=screen, transient=True, disable=not screen.is_terminal)


def escape_record(record: logging.LogRecord) -> bool:
    """A filter for log lines: the name of a file cannot move the cursor, colour the screen or hide what follows."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop(_FULL_ERROR, None)
    else:
        os.environ[_FULL_ERROR] = value


def _exit(code: int, error: BaseException, message: str | None = None) -> NoReturn:
    if os.environ.get(_FULL_ERROR) == "1":
        raise error
    line = " ".join((message or str(error)).split())
    print(f"transfergen: {printable(line) or type(error).__name__}", file=sys.stderr, flush=True)
    sys.exit(code)


def _explain(error: Exception) -> str:
    """Hydra's message in one line, with the nearest existing name."""
    if isinstance(error, OSError) and error.filename:  # some of Hydra's own errors are OSErrors, without a filename
        return f"hydra.run.dir={error.filename}: cannot write there ({error.strerror}); choose another folder"
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options:
        name, _, wrong = str(error.missing_cfg_file).rpartition("/")
        install = f" (pip install 'transfergen[{_EXTRAS[wrong]}]')" if wrong in _EXTRAS else ""
        options = [option for option in error.options if not option.startswith("_")]  # _base holds what they share
        near = nearest(wrong, options)
        return f"{name}={wrong}: there is no such {name}{install}{near}; choose {', '.join(options)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is missing: set {error.full_key}=VALUE"
    if isinstance(error, InterpolationResolutionError):  # raised by _run_dir
        return text.rsplit("resolving interpolation: ", maxsplit=1)[-1].split("\n", maxsplit=1)[0]
    key = re.search(r"Could not override '([\w./@]+)'", text)
    if key:
        known, group = _all_keys(), key[1].split(".")[0]
        why = f"what was chosen of {group} has no" if key[1] in known else "there is no"
        near = "" if key[1] in known else nearest(key[1], known)
        return f"{key[1]}: {why} such key{near} (--cfg job lists all)"
    return text.split("\nSet the environment", maxsplit=1)[0]


def nearest(wrong: str, options: Sequence[str]) -> str:
    """`, did you mean OPTION?`, or nothing if no option resembles what was given."""
    close = get_close_matches(wrong, options, n=1)
    return f", did you mean {close[0]}?" if close else ""


def _all_keys() -> list[str]:
    """The names of all groups, and the dotted names of all keys that some config file sets."""
    keys = {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()}
    for file in CONF_DIR.rglob("*.yaml"):
        group = "" if file.parent == CONF_DIR else f"{file.parent.relative_to(CONF_DIR)}."
        keys |= {f"{group}{key}" for key in _dotted(OmegaConf.to_container(OmegaConf.load(file)))}
    return sorted(keys)


def _dotted(node: Any, prefix: str = "") -> list[str]:
    if not isinstance(node, dict):
        return [prefix]
    return [name for key, item in node.items() for name in _dotted(item, f"{prefix}.{key}" if prefix else str(key))]
