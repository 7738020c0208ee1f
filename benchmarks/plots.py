"""Plots of the benchmarks of quality."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import Result
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from transfergen.runs import curves

COLOURS = [*colormaps["tab10"].colors, *colormaps["Dark2"].colors]
FEW_COLOURS = ["#000000", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#56B4E9"]
"""Colours that colour-blind readers tell apart, too. Okabe and Ito 2002, without the yellow, which is pale on white."""
SCALES = {"seconds": 60, "kernel_distance": 0.001}
"""Divisors of seconds and kernel distances, for plots over minutes and of distances times 1000."""


def plot_distances(results: Sequence[Result], coloured: Iterable[str], file: Path) -> None:
    """Kernel distance over seconds and over images seen, a row for each number of pictures and resolution.

    Args:
        results: each is a line.
        coloured: models that the legend names; the lines of others are thin and grey.
        file: of the plot.
    """
    measured = {r["model"].split()[0] for r in results}  # the rest are overrides
    colours = dict(zip((model for model in coloured if model in measured), COLOURS, strict=False))
    groups = sorted({(r["training_images"], r["resolution"]) for r in results}, reverse=True)
    figure = Figure(figsize=(11, 3.2 * len(groups)), layout="tight")
    axes = figure.subplots(len(groups), 2, squeeze=False)
    for row, group in zip(axes, groups, strict=True):
        for axis, x in zip(row, ("seconds", "images"), strict=True):
            for r in (r for r in results if (r["training_images"], r["resolution"]) == group):
                style: dict[str, Any] = {"color": "lightgrey", "linewidth": 0.7}
                if (variant := r["model"].split()[0]) in colours:
                    style = {"color": colours[variant], "label": r["model"], "zorder": 3}
                axis.plot(r["points"][x], r["points"]["kernel_distance"], **style)
            title = f"{group[0]:,} pictures, {group[1]} px"
            axis.set(xscale="log", yscale="log", xlabel=x, ylabel="kernel distance", title=title)
            axis.xaxis.set_minor_formatter(NullFormatter())
        handles, labels = row[1].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        row[1].legend(unique.values(), unique, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=80)


def plot_minutes(panels: Mapping[str, Mapping[str, Result]], file: Path) -> None:
    """Kernel distance over minutes of training.

    Args:
        panels: by the title of each, its lines; those of one name have one colour.
        file: of the plot.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.5 * rows + 1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for spare in axes[len(panels) :]:
        spare.set_axis_off()
    names = sorted({name for lines in panels.values() for name in lines})
    colours = dict(zip(names, FEW_COLOURS, strict=False))
    for axis, (title, results) in zip(axes[: len(panels)], panels.items(), strict=True):
        for name, result in results.items():
            minutes, distances = ([x / by for x in result["points"][key]] for key, by in SCALES.items())
            axis.plot(minutes, distances, color=colours[name], label=name)
        axis.set(yscale="log", xlabel="minutes", ylabel="kernel distance, x1000", title=title, xlim=0)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("")
    named = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend([named[name] for name in names], names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file, dpi=100)


def plot_precision_recall(results: Sequence[Result], file: Path) -> None:
    """Precision against recall, a path through the points of each result."""
    curves.to_picture(curves.plot_precision_recall(precision_recall_paths(results))).save(file)


def precision_recall_paths(results: Sequence[Result]) -> dict[str, curves.PrecisionRecall]:
    """The points (images seen, precision, recall) of each result, by its model if no other has it, else by its name."""
    models = [r["model"] for r in results]
    columns = [[r["points"][key] for key in ("images", "precision", "recall")] for r in results]
    names = [r["model"] if models.count(r["model"]) == 1 else r["name"] for r in results]
    return {name: list(zip(*c, strict=True)) for name, c in zip(names, columns, strict=True)}
