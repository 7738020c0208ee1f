"""Does the pretrained network pay? Matched opponents in one table, and what recipe and trunk each bring."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Result, markdown
from judgement import Point
from plots import plot_minutes
from points import best, duration, first_as_good

NOT_RUN = "*These rows have not been run yet.*"
Seeds = dict[int, Result]
"""Results of one variant by seed."""


@dataclass(frozen=True)
class Proof:
    """A table whose rows are compared with one of them, the opponent.

    Attributes:
        rows: the variants of each row, by its title. They differ in what has to be tuned, and the closest is shown.
        plain: the row without recipe and trunk.
        opponent: the row with the recipe and without the trunk.
        full: the row with both.
    """

    rows: Mapping[str, Sequence[str]]
    plain: str
    opponent: str
    full: str

    def __call__(self, results: Sequence[Result]) -> str:
        """A table for each machine and resolution at which the opponent ran, in Markdown, or a line that it did not.

        There is a group of rows for each number of training images and of minutes that the opponent ran with. A longer
        run counts with its first minutes. All figures are means over the seeds that row and opponent have in common.
        """
        opponents, texts = self.rows[self.opponent], list[str]()
        for place in sorted({(r["machine"], r["resolution"]) for r in results if r["model"] in opponents}):
            here = [r for r in results if (r["machine"], r["resolution"]) == place]
            groups = self._groups(here)
            cells = [[f"{n:,}", str(m), *cells] for (n, m), chosen in groups.items() for cells in self._cells(chosen)]
            texts += [f"{place[0]}, {place[1]}x{place[1]} pixels:", markdown(cells, TITLES)]
            texts += [
                f"With {images:,} training images and {minutes} minutes, {' '.join(self._sentences(chosen))}"
                for (images, minutes), chosen in groups.items()
            ]
        return "\n\n".join(texts) or NOT_RUN

    def plot(self, results: Sequence[Result], file: Path) -> None:
        """Plot kernel distance over minutes: a panel for each number of training images and minutes, a line for a row.

        Each line is the first seed of the variant that the table shows. Of several machines and resolutions, those
        at which the opponent ran most often are shown.
        """
        opponents = self.rows[self.opponent]
        places = [(r["machine"], r["resolution"]) for r in results if r["model"] in opponents]
        if not places:
            return
        here = [r for r in results if (r["machine"], r["resolution"]) == statistics.mode(places)]
        panels = {
            f"{images:,} training images, {minutes} min": {
                row.replace("`", ""): seeds[min(seeds)] for row, seeds in chosen.items()
            }
            for (images, minutes), chosen in self._groups(here).items()
        }
        plot_minutes(panels, file)

    def _groups(self, results: Sequence[Result]) -> dict[tuple[int, int], dict[str, Seeds]]:
        """The chosen variants by number of training images, the most first, and by minutes."""
        opponents = [r for r in results if r["model"] in self.rows[self.opponent]]
        groups = sorted({(-r["training_images"], _minutes(r)) for r in opponents})
        longest_first = sorted(results, key=duration, reverse=True)  # of two runs, the shorter one that is enough stays
        begun = {
            (-size, minutes): [
                _first(r, minutes) for r in longest_first if r["training_images"] == -size and _minutes(r) >= minutes
            ]
            for size, minutes in groups
        }
        # A long run may have been measured too late for a short opponent.
        return {group: self._choose([r for r in some if r["points"]["seconds"]]) for group, some in begun.items()}

    def _choose(self, results: Sequence[Result]) -> dict[str, Seeds]:
        """The closest variant of each row that ran, with the seeds that the opponent has, too."""
        ran = {
            row: [{r["seed"]: r for r in results if r["model"] == name} for name in names]
            for row, names in self.rows.items()
        }
        theirs = _closest(ran[self.opponent])
        paired = {row: [{s: v[s] for s in v if s in theirs} for v in variants] for row, variants in ran.items()}
        chosen = {row: _closest(variants) for row, variants in paired.items() if any(variants)}
        return chosen | {self.opponent: theirs}

    def _cells(self, chosen: Mapping[str, Seeds]) -> Iterator[list[str]]:
        for row, seeds in chosen.items():
            pairs = [(result, chosen[self.opponent][seed]) for seed, result in seeds.items()]
            points = [best(result) for result, _ in pairs]
            near = [first_as_good(result, _goal(opponent, "kernel_distance")) for result, opponent in pairs]
            yield [
                *(row, f"`{pairs[0][0]['model']}`", str(len(pairs))),
                _mean(1000 * p["kernel_distance"] for p in points),
                *(_mean(p.get(key, math.nan) for p in points) for key in MEASURES),
                _mean((p["images"] for p in near), ",.0f"),
                _mean((p["seconds"] / 60 for p in near), ".1f"),
                *(_mean(_part_of_time(*pair, *keys) for pair in pairs) for keys in GOALS),
            ]

    def _sentences(self, chosen: Mapping[str, Seeds]) -> Iterator[str]:
        opponents = chosen[self.opponent].values()
        at_best = statistics.fmean(best(r)["seconds"] / 60 for r in opponents)
        in_all = statistics.fmean(duration(r) / 60 for r in opponents)
        yield f"the opponent is at its best after {at_best:.1f} of {in_all:.1f} minutes."
        parts = [chosen.get(row, {}) for row in (self.plain, self.opponent, self.full)]
        seeds = set.intersection(*map(set, parts))
        for name, distance in {"kernel": "kernel_distance", "Fréchet": "frechet_distance"}.items() if seeds else ():
            plain, matched, full = (
                statistics.fmean(best(part[seed], distance)[distance] for seed in seeds) for part in parts
            )
            recipe, trunk = plain / matched, matched / full
            text = (
                f"The recipe divides the {name} distance by {recipe:.2f}, and the trunk divides the rest by {trunk:.2f}"
            )
            if min(recipe, trunk) > 1:
                share = math.log(recipe) / math.log(recipe * trunk)
                text += f": {share:.0%} and {1 - share:.0%} of the gain, in logarithms"
            yield f"{text}."


MEASURES = ("frechet_distance", "recall", "high_frequency_ratio")
"""Measures that the oldest results do not all have."""
GOALS = ("kernel_distance",), ("frechet_distance",), ("kernel_distance", "frechet_distance", "recall")
TITLES = [
    *("training images", "minutes", "discriminator", "variant", "seeds", "kernel distance, x1000", "Fréchet", "recall"),
    *("high frequencies, of reals'", "as close as the opponent at its best: images", "after minutes"),
    *("part of its time: kernel distance", "Fréchet distance", "both and recall"),
]


def _minutes(result: Result) -> int:
    return round(duration(result) / 60)


def _first(result: Result, minutes: int) -> Result:
    """The result without the points that come later than these minutes."""
    count = sum(seconds < 60 * minutes + 30 for seconds in result["points"]["seconds"])
    return result | {"points": {key: values[:count] for key, values in result["points"].items()}}


def _closest(variants: Iterable[Seeds]) -> Seeds:
    """The variant of least mean kernel distance over the seeds that all have; if none is shared, over its own."""
    ran = [variant for variant in variants if variant]
    shared = set.intersection(*map(set, ran))
    return min(ran, key=lambda v: statistics.fmean(best(v[s])["kernel_distance"] for s in shared or v))


def _goal(opponent: Result, *keys: str) -> Point:
    """The opponent's values of these measures, at the point where the first of them is least."""
    return {key: best(opponent, keys[0])[key] for key in keys}


def _part_of_time(result: Result, opponent: Result, *keys: str) -> float:
    """The time until a result is as good as the opponent at its best, by the opponent's; infinity: never."""
    goal = _goal(opponent, *keys)
    return first_as_good(result, goal)["seconds"] / first_as_good(opponent, goal)["seconds"]


def _mean(values: Iterable[float], form: str = ".2f") -> str:
    """The mean as text; if some are infinite, how many are not; empty if some were not measured."""
    values = list(values)
    if any(map(math.isnan, values)):
        return ""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) == len(values):
        return format(statistics.fmean(values), form)
    return f"{len(finite)} of {len(values)} seeds" if finite else "never"
