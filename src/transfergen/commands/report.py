"""`transfergen report`: a run, or several side by side, as one HTML file."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.runs import artefacts
from transfergen.runs.curves import Curves, draw, read_curves

SHOWN = 9
"""Grids over the time of a run."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2937; background: #fff; max-width: 1100px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
.about, figcaption { color: #6b7280; font-size: .85rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } .row svg { width: 340px; height: auto; }
figure { margin: 0; } figure img { width: 250px; image-rendering: pixelated; border-radius: 4px; }
table { border-collapse: collapse; font-size: .88rem; } td, th { padding: .25rem .8rem .25rem 0; text-align: left;
  border-bottom: 1px solid #e5e7eb; vertical-align: top; } td.number { text-align: right; }
pre { background: #f3f4f6; padding: 1rem; overflow: auto; font-size: .8rem; border-radius: 4px; }
.warning { color: #b45309; }
"""


@dataclass(frozen=True)
class Run:
    """What a run directory holds; what is missing or damaged is empty, and named in `problems`."""

    folder: Path
    config: dict[str, Any]
    commands: list[list[str]]
    """The overrides that it began with and, if it was resumed, those that it last went on with."""
    metrics: dict[str, Any]
    evaluation: dict[str, Any]
    curves: Curves
    problems: list[str]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Metrics of the run's end, and those of later evaluations, of its best generator perhaps."""
        listed = list(self.metrics.get("metrics", []))
        for result in (self.evaluation, *self.evaluation.get("earlier", [])):
            best = {"generator": "best"} if result.get("checkpoint") == "best" else {}
            listed += [entry | best for entry in result.get("metrics", [])]
        return listed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("report", _task, arguments)


def _task(config: DictConfig) -> None:
    given = [key for key in ("run", "runs", "sweep") if config[key]]
    if len(given) != 1:
        raise ValueError("give one of run=RUN_DIR, runs=[RUN_DIR,RUN_DIR] and sweep=SWEEP_DIR")
    key = given[0]
    if key == "sweep":
        root = Path(config.sweep).expanduser()
        folders = sorted(file.parent for file in root.glob(f"*/{artefacts.CONFIG}"))
        if not folders:
            raise ValueError(f"sweep={root}: no run in it")
    else:
        folders = [Path(str(name)).expanduser() for name in ([config.run] if key == "run" else config.runs)]
        root = folders[0] if key == "run" else Path()
    runs = [read_run(folder, key) for folder in folders]
    out = Path(config.out).expanduser() if config.out else root / "report.html"
    page = run_page(runs[0]) if key == "run" else of_runs(runs)
    artefacts.write(out, page.encode())
    print(f"the report: {out}")


def read_run(folder: Path, override: str) -> Run:
    """All that there is.

    Raises:
        ValueError: the folder is no run's. Names the `override`.
    """
    if not (folder / artefacts.CONFIG).is_file():
        raise ValueError(f"{override}={folder}: no {artefacts.CONFIG} in it: give the folder of a run")
    problems: list[str] = []

    def parsed(name: str, parse: Any, otherwise: Any) -> Any:
        path = folder / name
        try:
            return parse(path.read_text()) if path.exists() else otherwise
        except Exception as error:  # whatever a parser raises
            problems.append(f"{name} is damaged ({type(error).__name__})")
            return otherwise

    def yaml(text: str) -> Any:
        return OmegaConf.to_container(OmegaConf.create(text))

    config = parsed(artefacts.CONFIG, yaml, {})
    files = [".hydra/overrides.yaml", ".hydra/resumed/overrides.yaml"]
    commands = [parsed(name, yaml, []) for name in files if (folder / name).exists()]
    metrics, evaluation = (parsed(name, json.loads, {}) for name in (artefacts.METRICS, "evaluation.json"))
    if not metrics:
        problems.append("it has no final metrics: still training, or ended early")
    return Run(folder, config, commands, metrics, evaluation, read_curves(folder), problems)


def run_page(run: Run) -> str:
    """The page of one run."""
    grids = sorted((run.folder / "samples").glob("*.png"))
    chosen = [grids[round(i * (len(grids) - 1) / (SHOWN - 1))] for i in range(SHOWN)] if len(grids) > SHOWN else grids
    last = run.folder / artefacts.GRID
    curves = [draw(name, {name: line}) for name, line in run.curves.items() if len(line) > 1]
    commands = "\n".join(" ".join(["python train.py", *overrides]) for overrides in run.commands)
    seen, seconds = run.metrics.get("images_seen"), run.metrics.get("seconds")
    about = [f"{seen:,} images" if seen else "", f"{seconds / 60:,.1f} minutes" if seconds else ""]
    return _page(
        run.folder.name,
        ", ".join(part for part in about if part),
        [
            *(f'<p class="warning">{escape(problem)}</p>' for problem in run.problems),
            f"<pre>{escape(commands)}</pre>" if commands else "",
            _section("Samples", _row([_figure(file, _when(file.stem)) for file in [*chosen, last]])),
            _section("Metrics", _metrics(run.entries)),
            _section("Curves", _row(curves)),
            _section("Settings", f"<pre>{escape(OmegaConf.to_yaml(run.config))}</pre>"),
        ],
    )


def of_runs(runs: list[Run]) -> str:
    """The page that compares several."""
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    flat = [_flat(run.config) for run in runs]
    keys = sorted({key for each in flat for key in each})
    settings = {key: [each.get(key, "") for each in flat] for key in keys}
    measured = [{f"{e['name']} ({e['extractor']}; {_measured_on(e)})": e["value"] for e in run.entries} for run in runs]
    metrics = {
        name: [f"{each[name]:.4g}" if name in each else "" for each in measured]
        for name in dict.fromkeys(name for each in measured for name in each)
    }
    problems = [
        f"{escape(name)}: {escape(problem)}" for name, run in zip(names, runs, strict=True) for problem in run.problems
    ]
    scalars = dict.fromkeys(name for run in runs for name, line in run.curves.items() if len(line) > 1)
    curves = [
        draw(
            scalar,
            {
                name: run.curves[scalar]
                for name, run in zip(names, runs, strict=True)
                if len(run.curves.get(scalar, [])) > 1
            },
        )
        for scalar in scalars
    ]
    grids = [_figure(run.folder / artefacts.GRID, name) for name, run in zip(names, runs, strict=True)]
    return _page(
        f"{len(runs)} runs",
        "",
        [
            *(f'<p class="warning">{line}</p>' for line in problems),
            _section("Settings that differ", _table(names, {k: v for k, v in settings.items() if len(set(v)) > 1})),
            _section("Metrics", _table(names, metrics)),
            _section("Samples", _row([grid for grid in grids if grid])),
            _section("Curves", _row(curves)),
        ],
    )


def _page(title: str, about: str, parts: list[str]) -> str:
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    body = f'<h1>{escape(title)}</h1><p class="about">{escape(about)}</p>{"".join(parts)}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content else ""


def _row(parts: list[str]) -> str:
    return f'<div class="row">{"".join(parts)}</div>' if parts else ""


def _figure(file: Path, caption: str) -> str:
    if not file.is_file():
        return ""
    data = base64.b64encode(file.read_bytes()).decode()
    picture = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _when(stem: str) -> str:
    return f"{int(stem):,} images" if stem.isdigit() else {"reals": "real images", "grid": "the end"}.get(stem, stem)


def _metrics(entries: list[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(e['name']))}</td><td class=number>{e['value']:.4g}</td>"
        f"<td>{escape(str(e['extractor']))}</td>"
        f"<td>{escape(_measured_on(e))}</td><td class=warning>{escape(_reserve(e))}</td></tr>"
        for e in entries
    )
    return f"<table><tr><th>metric<th>value<th>features<th>measured on<th></tr>{rows}</table>" if rows else ""


def _measured_on(entry: dict[str, Any]) -> str:
    which = f"{entry['generator']} generator, " if "generator" in entry else ""
    return f"{which}{entry['generated']:,} samples, {entry['real']:,} reals ({entry['split']})"


def _reserve(entry: dict[str, Any]) -> str:
    """What keeps one from taking a number at its word."""
    shared = entry.get("shares_weights_with_discriminator")
    notes = [entry.get("warning"), f"the training shares the weights of {shared}" if shared else None]
    return "; ".join(note for note in notes if note)


def _table(names: list[str], rows: dict[str, list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr><td>{escape(key)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for key, cells in rows.items()
    )
    return f"<table><tr><th></th>{head}</tr>{body}</table>" if rows else ""


def _flat(node: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(node, dict):
        return {prefix: str(node)}
    return {
        k: v for key, item in node.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }
