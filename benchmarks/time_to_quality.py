"""How soon each discriminator brings the same generator to which quality, on CIFAR-10.

    python benchmarks/time_to_quality.py run dcgan cifar10 --minutes 30
    python benchmarks/time_to_quality.py run cifar10 --minutes 5 10 30 --training-images 1000
    python benchmarks/time_to_quality.py run vgg_disc --resolution 64 --images-seen 5e4 1e5 2e5
    python benchmarks/time_to_quality.py report

All train the DCGAN generator, by the project's own configs and module. The clock stands still while samples of the
moving average are measured against test images; see judgement.py. To use one core for each run, start them with
`OMP_NUM_THREADS=1 taskset -c 0`.
"""

from harness import Result, Results
from quality import Variants, keep_grids, plot, quality_command, ratios, table

RECIPE = "experiment=cifar10"
VARIANTS: Variants = {
    "dcgan": ["model=dcgan", "data.batch_size=64"],
    "dcgan_fast": [
        "model=dcgan",
        "data.batch_size=64",
        "optimizer.generator.lr=5e-4",
        "optimizer.discriminator.lr=5e-4",
    ],
    "dcgan_matched": [RECIPE, "discriminator=dcgan"],  # nothing pretrained; all else as in the recipe
    "cifar10": [RECIPE],
    "cifar10_random": [RECIPE, "backbone.weights=random"],
    "vgg_disc": ["model=vgg_disc", "backbone.weights={vgg}"],
    "vision_aided": [
        "model=vision_aided",
        "data.batch_size=64",
        "discriminator.backbones.vgg19.cut=relu3_4",
        "discriminator.backbones.vgg19.weights={vgg}",
    ],
}
RIVALS = ("dcgan", "dcgan_fast", "dcgan_matched")


def report(everything: list[Result], results: Results) -> None:
    """Each run at its best, how soon others are as good as the rivals, the plot and the grids."""
    print(table(everything))
    for rival in RIVALS:
        if any(r["model"] == rival for r in everything):
            print(f"\n{ratios(everything, rival)}")
    plot(everything, list(VARIANTS), results.kept / "time_to_quality.png")
    keep_grids(results, everything, VARIANTS)


if __name__ == "__main__":
    quality_command(__doc__, VARIANTS, report, common=["generator=dcgan"], minutes=30)
