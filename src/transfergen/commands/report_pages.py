"""The HTML pages of `transfergen report`, of one run and of several."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from transfergen.config import flatten
from transfergen.errors import counted
from transfergen.runs import artefacts
from transfergen.runs.curves import Curves, draw, plot_precision_recall, precision_recall, to_svg
from transfergen.templates import html_templates


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
        pictures: grids of samples over time, the last one, and neighbours, by file name: PNG in base64.
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


def run_page(run: Run) -> str:
    """The HTML page of one run: commands, samples over time, metrics, curves, settings."""
    about = [
        f"{run.images_seen:,} images (repeats counted)" if run.images_seen else "",
        f"{run.seconds / 60:,.1f} minutes" if run.seconds else "",
    ]
    return _render(
        "run.html",
        title=run.folder.name,
        about=", ".join(part for part in about if part),
        problems=run.problems,
        commands="\n".join(shlex.join(["python", "train.py", *overrides]) for overrides in run.commands),
        samples=[(_when(Path(name).stem), png) for name, png in run.pictures.items() if name != artefacts.NEIGHBOURS],
        neighbours=run.pictures.get(artefacts.NEIGHBOURS),
        records=run.records,
        curves=_charts({run.folder.name: run}),
        settings=OmegaConf.to_yaml(run.config),
    )


def comparison_page(runs: list[Run], failed: Sequence[str] = ()) -> str:
    """The HTML page that compares runs: settings that differ, metrics, samples, curves.

    Args:
        runs: in the order of the columns.
        failed: a line for each trial that left no run, or none that was finished.
    """
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    named = dict(zip(names, runs, strict=True))
    settings = _rows([{key: str(v) for key, v in flatten(run.config).items() if v is not None} for run in runs])
    metrics = [{_described(record): f"{record['value']:.4g}" for record in run.records} for run in runs]
    return _render(
        "comparison.html",
        title=counted(len(runs), "run"),
        about="",
        problems=[*failed, *(f"{name}: {problem}" for name, run in named.items() for problem in run.problems)],
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
    pages.filters |= {"measured_on": _measured_on, "reservations": _reservations, "better": _better}
    return pages.get_template(template).render(values)


def _rows(columns: list[dict[str, str]]) -> dict[str, list[str]]:
    """A dictionary for each run -> the value of each key in every run, "" where a run has none."""
    return {key: [column.get(key, "") for column in columns] for key in dict.fromkeys(k for c in columns for k in c)}


def _when(stem: str) -> str:
    return f"{int(stem):,} images" if stem.isdecimal() else {"reals": "real images", "grid": "the end"}.get(stem, stem)


def _described(record: dict[str, Any]) -> str:
    better = _better(record)
    return f"{record['name']} ({record['extractor']}; {_measured_on(record)})" + (
        f", {better} is better" * bool(better)
    )


def _better(record: dict[str, Any]) -> str:
    """Which values of a metric are better: larger or smaller ones, or neither."""
    larger = record.get("larger_is_better")
    return {"True": "larger", "False": "smaller"}.get(str(larger), "")


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
