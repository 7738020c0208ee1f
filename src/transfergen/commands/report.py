"""`transfergen report`: a run, or several side by side, as one HTML file that loads nothing."""

import base64
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.config import flatten
from transfergen.errors import counted, first_line
from transfergen.runs import artefacts
from transfergen.runs.curves import Curves, draw, plot_precision_recall, precision_recall, read_curves, to_svg
from transfergen.runs.saved_config import parse_yaml
from transfergen.templates import html_templates

SHOWN = 9
"""Grids of a run's samples over time."""

_RECORD: dict[str, type] = {"name": str, "value": float, "extractor": str, "generated": int, "split": str}


@dataclass(frozen=True)
class Run:
    """The content of a run directory. A missing or damaged file leaves its field empty, and is named in `problems`.

    Attributes:
        folder: the run directory.
        config: the resolved config.
        commands: the overrides of the command that began the run and, if there is one, of the last that resumed it.
        records: metrics at the end of the training and of later evaluations, each number with how it was measured.
        images_seen: real images of the training; None while it goes on.
        seconds: its duration; None while it goes on.
        curves: scalars over images seen.
        pictures: grids of samples over time and the last one, by file name: PNG in base64.
        problems: a line for each file that is missing or damaged.
    """

    folder: Path
    config: dict[str, Any]
    commands: list[list[str]]
    records: list[dict[str, Any]]
    images_seen: int | None
    seconds: float | None
    curves: Curves
    pictures: dict[str, str]
    problems: list[str]


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
        folders = sorted(file.parent for file in root.glob(f"[!.]*/{artefacts.CONFIG}"))
        if not folders:
            itself = f"; it is a run itself: give run={root}" if artefacts.is_run(root) else ""
            raise ValueError(f"sweep={root}: no run in it{itself}")
    else:
        folders = [Path(str(name)).expanduser() for name in ([config.run] if key == "run" else config.runs)]
        root = folders[0] if key == "run" else Path()
    out = Path(config.out).expanduser() if config.out else root / artefacts.REPORT
    cli.check_out(out)
    runs = [read_run(folder, key) for folder in folders]
    page = run_page(runs[0]) if key == "run" else comparison_page(runs)
    artefacts.write(out, page.encode(errors="replace"))  # a folder's name need not be Unicode
    print(f"the report: {out}")


main = partial(cli.run, "report", report)


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
        best = {"generator": "best"} if result.get("checkpoint") == "best" else {}
        best |= {key: result[key] for key in ("chosen_by",) if key in result}
        records += [record | best for record in result.get("metrics", [])]
    seen, seconds = metrics.get("images_seen"), metrics.get("seconds")
    samples = folder / artefacts.SAMPLES
    names = [] if samples.is_symlink() else sorted(file.name for file in samples.glob("*.png"))
    grids = [f"{artefacts.SAMPLES}/{name}" for name in names]
    chosen = [grids[round(i * (len(grids) - 1) / (SHOWN - 1))] for i in range(SHOWN)] if len(grids) > SHOWN else grids
    pictures = {name: parsed(name, partial(artefacts.read, folder), b"") for name in (*chosen, artefacts.GRID)}
    pictures = {name: base64.b64encode(content).decode() for name, content in pictures.items() if content}
    curves = parsed(artefacts.CURVES, lambda _: read_curves(folder), {})
    return Run(folder, config, [c for c in commands if c], records, seen, seconds, curves, pictures, problems)


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


def run_page(run: Run) -> str:
    """The HTML page of one run: commands, samples over time, metrics, curves, settings."""
    about = [
        f"{run.images_seen:,} images" if run.images_seen else "",
        f"{run.seconds / 60:,.1f} minutes" if run.seconds else "",
    ]
    return _render(
        "run.html",
        title=run.folder.name,
        about=", ".join(part for part in about if part),
        problems=run.problems,
        commands="\n".join(shlex.join(["python", "train.py", *overrides]) for overrides in run.commands),
        samples=[(_when(Path(name).stem), picture) for name, picture in run.pictures.items()],
        records=run.records,
        curves=_charts({run.folder.name: run}),
        settings=OmegaConf.to_yaml(run.config),
    )


def comparison_page(runs: list[Run]) -> str:
    """The HTML page that compares runs: settings that differ, metrics, samples, curves."""
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    named = dict(zip(names, runs, strict=True))
    settings = _rows([{key: str(v) for key, v in flatten(run.config).items() if v is not None} for run in runs])
    metrics = [
        {f"{r['name']} ({r['extractor']}; {_measured_on(r)})": f"{r['value']:.4g}" for r in run.records} for run in runs
    ]
    return _render(
        "comparison.html",
        title=counted(len(runs), "run"),
        about="",
        problems=[f"{name}: {problem}" for name, run in named.items() for problem in run.problems],
        names=names,
        settings={key: settings[key] for key in sorted(settings) if len(set(settings[key])) > 1},
        metrics=_rows(metrics),
        samples=[(name, run.pictures[artefacts.GRID]) for name, run in named.items() if artefacts.GRID in run.pictures],
        curves=_charts(named),
    )


def _charts(runs: dict[str, Run]) -> list[str]:
    """Precision against recall, and each scalar over images seen, as SVG; without what was measured once only."""
    paths = {name: path for name, run in runs.items() if len(path := precision_recall(run.curves)) > 1}
    lines: dict[str, Curves] = {}
    for name, run in runs.items():
        for scalar, line in run.curves.items():
            if len(line) > 1:
                lines.setdefault(scalar, {})[name] = line
    charts = [to_svg(plot_precision_recall(paths))] if paths else []
    return charts + [draw(scalar, by_run) for scalar, by_run in lines.items()]


def _render(template: str, **values: Any) -> str:
    pages = html_templates("transfergen.commands", "templates")
    pages.filters |= {"measured_on": _measured_on, "reservations": _reservations}
    return pages.get_template(template).render(values)


def _rows(columns: list[dict[str, str]]) -> dict[str, list[str]]:
    """A dictionary for each run -> the value of each key in every run, "" where a run has none."""
    return {key: [column.get(key, "") for column in columns] for key in dict.fromkeys(k for c in columns for k in c)}


def _when(stem: str) -> str:
    return f"{int(stem):,} images" if stem.isdecimal() else {"reals": "real images", "grid": "the end"}.get(stem, stem)


def _measured_on(record: dict[str, Any]) -> str:
    which = f"{record['generator']} generator, " if "generator" in record else ""
    if record["split"] == "none":
        return f"{which}{record['generated']:,} samples"
    reals = "reals" if record["real"] is None else f"{record['real']:,} reals"
    return f"{which}{record['generated']:,} samples, {reals} ({record['split']})"


def _reservations(record: dict[str, Any]) -> str:
    """Why a metric may look better or worse than the samples are."""
    shared = record.get("shares_weights_with_discriminator")
    chosen_by = record.get("chosen_by")
    notes = [record.get("warning"), f"chosen by {chosen_by}" if chosen_by else None]
    notes += [f"the training shares the weights of {shared}" if shared else None]
    return "; ".join(note for note in notes if note)
