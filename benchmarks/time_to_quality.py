"""How soon each discriminator brings the same generator to what quality: CIFAR-10, 32x32, equal wall time.

    python benchmarks/time_to_quality.py run dcgan projected_lite0 --minutes 30     # those that are not done yet
    python benchmarks/time_to_quality.py run dcgan projected_lite0 --images 1000    # with fewer training images
    python benchmarks/time_to_quality.py report

It needs the extra `bench`: pip install --editable '.[bench]'.

Each run trains through the project's own configs and module. The clock stands still while samples of the moving average
are measured against all test images, in the features of benchmarks/judge.py, which no discriminator has seen, and of
EfficientNet-Lite1, a relative of Lite0. A finished run is one file in benchmarks/results/runs, and is not run again;
`report` writes benchmarks/results/time_to_quality.json, the plot, the grids side by side and the table.

A machine with several cores can share the runs out: OMP_NUM_THREADS=1 taskset -c 0 python ...
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judgement import (
    SAMPLES,
    add_arguments,
    common,
    compose_config,
    judged_data,
    judged_training,
    processor,
    shown,
    side_by_side,
)

from transfergen.data.pictures import from_array
from transfergen.data.store import Store

LITE0 = ["backbone=efficientnet_lite0", "backbone.taps=[0,1,2]"]
JOINT = ["discriminator.joint_batchnorm=true", "data.batch_size=32"]
FAST = ["optimizer.generator.lr=5e-4", "optimizer.discriminator.lr=1e-3"]  # trials.md
WHOLE = ["model=projected", *LITE0, *FAST, *JOINT, "augment.cutout=0"]
PAIRED = ["objective=relativistic", "objective.penalty.r1=0", "objective.penalty.r2=0"]
SLOWLY = [*WHOLE, *PAIRED, "lr_decay.start_images=100000", "max_images=550000"]
VGG = ["backbone=vgg19_multiscale", "backbone.cut=relu3_4", "backbone.taps=[relu1_2,relu2_2]"]
VGG_FILE = "backbone.weights={vgg}"
AT_ONCE = ["optimizer.extrapolation=1", "optimizer.simultaneous=true"]
MUON = [
    *("optimizer=muon_projected", "optimizer.generator.lr=6e-3", "optimizer.generator.fallback_lr_scale=0.08"),
    *("lr_decay.start_images=20000", "lr_decay.end_images=600000", "lr_decay.final_factor=0.1"),
]
DCGAN_FAST = ["model=dcgan", "optimizer.generator.lr=5e-4", "optimizer.discriminator.lr=5e-4"]
LITE0_JOINS = ["model=vision_aided", "discriminator.backbones.vgg19=null"]
JOINED = [  # what trials.md led to: little on top of an ordinary discriminator, for little time
    *LITE0_JOINS,
    "discriminator.backbones.efficientnet_lite0.taps=[0,1,2,3]",
    "discriminator.channels=16",
    "discriminator.width=32",
    "discriminator.weight=0.5",
]
BESIDE_PIXELS = [  # a narrow ordinary discriminator, which sees what the trunk's first stride loses
    *LITE0_JOINS,
    "discriminator.backbones.efficientnet_lite0.taps=[0,1,2]",
    "discriminator.ordinary.width=32",
    "discriminator.ordinary.joint_batchnorm=true",
    "optimizer=adam_projected",
    *FAST,
    "data.batch_size=32",
    "augment.cutout=0",
]
MODELS: dict[str, list[str]] = {
    "dcgan": ["model=dcgan"],
    "dcgan_augmented": ["model=dcgan", "augment=diffaugment"],
    "dcgan_fast": DCGAN_FAST,
    "dcgan_muon": [
        "model=dcgan",
        *MUON,
        "optimizer.discriminator.lr=5e-4",
        "optimizer.discriminator.betas=[0.5,0.999]",
    ],
    "dcgan_falling": [*DCGAN_FAST, "lr_decay.start_images=150000", "max_images=450000"],
    "random_trunk": ["model=projected", *LITE0, "backbone.weights=random"],
    "vgg_disc": ["model=vgg_disc", "backbone.cut=relu3_4", VGG_FILE],
    "vision_aided": [
        "model=vision_aided",
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
    "joined_lite0": [*JOINED, "augment=none"],
    "joined_lite0_augmented": JOINED,
    "projected_lite0": ["model=projected", *LITE0],
    "projected_lite0_fast": ["model=projected", *LITE0, *FAST],
    "projected_lite0_joint": ["model=projected", *LITE0, *FAST, *JOINT],
    "projected_lite0_whole": WHOLE,
    "projected_lite0_falling": [*WHOLE, *PAIRED, "lr_decay.start_images=70000", "max_images=200000"],
    "projected_lite0_slowly": SLOWLY,
    "projected_lite0_predicted": [*SLOWLY, "optimizer.extrapolation=1"],
    "projected_lite0_at_once": [
        *WHOLE,
        *PAIRED,
        "lr_decay.start_images=50000",
        "max_images=700000",
        *AT_ONCE,
    ],
    "projected_lite0_muon": [*WHOLE, *PAIRED, *MUON, *AT_ONCE],
    "joined_lite0_falling": [*BESIDE_PIXELS, *PAIRED, "lr_decay.start_images=65000", "max_images=190000"],
    "projected_vgg19": ["model=projected", *VGG, VGG_FILE],
}
LEVELS = (0.01, 0.005, 0.003, 0.002)  # kernel distances on the way, of which `report` tells when they were passed
CONTROLS = ("dcgan", "dcgan_augmented", "dcgan_fast", "dcgan_falling", "dcgan_muon", "random_trunk")
"""Those in which nothing is pretrained."""


def run(model: str, *, seed: int, images: int | None, args: argparse.Namespace) -> None:
    """One training, to a file of its points."""
    name = f"{model}-{images or 'all'}-{seed}"
    file = args.results / "runs" / f"{name}.json"
    if file.exists():
        print(f"{name}: done already")
        return
    overrides = [*common(args, seed), "generator=dcgan", *(o.format(vgg=args.vgg) for o in MODELS[model])]
    config = compose_config(overrides)
    data = judged_data(config)
    if images:
        data.train_set = first_pictures(data.train_set, images)
    moments = [args.minutes * 60 * (i + 1) / args.points for i in range(args.points)]
    print(f"{name}: {' '.join(shown(overrides, args))}", flush=True)
    _, points, measure = judged_training(config, data, moments, "seconds", file.with_suffix(".png"))
    result = {
        "model": model,
        "training_images": len(data.train_set),
        "seed": seed,
        "minutes": args.minutes,
        "threads": torch.get_num_threads(),
        "machine": processor(args.trainer),
        "overrides": shown(overrides, args),
        "judge_accuracy": round(measure.accuracy, 4),
        "samples": SAMPLES,
        "real": min(SAMPLES, len(data.test_set)),
        "split": "test",
        "grid": file.with_suffix(".png").name,
        "points": points,
    }
    file.write_text(json.dumps(result, indent=1) + "\n")


def first_pictures(store: Store, count: int) -> Store:
    """The first `count` pictures, or a few more: of each class the same number."""
    classes = np.unique(store.labels)
    each = -(-count // len(classes))
    chosen = np.concatenate([np.flatnonzero(store.labels == c)[:each] for c in classes])
    return Store(store.pixels[chosen], from_array("part", store.pixels[chosen], store.labels[chosen], store.classes))


def report(folder: Path) -> None:
    """The table on the screen, and the JSON, the plot and the grids in the folder of results."""
    results = [json.loads(file.read_text()) for file in sorted((folder / "runs").glob("*.json"))]
    if not results:
        raise SystemExit("no finished run yet: python benchmarks/time_to_quality.py run dcgan projected_lite0")
    summary = [_comparison(images, results) for images in sorted({r["training_images"] for r in results})]
    largest = summary[-1]
    content = {"wall_ratio": largest["wall_ratio"], "by_training_images": summary, "runs": results}
    (folder / "time_to_quality.json").write_text(json.dumps(content, indent=1) + "\n")
    for part in summary:
        print(f"\n{part['training_images']:,} training images; best kernel distance on the judge's features\n")
        columns = ["model", "seed", "machine", "best, x1000", "after", "images", "Fréchet", "precision", "recall"]
        print(f"| {' | '.join([*columns, 'Lite1 kernel, x1000'])} |")
        print("|---" * (len(columns) + 1) + "|")
        for r in (r for r in results if r["training_images"] == part["training_images"]):
            p = _best(r)
            cells = [
                r["model"],
                f"{r['seed']}",
                r["machine"],
                f"{1000 * p['judge/kernel_distance']:.2f}",
                f"{p['seconds'] / 60:.1f} min",
                f"{p['images']:,}",
                *(f"{p[f'judge/{name}']:.2f}" for name in ("frechet_distance", "precision", "recall")),
                f"{1000 * p['efficientnet_lite1/kernel_distance']:.1f}",
            ]
            print(f"| {' | '.join(cells)} |")
        print(json.dumps(part))
    _plot(results, folder, {part["training_images"]: part["best_transfer_model"] for part in summary})
    _grids(results, folder)


def _best(result: dict[str, Any]) -> dict[str, float]:
    best: dict[str, float] = min(result["points"], key=lambda p: p["judge/kernel_distance"])
    return best


def _comparison(images: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The transfer models beside DCGAN, at one number of training images: as it is, and the best of its variants.

    The best of the transfer models is one of those that most seeds were run of.
    """
    here = [r for r in results if r["training_images"] == images]
    means = _against(["dcgan"], here)
    variants = sorted({r["model"] for r in here if r["model"].startswith("dcgan")})
    most = max((m["seeds"] for m in means.values()), default=0)
    measured = [model for model, m in means.items() if m["seeds"] == most]  # fewer seeds may be easier ones
    best = min(measured, key=lambda m: means[m]["wall_ratio"] or float("inf"), default=None)
    return {
        "training_images": images,
        "best_transfer_model": best,
        "wall_ratio": means[best]["wall_ratio"] if best else None,
        "models": means,
        "dcgan_variants": variants,
        "against_the_best_of_them": _against(variants, here),
        "seconds_to": {
            f"{level}": {f"{r['model']}, seed {r['seed']}": _seconds_to(r, level) for r in here} for level in LEVELS
        },
    }


def _seconds_to(result: dict[str, Any], level: float) -> float | None:
    """When a run was first at this kernel distance."""
    return next((p["seconds"] for p in result["points"] if p["judge/kernel_distance"] <= level), None)


def _against(rivals: list[str], results: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each transfer model the means over the seeds that (two, if there are) rivals ran.

    `wall_ratio` is of when a model is as close as the rival at its best; `wall_ratio_as_varied`, of when its recall is
    as high, too.
    """
    comparisons: dict[str, dict[int, dict[str, float]]] = {}
    for r in (r for r in results if r["model"] not in CONTROLS):
        theirs = [other for other in results if other["model"] in rivals and other["seed"] == r["seed"]]
        if len(theirs) < min(2, len(rivals)):
            continue
        goal, own = min(map(_best, theirs), key=lambda p: p["judge/kernel_distance"]), _best(r)
        reached = [p for p in r["points"] if p["judge/kernel_distance"] <= goal["judge/kernel_distance"]]
        as_varied = [p for p in reached if p["judge/recall"] >= goal["judge/recall"]]
        comparisons.setdefault(r["model"], {})[r["seed"]] = {
            "wall_ratio": _first_seconds(reached) / goal["seconds"],
            "wall_ratio_as_varied": _first_seconds(as_varied) / goal["seconds"],
            "kernel_ratio": own["judge/kernel_distance"] / goal["judge/kernel_distance"],
            "recall": reached[0]["judge/recall"] if reached else own["judge/recall"],
            "dcgan_recall": goal["judge/recall"],
        }
    means: dict[str, dict[str, Any]] = {}
    for model, by_seed in comparisons.items():
        listed = list(by_seed.values())
        averages = {key: float(np.mean([c[key] for c in listed])) for key in listed[0]}
        each = {f"{seed}": _rounded(comparison) for seed, comparison in by_seed.items()}
        means[model] = {**_rounded(averages), "seeds": len(listed), "by_seed": each}
    return means


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else round(value, 4) for key, value in values.items()}


def _first_seconds(points: list[dict[str, float]]) -> float:
    return points[0]["seconds"] if points else float("nan")


def _plot(results: list[dict[str, Any]], folder: Path, best: dict[int, str | None]) -> None:
    """The best model at each number of training images, and DCGAN, in front of the others."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = sorted({r["training_images"] for r in results}, reverse=True)
    models, colours = list(dict.fromkeys(r["model"] for r in results)), plt.get_cmap("tab20")
    figure, axes = plt.subplots(len(sizes), 2, figsize=(13, 4 * len(sizes)), squeeze=False)
    for row, size in zip(axes, sizes, strict=True):
        for axis, x in zip(row, ("seconds", "images"), strict=True):
            named = set()
            for r in (r for r in results if r["training_images"] == size):
                line = [p["judge/kernel_distance"] for p in r["points"]]
                label = None if r["model"] in named else r["model"]
                named.add(r["model"])
                in_front = r["model"] in ("dcgan", best[size])
                style = {"linewidth": 2.5, "zorder": 3} if in_front else {"linewidth": 1, "alpha": 0.5}
                colour = colours(models.index(r["model"]))
                axis.plot([p[x] for p in r["points"]], line, color=colour, label=label, **style)
            axis.set(xscale="log", yscale="log", xlabel=x, ylabel="kernel distance (judge)", title=f"{size:,} images")
            axis.xaxis.set_minor_formatter("")
        row[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    figure.savefig(folder / "time_to_quality.png", dpi=100)


def _grids(results: list[dict[str, Any]], folder: Path) -> None:
    """Of each model the last grid of its first seed, for the largest training set, in the table's order."""
    largest = max(r["training_images"] for r in results)
    latest = {
        r["model"]: r
        for r in sorted(results, key=lambda r: (r["model"], -r["seed"]))
        if r["training_images"] == largest
    }
    side_by_side([folder / "runs" / r["grid"] for r in latest.values()], folder / "grids.png", columns=6)
    print(f"\ngrids.png, from left to right: {', '.join(latest)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder")
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train those models that have no result yet")
    runner.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}; default: all")
    runner.add_argument("--minutes", type=float, default=30, help="of training, without the measuring")
    runner.add_argument("--points", type=int, default=20, help="how often it is measured")
    runner.add_argument("--images", type=int, help="training images; default: all that there are")
    runner.add_argument("--seeds", type=int, nargs="*", default=[0])
    add_arguments(runner)
    commands.add_parser("report", help="the table, the plot and the JSON of all finished runs")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    for seed in args.seeds:
        for model in args.models:
            run(model, seed=seed, images=args.images, args=args)


if __name__ == "__main__":
    main()
