"""Five classes of CIFAR-10 from few pictures: a generator from scratch against one that starts pretrained.

    python benchmarks/fine_tuning.py run scratch fine_tuned
    python benchmarks/fine_tuning.py run fine_tuned --also transfer.freeze_d=2
    python benchmarks/fine_tuning.py run adapted --also data.max_images=100
    python benchmarks/fine_tuning.py run few_shot few_shot_all few_shot_norms --source-images 6e4 --images-seen 1.2e4
    python benchmarks/fine_tuning.py report

The sources are trained on the other five classes, by train.py, if their run directories are not there yet: a plain
DCGAN, and one by the recipe of the presets for the variants of `experiment=few_shot`, which train different weights of
the generator. The former have 500 pictures, the latter 100. All are measured against the test images of their classes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from harness import ROOT, positive
from quality import Variants, common_overrides, quality_command

SOURCE_CLASSES, TARGET_CLASSES = "[0,1,2,3,4]", "[5,6,7,8,9]"
PLAIN = ["model=dcgan", "data.batch_size=64"]
FEW = [*PLAIN, "data.max_images=500"]
RECIPE = ["model=projected_small", "backbone.taps=[0,1,2]"]
SOURCES = {"source": [*PLAIN, "augment=flip"], "few_shot_source": RECIPE}
FEW_SHOT = ["experiment=few_shot", "backbone.taps=[0,1,2]", "data.max_images=100"]
FROM_SOURCE = [*FEW_SHOT, "init_from.generator={few_shot_source}", "init_from.discriminator={few_shot_source}"]
VARIANTS: Variants = {
    "scratch": FEW,
    "fine_tuned": [*FEW, "init_from.generator={source}", "init_from.discriminator={source}"],
    "adapted": [
        *FEW,
        "backbone=efficientnet_lite0",
        "backbone.taps=[0,1,2]",
        "transfer=domain_adaptation",
        "transfer.source={source}",
        "transfer.consistency=1",
        "init_from.discriminator={source}",
    ],
    "few_shot": FEW_SHOT,
    "few_shot_all": FROM_SOURCE,
    "few_shot_norms": [*FROM_SOURCE, "transfer.generator=norms"],
    "few_shot_singular_values": [*FROM_SOURCE, "transfer.generator=singular_values"],
    "few_shot_last_k": [*FROM_SOURCE, "transfer.generator=last_k", "transfer.generator_last_k=2"],
    "few_shot_gradual": [*FROM_SOURCE, "transfer.generator=gradual", "transfer.unfreeze_every_images=2_000"],
}
COMMON = [f"data.classes={TARGET_CLASSES}"]


def train_once(run_dir: Path, overrides: list[str]) -> Path:
    """The run directory of a training by train.py, which is left out if it has ended before."""
    if not (run_dir / "metrics.json").exists():
        where = [f"hydra.run.dir={run_dir.resolve()}", "overwrite=true"]  # of one that was cut off
        command = [sys.executable, str(ROOT / "train.py"), *overrides, *where]
        subprocess.run(command, check=True)
    return run_dir.resolve()


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """Train the sources that the chosen variants start from."""
    images, run_dirs = int(args.source_images), {}
    for name, overrides in SOURCES.items():
        if any(f"={{{name}}}" in override for model in args.models for override in VARIANTS[model]):
            where = [*common_overrides(args, 0), *overrides, f"data.classes={SOURCE_CLASSES}", f"max_images={images}"]
            run_dirs[name] = str(train_once(args.work / "fine_tuning" / f"{name}-{images}", where))
    return run_dirs


if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        options=lambda parser: parser.add_argument(
            "--source-images", type=positive(float), default=4e5, help="real images that the source sees"
        ),
        prepare=prepare,
        common=COMMON,
        rivals=["scratch", "few_shot"],
        moments=[(2e5, "images")],
        points=25,
    )
