"""The presets for few pictures of one's own, beside the same networks with the loss and rates of Projected GAN.

    python benchmarks/presets.py run few_shot few_shot_published --minutes 8
    python benchmarks/presets.py report

The pictures are CIFAR-10's, at 64x64: 100 for `few_shot`, 1,000 for `small`. The variants called `published` have the
presets' networks with a hinge loss, reals and fakes that are normalised each on their own, all of DiffAugment, and
learning rates of 2e-4. They are not the release of Projected GAN (Sauer 2021, arXiv:2111.01007), whose heads are larger
and whose cutout is smaller: that is `model=projected`.
"""

from quality import Variants, quality_command

FEW_SHOT = ["experiment=few_shot", "data.max_images=100"]
SMALL = ["experiment=small", "data.max_images=1000"]
PUBLISHED = [
    "objective=hinge",
    "discriminator.joint_batchnorm=false",
    "augment.cutout=0.5",
    "optimizer=adam_projected",
    "lr_decay.start_images=null",
]
VARIANTS: Variants = {
    "few_shot": FEW_SHOT,
    "few_shot_published": [*FEW_SHOT, *PUBLISHED],
    "small": SMALL,
    "small_published": [*SMALL, *PUBLISHED, "data.batch_size=64"],
}

if __name__ == "__main__":
    quality_command(__doc__, VARIANTS, moments=[(480, "seconds")], points=4, resolution=64)
