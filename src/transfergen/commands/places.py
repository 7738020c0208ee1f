"""Where commands write: looked at before any work, and named by its setting where a file cannot be written."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf


def run_directory() -> Path:
    """The run directory that Hydra chose for this job.

    Raises:
        ValueError: it cannot be written to.
    """
    path = Path(HydraConfig.get().runtime.output_dir)
    if not _writable(path):
        raise ValueError(f"hydra.run.dir={path}: cannot write there; choose another folder")
    return path


def check_out(out: Path, setting: str = "out", *, folder: bool = False) -> None:
    """Check before any work that the file of a setting, or its folder, can be written.

    Raises:
        ValueError: a folder is in the place of the file, or a file in that of a folder, or it cannot be written to.
    """
    if out.is_dir() and not folder:
        raise ValueError(f"{setting}={out}: is a folder; give a file")
    places = [out.absolute(), *out.absolute().parents]
    existing = next(place for place in places[0 if folder else 1 :] if place.exists())
    if not existing.is_dir():
        raise ValueError(f"{setting}={out}: {existing} is a file, not a folder; choose another place")
    if not _writable(existing):
        raise ValueError(f"{setting}={out}: {existing} cannot be written to; choose another place")


def _writable(folder: Path) -> bool:
    """Whether a file can be made in a folder. Permissions do not tell: root has all of them in /proc, too."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def output_places(config: DictConfig) -> dict[str, str]:
    """The settings of a command that say where it writes, and their values."""
    keys = ("out", "save_stats", "data.cache_dir")
    places = {key: str(value) for key in keys if (value := OmegaConf.select(config, key))}
    return places if "out" in config else places | {"hydra.run.dir": HydraConfig.get().runtime.output_dir}


def unwritten(error: Exception, places: Mapping[str, str]) -> str | None:
    """The line for a file that a setting asks for and that cannot be written; None for another error.

    Args:
        error: of the command.
        places: the settings that say where it writes, with their values: a folder, or a file, beside which others are.
    """
    if not isinstance(error, OSError) or error.filename is None:
        return None
    file = Path(error.filename).absolute()
    for setting, value in places.items():
        place = Path(value).expanduser().absolute()
        if place in (file, *file.parents) or file in place.parents or file.parent == place.parent:
            return f"{setting}={value}: cannot write {error.filename} ({error.strerror}); choose another place"
    return None
