"""A record of the data that a run was trained on, and a warning if their splits are others now."""

import json
import logging
from pathlib import Path

from transfergen.data.datamodule import ImageDataModule
from transfergen.errors import counted
from transfergen.runs import artefacts

log = logging.getLogger(__name__)


def record_splits(run_dir: Path, data: ImageDataModule) -> None:
    """Write down where the data are, how many pictures each split has, and a digest of them."""
    artefacts.write_json(run_dir / artefacts.SPLITS, {"path": data.path, "splits": data.splits()})


def warn_of_other_splits(run_dir: Path, data: ImageDataModule) -> None:
    """Warn of each split that is not the one that the run was begun with, as far as its files tell."""
    try:
        before = json.loads(artefacts.read(run_dir, artefacts.SPLITS))["splits"]
        then = {name: (int(before[name]["pictures"]), str(before[name]["digest"])) for name in ("train", "test")}
    except (OSError, ValueError, LookupError, TypeError):
        return
    for name, now in data.splits().items():
        if then[name] != (now["pictures"], now["digest"]):
            log.warning(
                f"data.path={data.path}: the {name} split is not the one that the run began with, of "
                f"{counted(then[name][0], 'picture')} then and {now['pictures']:,} now"
                + ("; metrics are too good if it has pictures that were trained on" if name == "test" else "")
            )
