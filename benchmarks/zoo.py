"""Every model on CIFAR-10 at 32x32, with the same budget of images and one protocol of metrics.

    python benchmarks/zoo.py run dcgan sagan --images 100000      # those that are not done yet
    python benchmarks/zoo.py run --trainer gpu --images 10000000 --full    # at the papers' widths, on a GPU
    python benchmarks/zoo.py report

It needs the extra `bench`: pip install --editable '.[bench]'.

Samples of each generator's moving average are measured against all test images in the features of benchmarks/judge.py,
which no model has seen. Without `--full` the residual networks are narrower than in their papers, so that one core
needs minutes; the overrides are in the table. A finished model is a file in benchmarks/results/zoo, not run again;
`report` writes the table, benchmarks/results/zoo.json and the grids side by side.
"""

import argparse
import json
from pathlib import Path

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
from torch import nn

LITE0 = ["backbone=efficientnet_lite0", "backbone.taps=[0,1,2]"]
MODELS: dict[str, list[str]] = {
    "dcgan": [],
    "wgan": [],
    "wgan_gp": [],
    "sagan": [],
    "biggan": [],
    "vgg_disc": ["backbone.cut=relu3_4", "backbone.weights={vgg}"],
    "projected": ["generator=dcgan", *LITE0],
    "vision_aided": [
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
    "vae": [],
    "vae_gan": ["backbone.cut=relu3_4", "backbone.taps=[relu1_2,relu2_2]", "backbone.weights={vgg}"],
}
NARROW: dict[str, list[str]] = {
    "wgan_gp": ["generator.width=32", "discriminator.width=32"],
    "sagan": ["generator.width=32", "discriminator.width=32"],
    "biggan": ["generator.width=32", "discriminator.width=32"],
}


def run(model: str, args: argparse.Namespace) -> None:
    """One training, to a file of its numbers."""
    file = args.results / "zoo" / f"{model}.json"
    if file.exists():
        print(f"{model}: done already")
        return
    own = [f"model={model}", *MODELS[model], *([] if args.full else NARROW.get(model, []))]
    overrides = [*common(args, args.seed), *(o.format(vgg=args.vgg) for o in own)]
    config = compose_config(overrides)
    data = judged_data(config)
    print(f"{model}: {' '.join(shown(overrides, args))}", flush=True)
    moments = [args.images * (i + 1) / args.points for i in range(args.points)]
    module, points, _ = judged_training(config, data, moments, "images", file.with_suffix(".png"))
    result = {
        "model": model,
        "seed": args.seed,
        "images": args.images,
        "threads": torch.get_num_threads(),
        "machine": processor(args.trainer),
        "overrides": shown(own, args),
        "generator_parameters": _parameters(module.generator),
        "discriminator_parameters": _parameters(getattr(module, "discriminator", None)),
        "images_per_second": round(points[-1]["images"] / points[-1]["seconds"], 1),
        "samples": SAMPLES,
        "split": "test",
        "points": points,
    }
    file.write_text(json.dumps(result, indent=1) + "\n")


def _parameters(network: nn.Module | None) -> int:
    return 0 if network is None else sum(p.numel() for p in network.parameters())


def report(folder: Path) -> None:
    """The table on the screen, the JSON and the grids in the folder of results."""
    files = [folder / "zoo" / f"{model}.json" for model in MODELS]
    results = [json.loads(file.read_text()) for file in files if file.exists()]
    if not results:
        raise SystemExit("no finished model yet: python benchmarks/zoo.py run")
    (folder / "zoo.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| model | G, M parameters | D, M parameters | images/s | kernel x1000 | Fréchet | precision | recall |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        last = r["points"][-1]
        cells = [
            f"`{' '.join(r['overrides'])}`",
            f"{r['generator_parameters'] / 1e6:.2f}",
            f"{r['discriminator_parameters'] / 1e6:.2f}",
            f"{r['images_per_second']:.0f}",
            f"{1000 * last['judge/kernel_distance']:.2f}",
            *(f"{last[f'judge/{name}']:.2f}" for name in ("frechet_distance", "precision", "recall")),
        ]
        print(f"| {' | '.join(cells)} |")
    side_by_side([folder / "zoo" / f"{r['model']}.png" for r in results], folder / "zoo.png")
    print(f"\nzoo.png, five a row: {', '.join(r['model'] for r in results)}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder")
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="train those models that have no result yet")
    runner.add_argument("models", nargs="*", default=list(MODELS), help=f"of {', '.join(MODELS)}; default: all")
    runner.add_argument("--images", type=int, default=100_000, help="real images that each model sees")
    runner.add_argument("--points", type=int, default=2, help="how often it is measured")
    runner.add_argument("--seed", type=int, default=0)
    runner.add_argument("--full", action="store_true", help="the papers' widths")
    add_arguments(runner)
    commands.add_parser("report", help="the table, the grids and the JSON of all finished models")
    args = parser.parse_args()
    if args.command == "report":
        report(args.results)
        return
    for model in args.models:
        run(model, args)


if __name__ == "__main__":
    main()
