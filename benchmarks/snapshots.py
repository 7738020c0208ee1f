"""The snapshots of a run, measured by the judge against test images of the run's own data.

    python train.py data=huggingface data.path=cifar10/ snapshot_every_images=25_000 hydra.run.dir=RUN_DIR
    python benchmarks/snapshots.py run RUN_DIR
    python benchmarks/snapshots.py report

The data are CIFAR-10, on which the judge is trained, too. A result has the name of the run's folder.
"""

import argparse
from pathlib import Path

from harness import Result, Results, command, markdown, processor
from judgement import SAMPLES, Measure

import transfergen.commands.train  # noqa: F401  registers the resolvers of the configs
from transfergen.config import instantiate
from transfergen.images import to_float
from transfergen.runs.artefacts import SNAPSHOTS
from transfergen.runs.generator_files import load_generator, read_metadata
from transfergen.runs.saved_config import read_config


def run(args: argparse.Namespace, results: Results) -> None:
    """Measure each snapshot."""
    folders = sorted((args.run / SNAPSHOTS).glob("[0-9]*"))
    if not folders:
        raise SystemExit(f"{args.run}: it kept no snapshot; train with snapshot_every_images=N")
    config = read_config(args.run)
    data = instantiate(config.data)
    data.setup()
    measure = Measure(to_float(data.test_set.sample_images(SAMPLES).pixels, config.data.resolution), config.data.path)
    points = []
    for folder in folders:
        point = {"images": read_metadata(folder)["images_seen"]} | measure(load_generator(folder))
        print(", ".join(f"{name} {value}" for name, value in point.items()), flush=True)
        points.append(point)
    about = {"name": args.run.name, "machine": processor(), "resolution": config.data.resolution, "seed": config.seed}
    about |= {"training_images": len(data.train_set), "samples": SAMPLES, "judge_accuracy": round(measure.accuracy, 4)}
    results.add(about | {"points": {key: [point[key] for point in points] for key in points[0]}})


def report(everything: list[Result], _: Results) -> None:
    """A table for each run."""
    for result in everything:
        rows = [[f"{value:.4g}" for value in point] for point in zip(*result["points"].values(), strict=True)]
        print(f"\n{result['name']}, {result['machine']}:\n\n{markdown(rows, list(result['points']))}")


if __name__ == "__main__":
    command(
        __doc__,
        run=run,
        report=report,
        options=lambda parser: parser.add_argument("run", type=Path, help="the folder of a training run"),
    )
