"""`transfergen evaluate`: the metrics of a run, or of a folder of images."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from transfergen.commands import cli

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("evaluate", _task, arguments)


def _task(config: DictConfig) -> None:
    _check(config)
    from transfergen.config import instantiate
    from transfergen.devices import choose_device
    from transfergen.evaluation.compare_folders import compare_folders
    from transfergen.evaluation.compare_run import compare_run
    from transfergen.evaluation.comparison import Comparison
    from transfergen.evaluation.measure import to_table
    from transfergen.runs.artefacts import write_json

    device = choose_device(config.device)
    extractor = instantiate(config.metrics).to(device)
    out = Path(config.out or (Path(config.run or ".") / "evaluation.json")).expanduser()
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(there, os.W_OK):  # known before the work and not after it
        raise ValueError(f"{there} cannot be written to; set out=FILE in another folder")
    comparison: Comparison = (compare_run if config.run else compare_folders)(config, extractor, device, _track)
    result = comparison.about | {"metrics": comparison.metrics()}
    for warning in dict.fromkeys(e["warning"] for e in result["metrics"] if "warning" in e):
        log.warning(warning)
    earlier = _earlier(out, result)
    write_json(out, result | earlier)  # whatever becomes of the rest
    if config.neighbours:
        picture = out.parent / "neighbours.png"
        found = comparison.neighbours(config.neighbours, picture)
        result |= found
        result["metrics"] += comparison.novelty()
        write_json(out, result | earlier)
    if config.format == "json":
        print(json.dumps(result))
        return
    Console().print(to_table(result["metrics"]))
    if config.neighbours:
        print(f"the samples nearest to {comparison.searched} images, and these: {picture}")
    print(f"all of it: {out}")


def _earlier(out: Path, result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Results that the file has already, of another extractor, count or split: they are kept beside the new one.

    A result of the same is not, nor is one of a generator that further training has replaced.
    """
    try:
        before = json.loads(out.read_text())
        listed = [before, *before.pop("earlier", [])]
        kept = [r for r in listed if _measured(r) != _measured(result) and not _replaced(r, result)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # there is none, or it is something else's
        return {}
    return {"earlier": kept} if kept else {}


def _measured(result: dict[str, Any]) -> list[Any]:
    """What tells a result from others."""
    first = result["metrics"][0]
    keys = ("extractor", "generated", "real", "split", "seed")
    return [
        *(result.get(key) for key in ("checkpoint", "fake", "real", "fit", "resolution")),
        *(first[key] for key in keys),
    ]


def _replaced(result: dict[str, Any], by: dict[str, Any]) -> bool:
    same = "checkpoint" in by and result.get("checkpoint") == by["checkpoint"]
    return same and result["images_seen"] != by["images_seen"]


def _check(config: DictConfig) -> None:
    if (config.run is None) == (config.fake is None) or (config.fake is None) != (config.real is None):
        raise ValueError("give either run=RUN_DIR, the folder of a training run, or fake=FOLDER and real=FOLDER")
    if config.format not in ("table", "json"):
        raise ValueError(f"format={config.format}: choose table or json")
    if config.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={config.checkpoint}: choose last or best")
    if config.split not in ("train", "test"):
        raise ValueError(f"split={config.split}: choose train or test")
    for key, least in {"count": 2, "neighbours": 0, "references": 1, "batch_size": 1}.items():
        if not isinstance(config[key], int) or config[key] < least:
            raise ValueError(f"{key}={config[key]}: give a whole number, at least {least}")


def _track(items: Sequence[Any], description: str) -> Iterable[Any]:
    screen = Console(stderr=True)
    return track(items, description, console=screen, transient=True, disable=not screen.is_terminal)
