"""The command of a benchmark of quality: trainings measured by the judge, and their tables, ratios and plots."""

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import KEPT, Result, Results, command, fill, markdown, positive, processor
from judgement import Unit, judged_training
from plots import plot_distances, plot_precision_recall
from points import best, duration, first_as_good

from transfergen.networks.acceleration.prepared_kernel import has_kernels

Variants = dict[str, list[str]]
"""Overrides of train.py by name. `{vgg}` stands for the file of VGG19's weights."""
HELD_OUT = ["data.source.test_split=train", "data.source.holdout=0.1"]
"""A tenth of the training images instead of test images: those with the smallest digests, whatever the variant."""


def quality_command(
    description: str | None,
    variants: Variants,
    *,
    options: Callable[[argparse.ArgumentParser], object] = lambda _: None,
    prepare: Callable[[argparse.Namespace], dict[str, str]] = lambda _: {},
    common: Sequence[str] = (),
    rivals: Sequence[str] = (),
    precision_recall: bool = False,
    summary: Callable[[Sequence[Result]], str] = lambda _: "",
    plot: Callable[[Sequence[Result], Path], None] | None = None,
    page: Path | None = None,
    **defaults: Any,
) -> None:
    """`run` trains those variants that have no result yet; `report` prints tables, and keeps grids and a plot.

    Args:
        description: of the benchmark.
        variants: to choose from.
        options: adds the benchmark's own.
        prepare: trains what the variants start from, and returns what else stands for names in their overrides.
        common: overrides of all variants.
        rivals: variants that others are compared with, in a table and in a plot of distances.
        precision_recall: without rivals, plot precision against recall.
        summary: of all results, in Markdown.
        plot: the summary as a plot, in a file.
        page: of the documentation, whose section named as the benchmark has the summary of the kept results.
        defaults: of the options.
    """

    def all_options(parser: argparse.ArgumentParser) -> None:
        add_options(parser, variants)
        options(parser)
        parser.set_defaults(**defaults)

    def run(args: argparse.Namespace, results: Results) -> None:
        if unknown := set(args.models) - set(variants):
            raise SystemExit(f"{', '.join(unknown)}: choose from {', '.join(variants)}")
        names = {"vgg": args.vgg, **prepare(args)}
        results = results.trials if args.trial else results
        for seed in args.seeds:
            for model in args.models:
                judged_run(model, [*common, *variants[model]], seed, args, results, names)

    def report(everything: list[Result], results: Results) -> None:
        print(tables(everything, rivals, summary))
        if trials := results.trials.load():
            print(f"\nTrials, on held-out training images:\n\n{tables(trials, rivals, summary)}")
        if page and results.kept == KEPT:
            fill(page, results.benchmark, summary(everything))
        picture = results.kept / f"{results.benchmark}.png"
        if rivals:
            plot_distances(everything, variants, picture)
        elif precision_recall:
            plot_precision_recall(everything, picture)
        if plot:
            plot(everything, results.kept / f"{results.benchmark}-summary.png")
        keep_grids(results, everything, variants)

    command(description, run=run, report=report, options=all_options)


def add_options(parser: argparse.ArgumentParser, variants: Variants) -> None:
    """Options: which variants to train, when to measure them, on which data and on which device."""
    parser.add_argument("models", nargs="*", default=list(variants), help=f"of {', '.join(variants)}")
    shared = os.environ.get("TRANSFERGEN_SHARED", "../shared")
    moments = partial(parser.add_argument, dest="moments", nargs="+")
    moments("--minutes", type=lambda m: (60 * positive(float)(m), "seconds"), help="of training, without the measuring")
    moments(
        "--images-seen",
        type=lambda i: (positive(float)(i), "images"),
        help="real images that it sees, instead of minutes",
    )
    parser.add_argument(
        "--points", type=positive(int), default=20, help="measurements, where minutes or images are one number"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--resolution", type=positive(int), default=32, help="pixels; the judge sees 32")
    parser.add_argument("--training-images", type=positive(int), help="pictures to learn from; all if not given")
    parser.add_argument(
        "--trial", action="store_true", help="hold a tenth of the training images out, and measure on these"
    )
    parser.add_argument("--also", nargs="*", default=[], help="more overrides for all, such as augment=none")
    parser.add_argument("--trainer", default="cpu", help="cpu or gpu; the measuring is on the CPU")
    parser.add_argument("--precision", default="bf16-mixed" if has_kernels(torch.bfloat16) else "32-true")
    parser.add_argument("--data", default=f"{shared}/data/cifar10", help="CIFAR-10, in the Hugging Face hub's layout")
    parser.add_argument("--vgg", default=f"{shared}/weights/vgg19_conv1_1-conv3_4.safetensors", help="its weights")


def judged_run(
    model: str, overrides: Sequence[str], seed: int, args: argparse.Namespace, results: Results, names: dict[str, str]
) -> None:
    """One training, unless it has a result already.

    Args:
        model: its name in the results.
        overrides: of the model, with names in braces.
        seed: of the training.
        args: all other options.
        results: where it is stored.
        names: what stands for the names.
    """
    model, overrides = " ".join([model, *args.also]), [*overrides, *args.also]
    name = f"{model}, {args.training_images or 'all'} pictures, {args.resolution} px, seed {seed}"
    moments, unit = _moments(args)
    name += f", {moments[-1] / 60:g} min" if unit == "seconds" else ""
    name += ", trial" if args.trial else ""
    name += f", {args.precision}" if args.precision != "bf16-mixed" else ""
    file = results.file(name)
    if file.exists() and json.loads(file.read_text()).get("until", moments[-1]) >= moments[-1]:
        print(f"{name}: done already")
        return
    print(f"{name}: {' '.join(overrides)}", flush=True)
    given = [*common_overrides(args, seed), *(o.format(**names) for o in overrides)]
    result = {"name": name, "machine": processor(args.trainer), "threads": torch.get_num_threads(), "model": model}
    result |= {"overrides": " ".join(overrides), "resolution": args.resolution, "seed": seed}
    result |= {"until": moments[-1]} if unit == "images" else {}  # which the name does not tell
    results.add(result | judged_training(given, moments, unit, results.file(name, ".jpg")))


def common_overrides(args: argparse.Namespace, seed: int) -> list[str]:
    """Overrides of every measured training."""
    data = ["data=huggingface", f"data.path={args.data}", f"data.resolution={args.resolution}"]
    data += [f"data.max_images={args.training_images}"] if args.training_images else []
    data += HELD_OUT if args.trial else []
    training = [f"trainer={args.trainer}", f"trainer.precision={args.precision}", "trainer.max_epochs=-1"]
    return [*data, f"seed={seed}", *training, "logger=none"]


def _moments(args: argparse.Namespace) -> tuple[list[float], Unit]:
    values, units = zip(*args.moments, strict=True)
    if len(values) > 1:
        return sorted(values), units[0]
    return [values[0] * (i + 1) / args.points for i in range(args.points)], units[0]


def table(results: Sequence[Result]) -> str:
    """Each result at its best point, in Markdown."""
    measured = {
        "kernel_distance": "kernel distance, x1000",
        "frechet_distance": "Fréchet",
        "precision": "precision",
        "recall": "recall",
        "pixel_kernel_distance": "of pixels: kernel distance, x1000",
        "pixel_recall": "of pixels: recall",
        "high_frequency_ratio": "high frequencies, of reals'",
    }
    keys = [key for key in measured if any(key in r["points"] for r in results)]
    rows = []
    for r in results:
        p, sizes = best(r), r.get("parameters", {}).values()
        row = [r["model"], f"{r['training_images']:,}", str(r["resolution"]), str(r["seed"]), r["machine"]]
        row += [
            " + ".join(f"{size / 1e6:.2f}" for size in sizes),
            f"{p['images'] / p['seconds']:.0f}" if p["seconds"] else "",
        ]
        row += [f"{p['seconds']:.0f}", f"{p['images']:,}"]
        rows.append(row + [f"{p[key] * (1000 if 'kernel' in key else 1):.2f}" if key in p else "" for key in keys])
    titles = ["model", "pictures", "px", "seed", "machine", "parameters, millions", "images/s", "after, s", "images"]
    return markdown(rows, [*titles, *(measured[key] for key in keys)])


def tables(everything: Sequence[Result], rivals: Iterable[str], summary: Callable[[Sequence[Result]], str]) -> str:
    """The table of all results, those of ratios to each rival that ran, and the summary, in Markdown."""
    compared = [ratios(everything, rival) for rival in rivals if any(r["model"] == rival for r in everything)]
    return "\n\n".join(text for text in (table(everything), *compared, summary(everything)) if text)


def ratios(results: Sequence[Result], rival: str) -> str:
    """How soon each model is as good as the rival at its best, in Markdown.

    Ratios are of seconds and of images seen, until the kernel distance is as low, and until the recall is as high,
    too. They are means over the seeds that both ran on the same machine, pictures and resolution, each in its longest
    run. A model that does not come as close before its run ends counts as `never`, even if the run is the shorter one.
    """
    shortest_first = sorted(results, key=duration)
    results = list({(r["model"], *_conditions(r)): r for r in shortest_first}.values())
    rivals = {_conditions(r): best(r) for r in results if r["model"] == rival}
    goals = ("kernel_distance",), ("kernel_distance", "recall")
    by_model: dict[tuple[Any, ...], list[list[float]]] = {}
    for r in results:
        goal = rivals.get(_conditions(r))
        if goal is not None and r["model"] != rival:
            reached = [first_as_good(r, {key: goal[key] for key in keys}) for keys in goals]
            key = r["training_images"], r["resolution"], r["model"]
            by_model.setdefault(key, []).append([p[x] / goal[x] for p in reached for x in ("seconds", "images")])
    titles = ["pictures", "px", "model", "seeds", f"as close as {rival}: seconds", "images"]
    rows = []
    for key, seeds in sorted(by_model.items()):
        means = [statistics.fmean(column) for column in zip(*seeds, strict=True)]
        rows.append([*map(str, key), str(len(seeds)), *(f"{m:.2f}" if m < float("inf") else "never" for m in means)])
    return markdown(rows, [*titles, "and as varied: seconds", "images"])


def _conditions(result: Result) -> tuple[Any, ...]:
    return tuple(result[key] for key in ("training_images", "resolution", "seed", "machine"))


def keep_grids(results: Results, everything: Sequence[Result], models: Iterable[str]) -> None:
    """Copy the last samples of each model and number of pictures to the repository's folder.

    They are of the first seed and its longest run; if that is not in the results' folder, they stay as they are.
    """
    ordered = sorted(everything, key=lambda r: (-r["seed"], duration(r)))
    for r in {(r["model"], r["training_images"]): r for r in ordered}.values():
        grid = results.file(r["name"], ".jpg")
        if grid.exists() and r["model"] in models:
            pictures = "" if ", all pictures," in r["name"] else f"-{r['training_images']}"
            (results.kept / "grids").mkdir(exist_ok=True)
            (results.kept / "grids" / f"{results.benchmark}-{r['model']}{pictures}.jpg").write_bytes(grid.read_bytes())
