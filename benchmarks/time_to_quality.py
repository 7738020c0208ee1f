"""How soon each discriminator brings the same generator to which quality, on CIFAR-10.

    python benchmarks/time_to_quality.py run dcgan cifar10 --minutes 30
    python benchmarks/time_to_quality.py run cifar10 --minutes 5 10 30 --training-images 1000
    python benchmarks/time_to_quality.py run vgg_disc --resolution 64 --images-seen 5e4 1e5 2e5
    python benchmarks/time_to_quality.py run dcgan_matched dcgan_matched_5e-4 --minutes 10 --trial
    python benchmarks/time_to_quality.py report

All train DCGAN's generator, by the project's own configs and module; with `model=vgg_disc` it has a low-pass filter.
The clock stands still while samples of the moving average are measured against test images; see judgement.py. Settings
are chosen with `--trial`, which holds 2,000 training images out and measures on them, so that ours is not tuned on the
images of the tables. To use one core for each run, start them with `OMP_NUM_THREADS=1 taskset -c 0`.
"""

from harness import ROOT
from proof import Proof
from quality import Variants, quality_command

RATE = "optimizer.discriminator.lr"
DCGAN = ["model=dcgan", "data.batch_size=64"]
RECIPE = ["experiment=cifar10"]
MATCHED = [*RECIPE, "discriminator=dcgan", "discriminator.joint_batchnorm=true"]  # all as in the recipe but the trunk
VARIANTS: Variants = {
    "dcgan": DCGAN,  # both rates are 2e-4
    "dcgan_5e-4": [*DCGAN, "optimizer.generator.lr=5e-4", f"{RATE}=5e-4"],
    "dcgan_1e-3": [*DCGAN, "optimizer.generator.lr=1e-3", f"{RATE}=1e-3"],
    "dcgan_matched": MATCHED,  # the recipe's rate is 1e-3
    "dcgan_matched_5e-4": [*MATCHED, f"{RATE}=5e-4"],
    "dcgan_matched_2e-4": [*MATCHED, f"{RATE}=2e-4"],
    "dcgan_matched_1e-4": [*MATCHED, f"{RATE}=1e-4"],
    "cifar10": RECIPE,
    "cifar10_random": [*RECIPE, "backbone.weights=random"],
    "cifar10_random_trained": [  # heads without projections, which are meant for fixed features
        *[*RECIPE, "backbone.weights=random", "discriminator=vgg", "transfer=fine_tuning"]
    ],
    "vgg_disc": ["model=vgg_disc", "backbone.cut=relu3_4", "backbone.weights={vgg}"],
    "vgg_disc_matched": [  # nothing is pretrained, and all but the rate as in vgg_disc
        "model=vgg_disc",
        "discriminator=dcgan",
        "discriminator.joint_batchnorm=true",
        "backbone=none",
        f"{RATE}=5e-4",
    ],
    "vision_aided": [
        "model=vision_aided",
        "data.batch_size=64",
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
}
RIVALS = ["dcgan", "dcgan_5e-4", "dcgan_matched", "vgg_disc_matched"]
PROOF = Proof(
    {
        "(a) DCGAN": ["dcgan", "dcgan_5e-4", "dcgan_1e-3"],
        "(b) DCGAN's discriminator, the recipe": [
            *("dcgan_matched", "dcgan_matched_5e-4", "dcgan_matched_2e-4", "dcgan_matched_1e-4")
        ],
        "(c) Lite0 of random weights, frozen, the recipe": ["cifar10_random"],
        "(c) Lite0 of random weights, trained, the recipe": ["cifar10_random_trained"],
        "(d) pretrained Lite0, the recipe": ["cifar10"],
        "(e) pretrained VGG19, `model=vgg_disc`": ["vgg_disc"],
    },
    plain="(a) DCGAN",
    opponent="(b) DCGAN's discriminator, the recipe",
    full="(d) pretrained Lite0, the recipe",
)

if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        rivals=RIVALS,
        moments=[(1800, "seconds")],
        summary=PROOF,
        plot=PROOF.plot,
        page=ROOT / "docs/time-to-quality.md",
    )
