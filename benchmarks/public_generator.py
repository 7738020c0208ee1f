"""Two classes of CIFAR-10 from few pictures: a generator from scratch against one that starts from a BigGAN.

    python benchmarks/public_generator.py run fine_tune fine_tune_scratch --training-images 100 --images-seen 1e3 1e4
    python benchmarks/public_generator.py run scratch all norms --training-images 100 --images-seen 1e3 4e3 8e3
    python benchmarks/public_generator.py report

The BigGAN is StudioGAN's for CIFAR-10, a sixth as wide. It is trained here on the other eight classes and stored in
the files that StudioGAN saves, unless it is there already; `init_from=studiogan` reads these. Variants named
`fine_tune` have that preset: both networks of the files, beside fresh heads, and two classes, which start from two
chosen ones or, with `mean`, from the mean of all eight. The others have the generator alone, in `experiment=few_shot`,
and one class. Those named `scratch` have the same networks and settings, and start untrained. Half of the training
images of the two classes are left out of all trainings, and are what the samples are compared with.
"""

import argparse

from fine_tuning import train_once
from harness import positive
from quality import Variants, common_overrides, quality_command
from studiogan_files import save_networks

BIGGAN = ["generator=biggan", "generator.width=16", "generator.z_dim=80", "generator.bias=true", "generator.eps=1e-4"]
BIGGAN += ["generator.orthogonal=0"]
BIGGAN_DISCRIMINATOR = ["discriminator@discriminator.ordinary=biggan", "discriminator.ordinary.width=16"]
RECIPE = ["optimizer=muon_batch32", "objective=rpgan_drift", "augment=diffaugment_whole"]
SOURCE = [
    "data.classes=[0,1,2,3,4,5,6,7]",
    "data.batch_size=32",
    "model=vision_aided",  # BigGAN's discriminator beside heads on EfficientNet-Lite0, from the start
    *BIGGAN_DISCRIMINATOR,
    "~backbone@discriminator.backbones.vgg19",
    "discriminator.backbones.efficientnet_lite0.taps=[0,1,2]",
    "discriminator.start_images=0",
    *BIGGAN,
    *RECIPE,
    "optimizer.extrapolation=1",
    "optimizer.simultaneous=true",
    "lr_decay.start_images=20_000",
    "lr_decay.end_images=500_000",
    "lr_decay.final_factor=0.1",
    "evaluation.best=null",
    "checkpoint_every_images=4_000",
]
FEW_SHOT = ["experiment=few_shot", "backbone.taps=[0,1,2]"]
FROM_G = [*FEW_SHOT, "init_from=studiogan", "init_from.generator='{G_ema}'"]
FINE_TUNE = ["experiment=fine_tune", "discriminator.backbones.efficientnet_lite0.taps=[0,1,2]"]
FROM_BOTH = [*FINE_TUNE, "init_from=studiogan", "init_from.generator='{G_ema}'", "init_from.discriminator='{D}'"]
VARIANTS: Variants = {
    "fine_tune": [*FROM_BOTH, "init_from.classes=[0,1]"],  # ships start as aeroplanes, and trucks as cars
    "fine_tune_scratch": [*FINE_TUNE, *BIGGAN, *BIGGAN_DISCRIMINATOR],
    "fine_tune_mean": FROM_BOTH,
    "fine_tune_mixture": [*FROM_BOTH, "init_from.classes=[0,1]", "transfer.new_classes=mixture"],
    "scratch": [*FEW_SHOT, *BIGGAN, "data.num_classes=1"],
    "all": FROM_G,
    "norms": [*FROM_G, "transfer.generator=norms"],
    "singular_values": [*FROM_G, "transfer.generator=singular_values"],
    "last_k": [*FROM_G, "transfer.generator=last_k", "transfer.generator_last_k=2"],
    "gradual": [*FROM_G, "transfer.generator=gradual", "transfer.unfreeze_every_images=2_000"],
}
COMMON = ["data.classes=[8,9]", "data.source.test_split=train", "data.source.holdout=0.5"]


def prepare(args: argparse.Namespace) -> dict[str, str]:
    """Train the BigGAN that the chosen variants start from, and write StudioGAN's files of its networks."""
    if all("{" not in override for model in args.models for override in VARIANTS[model]):
        return {}
    images = int(args.source_images)
    where = args.work / "public_generator" / f"source-{images}"
    whole = argparse.Namespace(**vars(args) | {"training_images": None, "trial": False})
    run_dir = train_once(where, [*common_overrides(whole, 0), *SOURCE, f"max_images={images}"])
    return save_networks(run_dir, run_dir / "studiogan")


if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        options=lambda parser: parser.add_argument(
            "--source-images", type=positive(float), default=2e5, help="real images that the source sees"
        ),
        prepare=prepare,
        common=COMMON,
        rivals=["scratch", "fine_tune_scratch"],
        moments=[(1e4, "images")],
        points=10,
    )
