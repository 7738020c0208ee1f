"""Sweeps: a failed trial does not end the others, a finished one is not run again, and a report compares all."""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from transfergen.commands import cli
from transfergen.errors import printable
from transfergen.runs import artefacts

log = logging.getLogger(__name__)

PENALTY = 1e9
"""Metric of a failed trial: worse than any other, but finite, since Optuna stops at NaN."""
TICKS = 4
"""Values of a setting that have a tick of their own in the plot; of more, round numbers have."""


def trials_left(storage: str, study: str, total: int) -> int:
    """The number of trials to run so that a study in a database has `total` finished ones.

    Args:
        storage: URL of the database; an SQLite file need not exist yet.
        study: name of the study.
        total: finished trials to reach, including those of a sweep that was killed.
    """
    file = Path(storage.removeprefix("sqlite:///"))
    if storage.startswith("sqlite:///") and not file.exists():
        return total
    import optuna

    if study not in {each.study_name for each in optuna.get_all_study_summaries(storage)}:
        return total
    trials = optuna.load_study(study_name=study, storage=storage).trials
    return max(0, total - sum(trial.state.is_finished() for trial in trials))


OmegaConf.register_new_resolver("trials_left", trials_left)


def run_trial(
    run_dir: Path,
    compose: Callable[[], str],
    overrides: list[str],
    train: Callable[[Path | None, str], float],
) -> float:
    """Run one trial of a sweep, and keep its outcome in its folder. An error is logged, and does not end the sweep.

    Args:
        run_dir: of this trial, which may be finished or begun.
        compose: gives its config, as YAML, for which it may have to read files.
        overrides: its settings.
        train: a checkpoint, or None to start anew, and the config -> the metric; smaller is better.

    Returns:
        The metric; `PENALTY` if the trial failed.

    Raises:
        ValueError: the folder holds a trial with other settings.
    """
    from transfergen.runs.checkpoint import last_good

    done, begun = run_dir / artefacts.TRIAL, run_dir / artefacts.COMPOSED
    finished = _read_outcome(done) or {"error": "not finished"}
    start, error, value = time.time(), None, PENALTY
    composed, unread = "", None
    try:
        composed = compose()
    except Exception as problem:  # of this trial, if it is not finished
        unread = problem
    if not unread and begun.exists() and begun.read_text() != composed:
        raise ValueError(f"hydra.sweep.dir={run_dir.parent}: holds a sweep with other settings; choose another folder")
    if finished["error"] is None:
        log.info(f"trial {run_dir.name} is finished already")
        return float(finished["value"])
    try:
        if unread:
            raise unread
        value = train(last_good(run_dir / artefacts.CHECKPOINTS), composed)
        if not math.isfinite(value):
            error, value = f"its metric is {value}", PENALTY
    except Exception as problem:  # the other settings may still train well
        line = cli.memory_line(problem) or str(problem)
        error = printable(" ".join(line.split())) or type(problem).__name__
        log.error(f"trial {run_dir.name} failed: {error}", exc_info=os.environ.get("HYDRA_FULL_ERROR") == "1")
    outcome = {"value": value, "error": error, "overrides": overrides, "started": start, "seconds": time.time() - start}
    artefacts.write_json(done, outcome)
    return value


class SweepReport(Callback):
    """Hydra's callback that prints a table and writes a plot of a sweep's trials at its end.

    Raises:
        SystemExit: all trials have failed.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the sweep's folder, in which a study may keep its database."""
        with suppress(OSError):  # Hydra, which makes it next, says why it cannot be made
            Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report all trials in the sweep's folder, including those of a sweep that was killed and restarted."""
        folder = Path(config.hydra.sweep.dir)
        trials = collect(folder)
        if not trials:
            return
        artefacts.write_json(folder / artefacts.SWEEP, {"trials": trials})
        Console().print(_table(trials))
        good = [each for each in trials if each["error"] is None]
        if not good:
            line = f"transfergen: no trial succeeded, and the first failed with: {trials[0]['error']}"
            print(line, file=sys.stderr)
            sys.exit(cli.USER_ERROR)
        plot(trials, folder / artefacts.SWEEP_PLOT)
        print(
            f"best: {folder / good[0]['name']}; all trials: {folder / artefacts.SWEEP}, {folder / artefacts.SWEEP_PLOT}"
        )


def collect(folder: Path) -> list[dict[str, Any]]:
    """The outcomes of a sweep's trials: the best first, the failed ones last."""
    outcomes = {file.parent.name: _read_outcome(file) for file in folder.glob(f"*/{artefacts.TRIAL}")}
    trials = [{"name": name} | outcome for name, outcome in outcomes.items() if outcome]
    return sorted(trials, key=lambda each: (each["error"] is not None, each["value"], each["started"]))


def _read_outcome(file: Path) -> dict[str, Any] | None:
    """What `run_trial` has written; None if there is no such file, or it is damaged."""
    try:
        outcome: dict[str, Any] = json.loads(artefacts.read(file.parent, file.name))
        if outcome.keys() >= {"value", "error", "overrides", "started", "seconds"}:
            return outcome
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        pass
    log.warning(f"{file} is damaged: this trial does not count as finished")
    return None


def varied(trials: list[dict[str, Any]]) -> dict[str, list[str | None]]:
    """The settings that differ between trials: key -> its value in each trial, None where a trial does not set it."""
    pairs = [[o.partition("=") for o in each["overrides"] if not o.startswith("trials=")] for each in trials]
    given = [{key: value for key, _, value in each} for each in pairs]  # ~KEY, which takes a setting away, has none
    keys = sorted({key for each in given for key in each})
    values = {key: [each.get(key) for each in given] for key in keys}
    return {key: column for key, column in values.items() if len(set(column)) > 1}


def plot(trials: list[dict[str, Any]], path: Path) -> None:
    """Plot the metric over the trials in order, with the best so far, and over each setting that differs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullFormatter

    from transfergen.runs.curves import to_picture

    good = sorted((each for each in trials if each["error"] is None), key=lambda each: each["started"])
    values = [each["value"] for each in good]
    columns = varied(good)
    figure = Figure(figsize=(4 * (1 + len(columns)), 3.5), layout="constrained")
    axes = figure.subplots(1, 1 + len(columns), squeeze=False)[0]
    names = [each["name"] for each in good]
    places = [int(name) for name in names] if all(name.isdecimal() for name in names) else [*range(len(names))]
    axes[0].plot(places, values, "o", label="trial")
    axes[0].plot(places, [min(values[: i + 1]) for i in range(len(values))], label="best so far")
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="trial", ylabel="metric, smaller is better")
    axes[0].legend()
    for axis, (key, column) in zip(axes[1:], columns.items(), strict=True):
        numbers = _numbers(column)
        axis.plot([str(value) for value in column] if numbers is None else numbers, values, "o")
        if numbers is not None and min(numbers) > 0 and max(numbers) >= 5 * min(numbers):
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        if numbers is not None and len(set(numbers)) <= TICKS:
            axis.set_xticks(numbers, column)
        elif numbers is not None and axis.get_xscale() == "linear":
            axis.xaxis.set_major_locator(MaxNLocator(TICKS))
        axis.set(xlabel=key)
    artefacts.write_picture(path, to_picture(figure))


def _numbers(column: list[str | None]) -> list[float] | None:
    try:
        return [float(value) for value in column]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _short(value: str | None) -> str:
    numbers = _numbers([value])
    return value or "" if numbers is None or numbers[0].is_integer() else f"{numbers[0]:.4g}"


def _table(trials: list[dict[str, Any]]) -> Table:
    columns = varied(trials)
    headers = "trial", *map(escape, columns), "metric", "minutes"
    table = Table(*(Column(header, overflow="fold") for header in headers))
    for i, each in enumerate(trials):
        outcome = f"{each['value']:.4g}" if each["error"] is None else escape(f"failed: {each['error']}")
        cells = [escape(_short(column[i])) for column in columns.values()]
        table.add_row(each["name"], *cells, outcome, f"{each['seconds'] / 60:.1f}")
    return table
