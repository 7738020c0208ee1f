"""What all benchmarks share: the commands `run` and `report`, measuring in turns, and results in JSON.

`run` stores each finished measurement as a file in outputs/benchmarks. `report` joins them with those of earlier
machines in benchmarks/results, prints them as a table, and keeps them there.
"""

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
Result = dict[str, Any]
"""One measurement. Its `name` says what was measured, and `machine` where."""
Options = Callable[[argparse.ArgumentParser], object]


class Results:
    """The results of one benchmark.

    Args:
        benchmark: its name.
        work: folder of finished measurements, a JSON file each.
        kept: folder of the JSON files that belong to the repository, one for each benchmark.
    """

    def __init__(self, benchmark: str, work: Path, kept: Path) -> None:
        self.work, self.kept, self.benchmark = work / benchmark, kept, benchmark

    def file(self, name: str, suffix: str = ".json") -> Path:
        """Where the measurement of that name is stored by `run`."""
        return self.work / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}{suffix}"

    def add(self, result: Result) -> None:
        """Store a finished measurement."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.file(result["name"]).write_text(json.dumps(result) + "\n")

    def load(self) -> list[Result]:
        """All results, kept and new. A new one replaces a kept one of the same name and machine.

        Raises:
            SystemExit: there is none.
        """
        kept = self.kept / f"{self.benchmark}.json"
        results = json.loads(kept.read_text()) if kept.exists() else []
        results += [json.loads(file.read_text()) for file in sorted(self.work.glob("*.json"))]
        if not results:
            raise SystemExit(f"no result yet: python benchmarks/{self.benchmark}.py run")
        return list({(result["name"], result["machine"]): result for result in results}.values())

    def keep(self, results: Iterable[Result]) -> None:
        """Write them to the repository's file, one a line."""
        self.kept.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(result, ensure_ascii=False) for result in results)
        (self.kept / f"{self.benchmark}.json").write_text(f"[\n{lines}\n]\n")


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
    runner = commands.add_parser("run", help="measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    reporter = commands.add_parser("report", help="print all results, and keep them")
    for subparser in (runner, reporter):
        subparser.add_argument("--work", type=Path, default=ROOT / "outputs/benchmarks", help="finished measurements")
        subparser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results", help="kept results")
    if options:
        options(runner)
    args = parser.parse_args()
    results = Results(Path(sys.argv[0]).stem, args.work, args.results)
    if args.command == "run":
        run(args, results)
        return
    everything = results.load()
    report(everything, results)
    results.keep(everything)


@dataclass
class Comparison:
    """Two ways to do the same work.

    Args:
        name: the work.
        baseline, subject: each does it once, and returns the seconds that it took; see `timed`.
        images: how many images the work is for; None if it is not for images.
    """

    name: str
    baseline: Callable[[], float]
    subject: Callable[[], float]
    images: int | None = None


def speed_command(
    description: str | None,
    comparisons: Callable[[argparse.Namespace], Iterable[Comparison]],
    *,
    options: Options | None = None,
    rounds: int = 10,
) -> None:
    """The command of a benchmark of speed: each comparison in turns, as milliseconds and their ratio."""

    def more_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each, in turns")
        parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
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
                "torch": torch.__version__,
                "rounds": args.rounds,
                "baseline_ms": round(1000 * baseline, 3),
                "ms": round(1000 * subject, 3),
                "ratio": round(baseline / subject, 3),
            }
            if comparison.images:
                result["images_per_second"] = round(comparison.images / subject, 1)
            results.add(result)
            print(speed_table([result], head=not number), flush=True)

    command(description, run=run, report=lambda everything, _: print(speed_table(everything)), options=more_options)


def speed_table(results: Sequence[Result], *, head: bool = True) -> str:
    """In Markdown, a row a comparison."""
    columns = ["name", "machine", "baseline_ms", "ms", "ratio", "images_per_second"]
    titles = ["", "machine", "baseline, ms", "here, ms", "ratio", "images/s"]
    return markdown([[str(result.get(column, "")) for column in columns] for result in results], titles if head else [])


def timed(work: Callable[[], object], *, times: int = 1) -> Callable[[], float]:
    """The work as a measurement: its seconds, the mean of so many times."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - start) / times

    return measure


def in_turns(measurements: Sequence[Callable[[], float]], *, rounds: int) -> list[float]:
    """The median of each over some rounds, after a round to warm up.

    They take turns, so that a machine whose speed drifts favours none.
    """
    table = [[measure() for measure in measurements] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*table, strict=True)]


def markdown(rows: Iterable[Sequence[str]], titles: Sequence[str] = ()) -> str:
    """A table, without a head if there are no titles."""
    lines = [titles, ["---"] * len(titles), *rows] if titles else rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def processor(trainer: str = "cpu") -> str:
    """The name of the GPU if the trainer is one for GPUs, and of the CPU otherwise."""
    if trainer == "gpu":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
