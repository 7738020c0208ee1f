"""Features for metrics on a CPU: folded, laid out and a few images at a time, beside the networks as they come.

    python benchmarks/extractors.py
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/extractors.py --rounds 9

Milliseconds an image are medians, both in turns in one process, of batches of 64 images, as an evaluation's are by
default; weights are random (transfergen.evaluation.extractors).
"""

import argparse
import statistics
import sys
import time
from unittest.mock import patch

import torch
from omegaconf import OmegaConf

from transfergen.config import CONF_DIR, instantiate
from transfergen.evaluation import extractors
from transfergen.evaluation.extractors import Extractor

BATCH = 64
METRICS = [("efficientnet_lite0", 32), ("vgg19", 32), ("vgg19", 64), ("inception", 32), ("dinov2", 32)]


def build(metrics: str) -> Extractor:
    """By the name of a file of `conf/metrics`."""
    config = OmegaConf.load(CONF_DIR / "metrics" / f"{metrics}.yaml")
    config.weights = "random"
    extractor: Extractor = instantiate(config)
    return extractor


def milliseconds(extractor: Extractor, images: torch.Tensor, *, at_once: int) -> float:
    """For an image, so many pixels at once."""
    start = time.perf_counter()
    with patch.object(extractors, "CPU_PIXELS", at_once):
        extractor(images)
    return 1000 * (time.perf_counter() - start) / BATCH


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print("| metrics | pixels | as it comes, ms | ours, ms | ratio |\n|---|---|---|---|---|")
    for metrics, size in METRICS:
        images = torch.rand(BATCH, 3, size, size) * 2 - 1
        with patch.object(extractors, "fold"):
            plain = build(metrics)
        ours = build(metrics)
        pairs = [
            (
                milliseconds(plain, images, at_once=sys.maxsize),
                milliseconds(ours, images, at_once=extractors.CPU_PIXELS),
            )
            for _ in range(rounds + 1)
        ][1:]  # the first lays weights out
        before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {metrics} | {size} | {before:.1f} | {after:.1f} | {before / after:.2f} |", flush=True)


if __name__ == "__main__":
    main()
