"""`transfergen report`: a run, or several side by side, as one HTML file that loads nothing."""

import base64
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from transfergen.commands import cli
from transfergen.commands.places import check_out
from transfergen.commands.report_pages import Run, comparison_page, run_page
from transfergen.errors import first_line
from transfergen.runs import artefacts
from transfergen.runs.curves import read_curves
from transfergen.runs.saved_config import parse_yaml

SHOWN = 9
"""Grids of a run's samples over time."""

_RECORD: dict[str, type] = {"name": str, "value": float, "extractor": str, "generated": int, "split": str}


def report(config: DictConfig) -> None:
    """Write the page of a run, or the page that compares several.

    Raises:
        ValueError: not exactly one of run, runs and sweep is given, or a folder is not a run's.
    """
    given = [key for key in ("run", "runs", "sweep") if config[key]]
    if len(given) != 1:
        raise ValueError("give one of run=RUN_DIR, runs=[RUN_DIR,RUN_DIR] and sweep=SWEEP_DIR")
    key = given[0]
    if key == "sweep":
        root = Path(config.sweep).expanduser()
        artefacts.check_folder(root, key)
        folders = _in_order(root.glob(f"[!.]*/{artefacts.CONFIG}"))
        if not folders:
            itself = f"; it is a run itself: give run={root}" if artefacts.is_run(root) else ""
            raise ValueError(f"sweep={root}: no run in it{itself}")
    else:
        folders = [Path(str(name)).expanduser() for name in ([config.run] if key == "run" else config.runs)]
        root = folders[0] if key == "run" else Path()
    out = Path(config.out).expanduser() if config.out else root / artefacts.REPORT
    check_out(out)
    once: dict[Path, Path] = {}
    for folder in folders:
        once.setdefault(folder.resolve(), folder)
    runs = [read_run(folder, key) for folder in once.values()]
    page = run_page(runs[0]) if key == "run" else comparison_page(runs, _failed(root) if key == "sweep" else [])
    artefacts.write(out, page.encode(errors="replace"))  # a folder's name need not be Unicode
    print(f"the report: {out}")


main = partial(cli.run, "report", report)


def _in_order(files: Iterable[Path]) -> list[Path]:
    """The folders of files, with trial 10 after trial 9."""
    return sorted((file.parent for file in files), key=lambda folder: (len(folder.name), folder.name))


def _failed(sweep: Path) -> list[str]:
    """A line for each trial of a sweep that failed, with the reason."""
    lines = []
    for folder in _in_order(sweep.glob(f"[!.]*/{artefacts.TRIAL}")):
        with suppress(Exception):  # a damaged file; parsers raise many kinds
            if error := json.loads(artefacts.read(folder, artefacts.TRIAL))["error"]:
                lines.append(f"trial {folder.name} failed: {error}")
    return lines


def read_run(folder: Path, override: str) -> Run:
    """Read the files of a run directory.

    Raises:
        ValueError: the folder is not a run's. The message names the `override`.
    """
    artefacts.check_folder(folder, override)
    if not (folder / artefacts.CONFIG).exists():
        raise ValueError(f"{override}={folder}: no {artefacts.CONFIG} in it: give the folder of a run")
    problems: list[str] = []

    def parsed(name: str, parse: Callable[[str], Any], otherwise: Any) -> Any:
        try:
            return parse(name)
        except FileNotFoundError:
            return otherwise
        except Exception as error:  # parsers raise many kinds
            problems.append(f"{name} is damaged ({first_line(error)})")
            return otherwise

    config = parsed(artefacts.CONFIG, lambda name: dict(parse_yaml(folder, name)), {})
    commands = [
        parsed(name, lambda name: [str(each).removeprefix("++") for each in parse_yaml(folder, name)], [])
        for name in (artefacts.OVERRIDES, artefacts.RESUMED_OVERRIDES)
    ]
    metrics, evaluation = (
        parsed(name, lambda name: _checked(json.loads(artefacts.read(folder, name))), {})
        for name in (artefacts.METRICS, artefacts.EVALUATION)
    )
    if not metrics:
        problems.append("it has no final metrics: still training, or ended early")
    records = list(metrics.get("metrics", []))
    for result in (evaluation, *evaluation.get("earlier", [])):
        which = _which_generator(result.get("checkpoint"))
        which |= {key: result[key] for key in ("chosen_by",) if key in result}
        records += [record | which for record in result.get("metrics", [])]
    seen, seconds = metrics.get("images_seen"), metrics.get("seconds")
    samples = folder / artefacts.SAMPLES
    names = [] if samples.is_symlink() else sorted(file.name for file in samples.glob("*.png"))
    grids = [f"{artefacts.SAMPLES}/{name}" for name in names]
    chosen = [grids[round(i * (len(grids) - 1) / (SHOWN - 1))] for i in range(SHOWN)] if len(grids) > SHOWN else grids
    pictures = {
        name: parsed(name, partial(artefacts.read, folder), b"")
        for name in (*chosen, artefacts.GRID, artefacts.NEIGHBOURS)
    }
    pictures = {name: base64.b64encode(content).decode() for name, content in pictures.items() if content}
    curves = parsed(artefacts.CURVES, lambda _: read_curves(folder), {})
    return Run(folder, config, [c for c in commands if c], records, seen, seconds, curves, pictures, problems)


def _which_generator(checkpoint: Any) -> dict[str, str]:
    """For a table, which generator of the run was measured, unless it is the last: the best, or a snapshot."""
    if isinstance(checkpoint, int):
        return {"generator": f"{checkpoint:,}-image"}
    return {"generator": "best"} if checkpoint == "best" else {}


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """The results of a JSON file, in the types that a page needs.

    Raises:
        Exception: they have other types; its class depends on what is wrong.
    """
    for record in result.get("metrics", []):
        record |= {key: kind(record[key]) for key, kind in _RECORD.items()}
        record["real"] = None if record["real"] is None else int(record["real"])  # unknown of statistics
        if record.get("warning") is not None:
            record["warning"] = str(record["warning"])
    for key, kind in {"images_seen": int, "seconds": float}.items():
        if result.get(key) is not None:
            result[key] = kind(result[key])
    result["earlier"] = [_checked(each) for each in result.get("earlier", [])]
    return result
