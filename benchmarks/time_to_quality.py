"""How soon each discriminator brings the same generator to which quality, on CIFAR-10.

    python benchmarks/time_to_quality.py run dcgan cifar10 --minutes 30
    python benchmarks/time_to_quality.py run cifar10 --minutes 5 10 30 --training-images 1000
    python benchmarks/time_to_quality.py run vgg_disc --resolution 64 --images-seen 5e4 1e5 2e5
    python benchmarks/time_to_quality.py report

All train the DCGAN generator, by the project's own configs and module. The clock stands still while samples of the
moving average are measured against test images; see judgement.py. To use one core for each run, start them with
`OMP_NUM_THREADS=1 taskset -c 0`.
"""

from quality import Variants, quality_command

DCGAN = ["model=dcgan", "data.batch_size=64"]
RECIPE = ["experiment=cifar10"]
VARIANTS: Variants = {
    "dcgan": DCGAN,
    "dcgan_fast": [*DCGAN, "optimizer.generator.lr=5e-4", "optimizer.discriminator.lr=5e-4"],
    "dcgan_matched": [*RECIPE, "discriminator=dcgan"],  # nothing is pretrained, and all else as in the recipe
    "cifar10": RECIPE,
    "cifar10_random": [*RECIPE, "backbone.weights=random"],
    "vgg_disc": ["model=vgg_disc", "backbone.cut=relu3_4", "backbone.weights={vgg}"],
    "vgg_disc_matched": [  # nothing is pretrained, and all else as in vgg_disc
        "model=vgg_disc",
        "discriminator=dcgan",
        "discriminator.joint_batchnorm=true",
        "backbone=none",
        "optimizer.discriminator.lr=5e-4",
    ],
    "vision_aided": [
        "model=vision_aided",
        "data.batch_size=64",
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
}
RIVALS = ["dcgan", "dcgan_fast", "dcgan_matched", "vgg_disc_matched"]

if __name__ == "__main__":
    quality_command(__doc__, VARIANTS, common=["generator=dcgan"], rivals=RIVALS, moments=[(1800, "seconds")])
