"""Every model on CIFAR-10 at 32x32, with the same number of images and the same measurements.

    python benchmarks/zoo.py run dcgan sagan --images-seen 1e5
    python benchmarks/zoo.py run biggan --trainer gpu --images-seen 1e7 --also generator.width=96 discriminator.width=96
    python benchmarks/zoo.py report

The residual networks are narrower than in their papers, so that one core needs minutes.
"""

from quality import Variants, quality_command

NARROW = ["generator.width=32", "discriminator.width=32"]
VARIANTS: Variants = {
    "dcgan": ["model=dcgan"],
    "wgan": ["model=wgan"],
    "wgan_gp": ["model=wgan_gp", *NARROW],
    "sagan": ["model=sagan", *NARROW],
    "biggan": ["model=biggan", *NARROW],
    "vgg_disc": [  # in batches as it is by default, and with rates that fall until the run ends
        *["model=vgg_disc", "backbone.cut=relu3_4", "backbone.weights={vgg}", "data.batch_size=32", "max_images=50_000"]
    ],
    "projected": [
        "model=projected",
        "generator=dcgan",
        "backbone=efficientnet_lite0",
        "backbone.taps=[0,1,2]",
        "discriminator=projected_small",
        "discriminator.joint_batchnorm=false",
        "augment=diffaugment",
        "ema.halflife_images=10000",
    ],
    "vision_aided": [
        "model=vision_aided",
        "discriminator.start_images=0",
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
    "vae": ["model=vae"],
    "vae_gan": [
        "model=vae_gan",
        "backbone.cut=relu3_4",
        "backbone.taps=[relu1_2,relu2_2]",
        "backbone.weights={vgg}",
    ],
}

if __name__ == "__main__":
    quality_command(
        __doc__,
        VARIANTS,
        common=["data.batch_size=64"],
        precision_recall=True,
        moments=[(1e5, "images")],
        points=2,
    )
