"""What the presets for one's own pictures make of few of them, beside what was published: CIFAR-10's, at 64x64.

    python benchmarks/presets.py few_shot small --minutes 8

It needs the extra `bench`: pip install --editable '.[bench]'.

Each trains twice on the first pictures of CIFAR-10, of each class as many: as it is, and with the settings of Projected
GAN's release (hinge, reals and fakes normalised each on their own, all of DiffAugment, rates of 2e-4). Samples of the
moving average are measured against 2,000 test images by benchmarks/judge.py, both taken from 64 to 32 px. A finished
training is one file in benchmarks/results/presets, and is not run again.
"""

import argparse
import json
from pathlib import Path

from judgement import SAMPLES, add_arguments, common, compose_config, judged_data, judged_training, processor, shown
from time_to_quality import first_pictures

PICTURES = {"few_shot": 100, "small": 1000}
RATES = ["optimizer.generator.lr=2e-4", "optimizer.discriminator.lr=2e-4"]
PUBLISHED = ["objective=hinge", "discriminator.joint_batchnorm=false", "augment.cutout=0.5", *RATES]
BATCHES = {"few_shot": [], "small": ["data.batch_size=64"]}


def run(preset: str, *, published: bool, args: argparse.Namespace) -> None:
    """One training, to a file of its points, unless it is there."""
    name = f"{preset}_published" if published else preset
    file: Path = args.results / f"{name}-{args.seed}.json"
    if file.exists():
        print(f"{name}: done already")
        return
    settings = [f"experiment={preset}", *(PUBLISHED + BATCHES[preset] if published else [])]
    every = [o for o in common(args, args.seed) if not o.startswith(("data.resolution=", "data.batch_size="))]
    overrides = [*every, "data.resolution=64", "max_images=null", *settings]
    config = compose_config(overrides)
    data = judged_data(config)
    data.train_set = first_pictures(data.train_set, PICTURES[preset])
    moments = [args.minutes * 60 * (i + 1) / args.points for i in range(args.points)]
    print(f"{name}: {' '.join(shown(overrides, args))}", flush=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    _, points, measure = judged_training(
        config, data, moments, "seconds", file.with_suffix(".png"), second_opinion=False
    )
    about = {
        "training_images": len(data.train_set),
        "seed": args.seed,
        "machine": processor(args.trainer),
        "overrides": shown(overrides, args),
        "judge_accuracy": round(measure.accuracy, 4),
        "samples": SAMPLES,
        "split": "test",
        "points": points,
    }
    file.write_text(json.dumps(about, indent=1) + "\n")


def table(folder: Path) -> None:
    """Of each finished training the point with the least kernel distance."""
    print("| | pictures | seconds | images | kernel distance, x1000 | Fréchet | precision | recall |")
    print("|---" * 8 + "|")
    for file in sorted(folder.glob("*.json")):
        result = json.loads(file.read_text())
        p = min(result["points"], key=lambda point: point["judge/kernel_distance"])
        names = ("frechet_distance", "precision", "recall")
        distance, numbers = 1000 * p["judge/kernel_distance"], [f"{p[f'judge/{name}']:.2f}" for name in names]
        cells = [file.stem, f"{result['training_images']:,}", f"{p['seconds']:.0f}", f"{p['images']:,}"]
        print(f"| {' | '.join([*cells, f'{distance:.2f}', *numbers])} |")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(PICTURES), help="default: all")
    parser.add_argument("--variants", nargs="+", default=["preset", "published"], choices=["preset", "published"])
    parser.add_argument("--minutes", type=float, default=8, help="of training each, without the measuring")
    parser.add_argument("--points", type=int, default=4, help="how often it is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "presets", help="folder")
    add_arguments(parser)
    args = parser.parse_args()
    if unknown := set(args.presets) - set(PICTURES):
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(PICTURES)}")
    for preset in args.presets:
        for variant in args.variants:
            run(preset, published=variant == "published", args=args)
    table(args.results)


if __name__ == "__main__":
    main()
