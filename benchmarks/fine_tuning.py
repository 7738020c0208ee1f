"""What a pretrained generator saves: five classes of CIFAR-10 at 32x32 from 500 images, from scratch and from a start.

    python benchmarks/fine_tuning.py run                # the source, then each way to train that is not done yet
    python benchmarks/fine_tuning.py --results benchmarks/results/100 run --target-images 100    # domain adaptation
    python benchmarks/fine_tuning.py report

It needs the extra `bench`: pip install --editable '.[bench]'.

The source is a DCGAN trained on the other five classes, a run directory. Each way sees the same 500 pictures of the
target's classes, and is measured as it goes: samples of the moving average against the test images of the target's
classes, in the features of benchmarks/judge.py. `report` writes benchmarks/results/fine_tuning.json, the
plot and the grids; its `images_ratio` is how many images the fine-tuned generator sees until it is as good as the one
from scratch at its best, over the images that one needs for it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from judgement import (
    add_arguments,
    common,
    compose_config,
    judged_data,
    judged_training,
    processor,
    shown,
    side_by_side,
)

ROOT = Path(__file__).parents[1]
SOURCE_CLASSES, TARGET_CLASSES = "[0,1,2,3,4]", "[5,6,7,8,9]"
START = ["init_from.generator={source}", "init_from.discriminator={source}"]
ADAPTED = [
    "backbone=efficientnet_lite0",
    "backbone.taps=[0,1,2]",
    "transfer=domain_adaptation",
    "transfer.source={source}",
    "init_from.discriminator={source}",
]
WAYS: dict[str, list[str]] = {
    "scratch": [],
    "fine_tuned": START,
    "fine_tuned_generator": START[:1],
    "fine_tuned_freeze_d": [*START, "transfer.freeze_d=2"],
    "adapted": [*ADAPTED, "transfer.consistency=1"],
    "adapted_mmd": [*ADAPTED, "transfer.consistency=0", "transfer.mmd=1"],
    "adapted_ewc": [*ADAPTED, "transfer.consistency=0", "transfer.ewc=1"],
}


def train_source(args: argparse.Namespace) -> Path:
    """The run directory of the source, trained now if it is not there."""
    run_dir: Path = args.work / f"source-{args.source_images}"
    if not (run_dir / "metrics.json").exists():
        overrides = [*common(args, 0), "model=dcgan", f"data.classes={SOURCE_CLASSES}"]
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"max_images={args.source_images}"]
        subprocess.run([*command, "augment=flip", f"hydra.run.dir={run_dir.resolve()}"], check=True)
    return run_dir


def run(way: str, source: Path, args: argparse.Namespace) -> None:
    """One training, to a file of its points."""
    name = f"{way}-{args.seed}"
    file = args.results / "fine_tuning" / f"{name}.json"
    if file.exists():
        print(f"{name}: done already")
        return
    own = [*args.also, *(o.format(source=source.resolve()) for o in WAYS[way])]
    target = [f"data.classes={TARGET_CLASSES}", f"data.max_images={args.target_images}"]
    overrides = [*common(args, args.seed), "model=dcgan", *target, *own]
    config = compose_config(overrides)
    data = judged_data(config)
    print(f"{name}: {' '.join(WAYS[way])}", flush=True)
    moments = [args.images * (i + 1) / args.points for i in range(args.points)]
    grid = file.with_suffix(".png")
    _, points, _ = judged_training(config, data, moments, "images", grid, second_opinion=False)
    result = {
        "way": way,
        "seed": args.seed,
        "training_images": len(data.train_set),
        "source_images": args.source_images,
        "threads": torch.get_num_threads(),
        "machine": processor(args.trainer),
        "overrides": [o.replace(str(source.resolve()), "SOURCE") for o in shown(overrides, args)],
        "real": len(data.test_set),
        "split": "test",
        "points": points,
    }
    file.write_text(json.dumps(result, indent=1) + "\n")


def report(folder: Path) -> None:
    """The table on the screen; the JSON, the plot and the grids in the folder of results."""
    results = [json.loads(file.read_text()) for file in sorted((folder / "fine_tuning").glob("*.json"))]
    scratch = {r["seed"]: _best(r) for r in results if r["way"] == "scratch"}
    if not scratch:
        raise SystemExit("no finished run from scratch yet: python benchmarks/fine_tuning.py run")
    print("| way | seed | best kernel x1000 | after images | recall | as good as scratch after | ratio |")
    print("|---|---|---|---|---|---|---|")
    ratios: dict[str, list[float | None]] = {}
    for r in results:
        goal, best = scratch[r["seed"]], _best(r)
        reached = [p for p in r["points"] if p["judge/kernel_distance"] <= goal["judge/kernel_distance"]]
        ratio = round(reached[0]["images"] / goal["images"], 3) if reached else None
        ratios.setdefault(r["way"], []).append(ratio)
        cells = [
            r["way"],
            str(r["seed"]),
            f"{1000 * best['judge/kernel_distance']:.2f}",
            f"{best['images']:,}",
            f"{best['judge/recall']:.2f}",
            f"{reached[0]['images']:,}" if reached else "never",
            str(ratio),
        ]
        print(f"| {' | '.join(cells)} |")
    content = {"images_ratio": ratios, "runs": results}
    (folder / "fine_tuning.json").write_text(json.dumps(content, indent=1) + "\n")
    _plot(results, folder / "fine_tuning.png")
    first = [r for r in results if r["seed"] == min(scratch)]
    grids = [folder / "fine_tuning" / f"{r['way']}-{r['seed']}.png" for r in first]
    side_by_side(grids, folder / "fine_tuning_grids.png")
    print(f"\nfine_tuning_grids.png, from left to right: {', '.join(r['way'] for r in first)}")


def _best(result: dict[str, Any]) -> dict[str, float]:
    best: dict[str, float] = min(result["points"], key=lambda p: p["judge/kernel_distance"])
    return best


def _plot(results: list[dict[str, Any]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    ways = list(WAYS)
    figure, axis = plt.subplots(figsize=(7, 4.5))
    for r in results:
        line = [p["judge/kernel_distance"] for p in r["points"]]
        label = r["way"] if r["seed"] == results[0]["seed"] else None
        axis.plot([p["images"] for p in r["points"]], line, f"C{ways.index(r['way'])}", label=label)
    title = f"{results[0]['training_images']} images of five classes"
    axis.set(xscale="log", yscale="log", xlabel="images seen", ylabel="kernel distance (judge)", title=title)
    axis.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=100)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder")
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train what is not there yet")
    runner.add_argument("ways", nargs="*", default=list(WAYS), help=f"of {', '.join(WAYS)}; default: all")
    runner.add_argument("--source-images", type=int, default=400_000, help="real images that the source sees")
    runner.add_argument("--target-images", type=int, default=500, help="pictures of the target")
    runner.add_argument("--images", type=int, default=200_000, help="real images that each way sees")
    runner.add_argument("--points", type=int, default=25, help="how often it is measured")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--also", nargs="*", default=[], help="overrides for every way, such as augment=diffaugment")
    runner.add_argument("--work", type=Path, default=Path("outputs/fine_tuning"), help="where the source's run lies")
    add_arguments(runner)
    commands.add_parser("report", help="the table, the plot, the grids and the JSON of all finished runs")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    source = train_source(args)
    for way in args.ways:
        run(way, source, args)


if __name__ == "__main__":
    main()
