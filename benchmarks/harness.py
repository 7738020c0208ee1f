"""Shared by all benchmarks: the commands `run` and `report`, measuring in turns, and results in JSON.

`run` stores each finished measurement as a file in outputs/benchmarks. `report` joins them with those that the
repository keeps in benchmarks/results, prints them as a table, and keeps them there.
"""

import argparse
import hashlib
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from transfergen.runs.artefacts import write

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks/results"
LONGEST = 200  # file systems take 255 characters
Options = Callable[[argparse.ArgumentParser], object]
Number = TypeVar("Number", int, float)
Result = dict[str, Any]
"""One measurement. Its `name` says what was measured, and `machine` where."""


class Results:
    """The results of one benchmark: finished measurements in `work`, and a file that the repository keeps in `kept`."""

    def __init__(self, benchmark: str, work: Path, kept: Path) -> None:
        self.benchmark, self.work, self.kept = benchmark, work / benchmark, kept

    @property
    def trials(self) -> "Results":
        """Measurements on held-out training images, in a folder below `work`. The repository keeps none of them."""
        return Results("trials", self.work, self.work)

    def file(self, name: str, suffix: str = ".json") -> Path:
        """The file of a finished measurement. A name too long for a file ends with its digest."""
        short = re.sub(r"[^A-Za-z0-9.]+", "-", name)
        if len(short) > LONGEST:
            short = f"{short[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return self.work / f"{short}{suffix}"

    def add(self, result: Result) -> None:
        """Store a finished measurement."""
        write(self.file(result["name"]), (json.dumps(result) + "\n").encode())

    def load(self) -> list[Result]:
        """All results. A finished measurement replaces a kept one of the same name and machine."""
        kept = self.kept / f"{self.benchmark}.json"
        results = json.loads(kept.read_text()) if kept.exists() else []
        results += [json.loads(file.read_text()) for file in sorted(self.work.glob("*.json"))]
        return list({(result["name"], result["machine"]): result for result in results}.values())

    def keep(self, results: Iterable[Result]) -> None:
        """Write them to the repository's file, one a line."""
        lines = ",\n".join(json.dumps(result, ensure_ascii=False) for result in results)
        write(self.kept / f"{self.benchmark}.json", f"[\n{lines}\n]\n".encode())


def command(
    description: str | None,
    *,
    run: Callable[[argparse.Namespace, Results], None],
    report: Callable[[list[Result], Results], None],
    options: Options | None = None,
) -> None:
    """`python benchmarks/NAME.py run …` and `python benchmarks/NAME.py report`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner, reporter = commands.add_parser("run", help="measure"), commands.add_parser("report", help="print and keep")
    for subparser in (runner, reporter):
        subparser.add_argument("--work", type=Path, default=ROOT / "outputs/benchmarks", help="finished measurements")
        subparser.add_argument("--results", type=Path, default=KEPT, help="kept results")
    if options:
        options(runner)
    args = parser.parse_args()
    results = Results(Path(sys.argv[0]).stem, args.work, args.results)
    if args.command == "run":
        run(args, results)
    elif everything := results.load():
        results.keep(everything)
        report(everything, results)
    else:
        raise SystemExit(f"no result yet: python benchmarks/{results.benchmark}.py run")


def positive(kind: type[Number]) -> Callable[[str], Number]:
    """The `type` of an option for numbers above 0, `int` or `float`."""

    def parse(text: str) -> Number:
        try:
            if (number := kind(text)) > 0:
                return number
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")

    return parse


class Comparison(NamedTuple):
    """Two ways to do the same work, each a function that does it and returns the seconds that it took; see `timed`."""

    name: str
    baseline: Callable[[], float]
    subject: Callable[[], float]
    images: int | None = None
    """How many the work is for, if it is for images."""


def speed_command(
    description: str | None,
    comparisons: Callable[[argparse.Namespace], Iterable[Comparison]],
    *,
    options: Options | None = None,
    rounds: int = 10,
) -> None:
    """The command of a benchmark of speed: milliseconds of each comparison, and their ratio."""

    def all_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=positive(int), default=rounds, help=f"turns of each; default: {rounds}")
        parser.add_argument("--threads", type=positive(int), default=torch.get_num_threads(), help="of torch")
        if options:
            options(parser)

    def run(args: argparse.Namespace, results: Results) -> None:
        torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        for number, comparison in enumerate(comparisons(args)):
            baseline, subject = in_turns([comparison.baseline, comparison.subject], rounds=args.rounds)
            result = {
                "name": f"{comparison.name}, {args.threads} threads",
                "machine": processor(),
                "rounds": args.rounds,
            }
            result |= {"baseline_ms": round(1000 * baseline, 3), "ms": round(1000 * subject, 3)}
            result |= {"ratio": round(baseline / subject, 3), "torch": torch.__version__}
            if comparison.images:
                result["images_per_second"] = round(comparison.images / subject, 1)
            results.add(result)
            print(speed_table([result], head=not number), flush=True)

    command(description, run=run, report=lambda everything, _: print(speed_table(everything)), options=all_options)


def speed_table(results: Iterable[Result], *, head: bool = True) -> str:
    """A row for each comparison, in Markdown."""
    titles = {"name": "", "machine": "machine", "baseline_ms": "baseline, ms", "ms": "here, ms", "ratio": "ratio"}
    titles |= {"images_per_second": "images/s"}
    rows = [[str(result.get(key, "")) for key in titles] for result in results]
    return markdown(rows, list(titles.values()) if head else ())


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """The work as a measurement of its seconds."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def in_turns(measurements: Sequence[Callable[[], float]], *, rounds: int) -> list[float]:
    """The median of each over some rounds, after one to warm up.

    They take turns, so that a machine whose speed drifts favours none.
    """
    table = [[measure() for measure in measurements] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*table, strict=True)]


def markdown(rows: Iterable[Sequence[str]], titles: Sequence[str] = ()) -> str:
    """A Markdown table; without titles, its rows only."""
    lines = [titles, ["---"] * len(titles), *rows] if titles else rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def section(page: Path, name: str) -> tuple[str, str, str]:
    """The text of a page before, in and after the section between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: it has no such section.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text().partition(start)
    inside, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page}: no section from {start} to {end}")
    return before + start, inside.strip(), end + after


def fill(page: Path, name: str, text: str) -> None:
    """Replace the text of this section of a page."""
    before, _, after = section(page, name)
    write(page, "\n\n".join(part for part in (before, text, after) if part).encode())


def processor(trainer: str = "cpu") -> str:
    """The name of the GPU if `trainer` is gpu, and of the CPU otherwise.

    CPUs of the same name compute at different speeds with and without AMX or AVX-512.
    """
    if trainer == "gpu":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    found = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    if not found:
        return platform.machine()
    name: str = found[1].strip()
    if "Xeon" in name and "amx_bf16" not in text:
        return f"{name} without AMX"
    if "EPYC" in name and "avx512f" not in text:
        return f"{name} without AVX-512"
    return name
