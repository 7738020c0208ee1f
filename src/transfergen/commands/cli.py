"""Shared by all commands: arguments become a config, and an error becomes one line and an exit code."""

import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfergen.commands.foreign_configs import checked_configs, trusted_names
from transfergen.commands.output import check_printed, open_streams
from transfergen.commands.overrides import NO_HOME, check_options, explain, for_resumed, quote_path
from transfergen.commands.places import output_places, unwritten
from transfergen.config import CONF_DIR, check
from transfergen.errors import SignalError, first_line, printable, resume_override
from transfergen.runs import artefacts
from transfergen.signal_handler import PARENT, ended_by_signals, exit_by_signal
from transfergen.targets import trust


def _run_dir(resume: str | None, new: str) -> str:
    """Hydra's run directory: that of the resumed run, or a new one."""
    if resume in (None, "auto"):
        return new
    path = Path(resume).expanduser()
    if not path.is_dir():
        raise ValueError(f"resume={resume}: there is no such folder; give that of a run")
    if not artefacts.is_run(path):  # else Hydra would write to it
        raise ValueError(f"resume={resume}: no {artefacts.LAST_CHECKPOINT} in it; give the folder of a run")
    return str(path)


def _hydra_dir(resume: str | None) -> str:
    """Hydra's folder in the run directory: a resumed run keeps the one of the command that began it."""
    return ".hydra" if resume in (None, "auto") else ".hydra/resumed"


def _keys(config_name: str) -> str:
    """The keys of a command as its YAML has them after the groups, with their comments, and without Hydra's own."""
    return (CONF_DIR / f"{config_name}.yaml").read_text().partition("\n\n")[2].partition("\nhydra:")[0].strip()


OmegaConf.register_new_resolver("run_dir", _run_dir)
OmegaConf.register_new_resolver("hydra_dir", _hydra_dir)
OmegaConf.register_new_resolver("keys", _keys)
OmegaConf.register_new_resolver("conf_dir", lambda: str(CONF_DIR))

USER_ERROR, DIVERGED, RANK_LOST = 2, 3, 4
"""Exit codes."""
NO_RUN = "run=RUN_DIR is missing: the folder of a training run, builtin:cifar10, or a model of the Hugging Face hub"
LESS_MEMORY = {
    "train": "set a smaller data.batch_size, optimizer.accumulate=2 or generator_checkpointing=true",
    "generate": "set a smaller batch_size",
    "evaluate": "set a smaller batch_size or count",
}
"""For each command that has such settings, what lets it do with less memory."""
_FULL_ERROR = "HYDRA_FULL_ERROR"

Item = TypeVar("Item")


def run(config_name: str, task: Callable[[DictConfig], object], arguments: Sequence[str] | None = None) -> None:
    """Compose a config from `arguments`, by default those of the process, and run `task` on it.

    A user's mistake ends in one line on stderr and exit code 2.
    """
    wants_traceback, argv = os.environ.get(_FULL_ERROR), sys.argv

    def guarded(config: DictConfig) -> object:
        _restore(wants_traceback)
        sys.argv = argv  # Lightning starts the other ranks by it
        escape_records()
        trust(trusted_names(overrides()))
        os.chdir(HydraConfig.get().runtime.cwd)  # relative paths are the user's, with hydra.job.chdir=true, too
        try:
            if config_name == "train":  # whose config may yet become that of a resumed run
                return task(config)
            check(config)
            result = task(config)
            check_printed()  # what a command prints is what it is asked for
            return result
        except OmegaConfBaseException as error:
            _exit(USER_ERROR, error, explain(error, command=config_name))
        except (ValueError, OSError) as error:
            _exit(USER_ERROR, error, unwritten(error, output_places(config)))
        except FloatingPointError as error:
            _exit(DIVERGED, error)
        except SignalError as error:  # here as well, since a job of a cluster runs nothing else
            exit_by_signal(error)
        except (RuntimeError, MemoryError) as error:
            if line := memory_line(error, config_name):
                _exit(USER_ERROR, error, line)
            if "home directory" in str(error):
                _exit(USER_ERROR, error, NO_HOME)
            if "by peer" not in str(error):
                raise
            resume = resume_override(HydraConfig.get().runtime.output_dir)
            _exit(RANK_LOST, error, f"another process of this run has ended; {resume} goes on from the last checkpoint")

    open_streams()
    escape_records()  # of Hydra's own options, for which it sets up no handlers
    die_with_parent()
    os.environ[_FULL_ERROR] = "1"  # Hydra then raises its own errors instead of printing them
    given = argv[1:] if arguments is None else arguments
    sweeps = not {"-m", "--multirun"}.isdisjoint(given)
    try:
        check_options(given)
        # Hydra reads no other.
        sys.argv = [argv[0], *for_resumed([quote_path(argument, sweeps=sweeps) for argument in given])]
        with ended_by_signals(), checked_configs():
            hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(guarded)()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        _restore(wants_traceback)
        _exit(USER_ERROR, error, explain(error, command=config_name, sweeps=sweeps))
    finally:
        sys.argv = argv
        _restore(wants_traceback)


def memory_line(error: Exception, command: str = "train") -> str | None:
    """The line for an error of the allocator in a command; None for another error."""
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", str(error)):
        return f"not enough memory ({first_line(error)}); {LESS_MEMORY.get(command, 'end other programs')}"
    return None


def die_with_parent() -> None:
    """Watch the process that started this rank, and exit when that process ends."""
    if not int(os.environ.get("LOCAL_RANK", "0")) or "TORCHELASTIC_RUN_ID" in os.environ:
        os.environ[PARENT] = str(os.getpid())  # for the ranks that are started here
        return
    parent = int(os.environ.get(PARENT, os.getppid()))  # the parent now may be another already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def is_sweep() -> bool:
    """Whether Hydra runs several jobs in this process."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def overrides() -> list[str]:
    """The command line's own overrides, without Hydra's."""
    return list(HydraConfig.get().overrides.task)


def choices() -> dict[str, str | None]:
    """The chosen options of `model` and `experiment`, which select the options of other groups."""
    chosen = HydraConfig.get().runtime.choices
    return {group: chosen.get(group) for group in ("model", "experiment")}


def plain(config: DictConfig) -> DictConfig:
    """The config without `resume` and `overwrite`. No value is missing, and each interpolation can be resolved.

    Interpolations stay, so that an error can name the key that a value is taken from.
    """
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    config = config.copy()
    OmegaConf.set_struct(config, False)
    for key in ("resume", "overwrite"):
        config.pop(key, None)
    return config


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a progress bar on stderr, if that is a terminal."""
    from rich import progress
    from rich.console import Console

    screen = Console(stderr=True)
    return progress.track(items, description, console=screen, transient=True, disable=not sys.stderr.isatty())


def escape_records() -> None:
    """Let all handlers of logs spell out control characters, see `escape_record`."""
    for handler in (*logging.getLogger().handlers, *filter(None, [logging.lastResort])):
        handler.addFilter(escape_record)


def escape_record(record: logging.LogRecord) -> bool:
    """A filter for log lines: the name of a file cannot move the cursor, colour the screen or hide what follows.

    Of several ranks on a machine the first alone tells what all of them find; each tells its own errors.
    """
    record.msg, record.args = printable(record.getMessage()), None
    return record.levelno >= logging.ERROR or not int(os.environ.get("LOCAL_RANK", "0"))


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
