"""A student of a quarter of its teacher's parameters, on CIFAR-10 at 32x32.

    python benchmarks/distill.py run teacher --images-seen 3e5 --points 1
    python benchmarks/distill.py run student --images-seen 1e5 2e5 3e5 4e5
    python benchmarks/distill.py report

The student is trained by experiment=distill. It learns from a run of train.py, which is made if it is not there yet,
with the teacher's settings and seed.
"""

import argparse

from fine_tuning import train_once
from harness import positive
from quality import Variants, common_overrides, quality_command

TEACHER = ["model=dcgan", "data.batch_size=64"]
STUDENT = ["experiment=distill", "data.batch_size=64", "backbone.taps=[0,1,2]"]
VARIANTS: Variants = {
    "teacher": TEACHER,
    "student": [*STUDENT, "transfer.teacher={teacher}", "init_from.discriminator={teacher}"],
}


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """Train the run that the student learns from."""
    if "student" not in args.models:
        return {}
    images = int(args.teacher_images)
    overrides = [*common_overrides(args, args.seeds[0]), *TEACHER, f"max_images={images}"]
    return {"teacher": str(train_once(args.work / "distill" / f"teacher-{images}", overrides))}


if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        options=lambda parser: parser.add_argument(
            "--teacher-images", type=positive(float), default=3e5, help="real images that the teacher sees"
        ),
        prepare=prepare,
        moments=[(3e5, "images")],
        points=6,
    )
