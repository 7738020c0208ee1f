"""Curves of a run: read from its CSV files, and drawn, also precision against recall."""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from transfergen.runs import artefacts
from transfergen.runs.artefacts import CURVES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = dict[str, list[tuple[int, float]]]
"""Name of a scalar -> its points (real images seen, value), in order."""

PrecisionRecall = list[tuple[int, float, float]]
"""Points (real images seen, precision, recall), in order."""


def read_curves(run_dir: Path) -> Curves:
    """All scalars of a run. After a resumption, its points replace earlier ones at the same number of images.

    Raises:
        ValueError: a file is not to be read, see `artefacts.read`.
        csv.Error: it is damaged.
    """
    points: dict[str, dict[int, float]] = {}
    versions = [file.parent.name for file in run_dir.glob(CURVES) if file.parent.name[8:].isdecimal()]
    for version in sorted(versions, key=lambda name: int(name[8:])):
        table = artefacts.read(run_dir, CURVES.replace("version_*", version)).decode(errors="replace")
        for row in csv.DictReader(io.StringIO(table, newline="")):
            try:
                step = int(float(row.pop("step")))
            except (KeyError, TypeError, ValueError, OverflowError):
                continue  # a killed process may leave half a line
            for name, value in row.items() if 0 <= step < 2**62 else ():
                try:
                    points.setdefault(str(name), {})[step] = float(value)
                except (TypeError, ValueError):
                    continue  # not measured at this point
    return {name: sorted(values.items()) for name, values in points.items() if values}


def draw(title: str, lines: Curves) -> str:
    """Draw named lines over images seen as SVG. The axis is logarithmic where values are positive and far apart."""
    figure, axes = _empty(title, "real images seen")
    values = [value for line in lines.values() for _, value in line if math.isfinite(value)]
    for name, line in lines.items():
        axes.plot(*zip(*line, strict=True), label=name.replace("$", r"\$"), linewidth=1.3)
    if values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
    return to_svg(figure)


def precision_recall(curves: Curves) -> PrecisionRecall:
    """The points at which a run measured precision and recall, without those that are not finite."""
    recall = dict(curves.get("metrics/recall", []))
    points = [(images, value, recall.get(images, math.nan)) for images, value in curves.get("metrics/precision", [])]
    return [point for point in points if all(map(math.isfinite, point))]


def plot_precision_recall(paths: dict[str, PrecisionRecall]) -> "Figure":
    """Plot precision against recall over time, a path for each run, by name.

    A large point is where a path ends. The points of a single run have the number of images seen beside them, as far as
    these numbers do not cover each other; several runs have a legend.
    """
    single = len(paths) == 1
    figure, axes = _empty(f"precision against recall{', at real images seen' if single else ''}", "recall")
    axes.set_ylabel("precision", fontsize=8)
    for number, (name, path) in enumerate(paths.items()):
        _, precision, recall = zip(*path, strict=True)
        (line,) = axes.plot(recall, precision, marker=".", linewidth=1)
        (end,) = axes.plot(recall[-1:], precision[-1:], color=line.get_color(), linestyle="", markersize=7)
        end.set(marker="os^D"[number // 10 % 4], label=name.replace("$", r"\$"))  # there are only ten colours
    if single:
        _label_images_seen(axes, path)
    else:
        axes.legend(fontsize=7, frameon=False)
    return figure


def _label_images_seen(axes: "Axes", path: PrecisionRecall) -> None:
    """Write the images seen beside the points, the last one first, where no other number is."""
    labelled: list[tuple[float, float]] = []
    for images, precision, recall in reversed(path):
        x, y = axes.transAxes.inverted().transform(axes.transData.transform((recall, precision)))
        if all(abs(x - other_x) > 0.16 or abs(y - other_y) > 0.07 for other_x, other_y in labelled):
            labelled.append((x, y))
            axes.annotate(f"{images:,}", (recall, precision), (5, 4), textcoords="offset points", fontsize=7)


def _empty(title: str, xlabel: str) -> "tuple[Figure, Axes]":
    """A figure with axes that have a title and no values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)  # a name may hold dollar signs
    axes.set_xlabel(xlabel, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def to_svg(figure: "Figure") -> str:
    """A figure as an SVG element of an HTML page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def to_picture(figure: "Figure") -> Image.Image:
    """A figure as an RGB picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return Image.open(buffer).convert("RGB")
