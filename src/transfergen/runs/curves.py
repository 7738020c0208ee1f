"""Curves of a run: read from its CSV files, and drawn as SVG."""

import csv
import io
import math
from pathlib import Path

from transfergen.runs import artefacts
from transfergen.runs.artefacts import CURVES

Curves = dict[str, list[tuple[int, float]]]
"""Name of a scalar -> its points (real images seen, value), in order."""

COLOURS = ["#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#65a30d"]


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = figure.subplots()
    values = [value for line in lines.values() for _, value in line if math.isfinite(value)]
    for colour, (name, line) in zip(COLOURS * len(lines), lines.items(), strict=False):
        axes.plot(*zip(*line, strict=True), label=name.replace("$", r"\$"), color=colour, linewidth=1.3)
    if values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=10, parse_math=False)  # a name may hold dollar signs
    axes.set_xlabel("real images seen", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axes.legend(fontsize=7, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
