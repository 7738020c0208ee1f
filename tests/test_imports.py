import subprocess
import sys

import pytest

NETWORKS = [
    "transfergen.images",
    "transfergen.step",
    "transfergen.ema",
    "transfergen.losses.adversarial",
    "transfergen.augment",
    "transfergen.generators.dcgan",
    "transfergen.generators.fastgan",
    "transfergen.generators.resnet",
    "transfergen.backbones.vgg",
    "transfergen.backbones.timm",
    "transfergen.discriminators.vgg",
    "transfergen.discriminators.dcgan",
    "transfergen.discriminators.vision_aided",
    "transfergen.transfer.strategy",
    "transfergen.metrics.distances",
    "transfergen.metrics.extractors",
    "transfergen.metrics.neighbours",
]


@pytest.mark.parametrize("module", NETWORKS)
def test_networks_and_losses_know_nothing_of_lightning_or_hydra(module):
    code = f"import {module}, sys; print({{name.split('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "'torch'" in loaded or module.endswith("trunk")
    assert "'lightning'" not in loaded
    assert "'hydra'" not in loaded
