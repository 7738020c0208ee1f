"""What a pretrained generator saves: five classes of CIFAR-10 from 500 pictures, from scratch and from a source.

    python benchmarks/fine_tuning.py run scratch fine_tuned
    python benchmarks/fine_tuning.py run fine_tuned --also transfer.freeze_d=2
    python benchmarks/fine_tuning.py run adapted --also data.max_images=100
    python benchmarks/fine_tuning.py report

The source is a DCGAN trained on the other five classes, by train.py, if its run directory is not there yet. All see the
same pictures, and are measured against the test images of their classes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from harness import ROOT
from quality import Variants, common_overrides, quality_command

SOURCE_CLASSES, TARGET_CLASSES = "[0,1,2,3,4]", "[5,6,7,8,9]"
VARIANTS: Variants = {
    "scratch": [],
    "fine_tuned": ["init_from.generator={source}", "init_from.discriminator={source}"],
    "adapted": [
        "backbone=efficientnet_lite0",
        "backbone.taps=[0,1,2]",
        "transfer=domain_adaptation",
        "transfer.source={source}",
        "transfer.consistency=1",
        "init_from.discriminator={source}",
    ],
}
COMMON = ["model=dcgan", "data.batch_size=64", f"data.classes={TARGET_CLASSES}", "data.max_images=500"]


def train_once(run_dir: Path, overrides: list[str]) -> Path:
    """The run directory of a training by train.py, which is left out if it has ended before."""
    if not (run_dir / "metrics.json").exists():
        where = [f"hydra.run.dir={run_dir.resolve()}", "overwrite=true"]  # of one that was cut off
        command = [sys.executable, str(ROOT / "train.py"), *overrides, *where]
        subprocess.run(command, check=True)
    return run_dir.resolve()


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """Train the source."""
    images = int(args.source_images)
    overrides = [*common_overrides(args, 0), "model=dcgan", "data.batch_size=64", f"data.classes={SOURCE_CLASSES}"]
    run_dir = args.work / "fine_tuning" / f"source-{images}"
    return {"source": str(train_once(run_dir, [*overrides, "augment=flip", f"max_images={images}"]))}


if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        options=lambda parser: parser.add_argument("--source-images", type=float, default=4e5, help="that it sees"),
        prepare=prepare,
        common=COMMON,
        rivals=["scratch"],
        moments=[(2e5, "images")],
        points=25,
    )
