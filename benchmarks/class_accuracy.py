"""How many of the images that a generator makes of a class are of that class, as the judge sees them.

    python benchmarks/class_accuracy.py run RUN_DIR
    python benchmarks/class_accuracy.py report

The run's data are classes of CIFAR-10, by number, or all of them. A result has the name of the run's folder.
"""

import argparse
from pathlib import Path

import torch
from harness import Result, Results, command, markdown, processor
from judge import load_or_train
from judgement import SAMPLE_SEED

import transfergen.commands.train  # noqa: F401  registers the resolvers of the configs
from transfergen.images import to_float
from transfergen.runs.saved_config import read_config
from transfergen.sampling.pretrained import PretrainedGenerator

SAMPLES = 400
"""Of each class."""


def run(args: argparse.Namespace, results: Results) -> None:
    """Measure the last generator of a run."""
    config, generator = read_config(args.run), PretrainedGenerator.from_pretrained(args.run)
    if not generator.num_classes:
        raise SystemExit(f"{args.run}: its generator is told of no classes")
    judge, accuracy = load_or_train(config.data.path)
    shares = {}
    for i, number in enumerate(config.data.classes or range(generator.num_classes)):
        pixels = generator.pixels(range(SAMPLE_SEED, SAMPLE_SEED + SAMPLES), classes=[i])
        with torch.no_grad():
            seen = judge.classify(to_float(pixels)).argmax(dim=1)
        shares[generator.classes[i]] = round(float((seen == number).float().mean()), 4)
    about = {"name": args.run.name, "machine": processor(), "images": generator.metadata["images_seen"]}
    about |= {"samples": SAMPLES, "judge_accuracy": round(accuracy, 4), "of_its_class": shares}
    results.add(about)


def report(everything: list[Result], _: Results) -> None:
    """The share of each class, and their mean."""
    for result in everything:
        shares = result["of_its_class"]
        row = [f"{share:.2f}" for share in (*shares.values(), sum(shares.values()) / len(shares))]
        print(f"\n{result['name']}, {result['images']:,} images:\n\n{markdown([row], [*shares, 'mean'])}")


if __name__ == "__main__":
    command(
        __doc__,
        run=run,
        report=report,
        options=lambda parser: parser.add_argument("run", type=Path, help="the folder of a training run"),
    )
