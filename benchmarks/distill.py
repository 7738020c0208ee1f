"""A student of a quarter of its teacher's parameters, on CIFAR-10 at 32x32.

    python benchmarks/distill.py run --teacher-images 3e5 --images-seen 1e5 2e5 3e5 4e5
    python benchmarks/distill.py report

The teacher is a DCGAN, trained by train.py if its run directory is not there yet. The student is trained by
experiment=distill. Both are measured in the same way, and their latencies on the CPU in turns.
"""

import argparse

from fine_tuning import train_once
from harness import Result, Results, command, markdown
from quality import add_options, columns, common_overrides, judged_run, keep_grids, parameters, table

from transfergen.runs.artefacts import load_generator
from transfergen.training.callbacks.distillation_report import latency_ms

STUDENT = [
    "experiment=distill",
    "data.batch_size=64",
    "backbone.taps=[0,1,2]",
    "transfer.teacher={teacher}",
    "init_from.discriminator={teacher}",
]


def options(parser: argparse.ArgumentParser) -> None:
    """When to measure the student, and how long its teacher trains."""
    add_options(parser)
    parser.add_argument("--teacher-images", type=float, default=3e5, help="real images that the teacher sees")
    parser.set_defaults(images_seen=[300_000.0], points=6)


def run(args: argparse.Namespace, results: Results) -> None:
    """Train the teacher and the student, and measure both."""
    images, seed = int(args.teacher_images), args.seeds[0]
    overrides = [*common_overrides(args, seed), "model=dcgan", "data.batch_size=64", f"max_images={images}"]
    teacher_run = train_once(results.work / f"teacher-{images}", overrides)
    trained = judged_run("student", STUDENT, seed, args, results, {"teacher": str(teacher_run)})
    if trained is None:
        return
    student, judged = trained
    teacher = load_generator(teacher_run)
    latencies = latency_ms({"teacher": teacher, "student": judged.module.ema_generator})
    results.add(student | {"latency_ms": latencies["student"]})
    name = student["name"].replace("student", "teacher")
    point = {"seconds": 0.0, "images": images} | judged.measure(teacher, results.file(name, ".jpg"))
    own = {"name": name, "model": "teacher", "overrides": "model=dcgan", "latency_ms": latencies["teacher"]}
    results.add(student | own | {"parameters": {"generator": parameters(teacher)}, "points": columns([point])})


def report(everything: list[Result], results: Results) -> None:
    """Both at their best, their sizes and latencies, and the grids."""
    print(table(everything))
    rows = [
        [r["name"], f"{r['parameters']['generator']:,}", *(f"{ms:.2f}" for ms in r["latency_ms"].values())]
        for r in everything
    ]
    print(f"\n{markdown(rows, ['', 'parameters', 'latency of 1 image, ms', 'of 64'])}")
    keep_grids(results, everything, ("teacher", "student"))


if __name__ == "__main__":
    command(__doc__, run=run, report=report, options=options)
