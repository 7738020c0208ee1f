"""A student of a quarter of its teacher's parameters: CIFAR-10 at 32x32.

    python benchmarks/distill.py

It needs the extra `bench`: pip install --editable '.[bench]'.

The teacher is a DCGAN (or the run that --teacher names); the student is trained by experiment=distill. Both are
measured in the features of benchmarks/judge.py against all test images, and their latencies are taken in turns. The
table goes to the screen, everything to benchmarks/results/distill.json, and the grids of both side by side.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from judgement import (
    SAMPLES,
    Measure,
    add_arguments,
    common,
    compose_config,
    judged_data,
    judged_training,
    processor,
    shown,
    side_by_side,
)

from transfergen.images import to_float
from transfergen.runs.generator_files import load_generator
from transfergen.training.callbacks.distillation_report import latency_ms

ROOT = Path(__file__).parents[1]


def train_teacher(args: argparse.Namespace) -> Path:
    """The run directory of the teacher, trained now if it is not there."""
    if args.teacher:
        return Path(args.teacher)
    run_dir: Path = args.work / f"teacher-{args.teacher_images}"
    if not (run_dir / "metrics.json").exists():
        overrides = [*common(args, args.seed), "model=dcgan", f"max_images={args.teacher_images}"]
        command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={run_dir.resolve()}"]
        subprocess.run(command, check=True)
    return run_dir


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder")
    parser.add_argument("--teacher", help="run directory of a model=dcgan of 32x32; default: train one")
    parser.add_argument("--teacher-images", type=int, default=400_000, help="real images that it sees")
    parser.add_argument("--images", type=int, default=300_000, help="real images that the student sees")
    parser.add_argument("--points", type=int, default=6, help="how often it is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--also", nargs="*", default=[], help="overrides for the student, such as transfer.output=10")
    parser.add_argument("--work", type=Path, default=Path("outputs/distill"), help="where the teacher's run lies")
    add_arguments(parser)
    args = parser.parse_args()

    run_dir = train_teacher(args)
    teacher_run = run_dir.resolve()
    own = ["experiment=distill", f"transfer.teacher={teacher_run}", f"init_from.discriminator={teacher_run}"]
    own += ["backbone.taps=[0,1,2]", *args.also]
    overrides = [*common(args, args.seed), *own]
    config = compose_config(overrides)
    data = judged_data(config)
    moments = [args.images * (i + 1) / args.points for i in range(args.points)]
    grids = {name: args.results / "distill" / f"{name}.png" for name in ("teacher", "student")}
    module, points, _ = judged_training(config, data, moments, "images", grids["student"])

    teacher = load_generator(run_dir)
    measure = Measure(to_float(data.test_set.sample_images(SAMPLES).pixels), args.data)
    networks = {"teacher": teacher, "student": module.ema_generator}
    numbers = {"teacher": measure(teacher, grids["teacher"]), "student": points[-1]}
    latencies = latency_ms(networks)
    parameters = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    side_by_side(list(grids.values()), args.results / "distill_grids.png")
    content = {
        "teacher_images": None if args.teacher else args.teacher_images,
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "machine": processor(args.trainer),
        "overrides": [o.replace(str(run_dir.resolve()), "TEACHER") for o in shown(overrides, args)],
        "samples": SAMPLES,
        "split": "test",
        "parameters": parameters,
        "latency_ms": latencies,
        "teacher": numbers["teacher"],
        "student": points,
    }
    (args.results / "distill.json").write_text(json.dumps(content, indent=1) + "\n")
    rows = {"parameters": parameters} | {
        f"latency of {batch}, ms": {name: latencies[name][batch] for name in networks} for batch in latencies["teacher"]
    }
    for name in ("kernel_distance", "frechet_distance", "precision", "recall"):
        rows[name] = {who: numbers[who][f"judge/{name}"] for who in networks}
    print("| | teacher | student | student / teacher |")
    print("|---|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {row['teacher']:.5g} | {row['student']:.5g} | {row['student'] / row['teacher']:.3f} |")


if __name__ == "__main__":
    main()
