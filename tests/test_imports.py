import json
import subprocess
import sys

NETWORKS = [
    "images",
    "step",
    "ema",
    "augment",
    "inversion",
    "pretrained",
    "writing",
    "losses.adversarial",
    "generators.dcgan",
    "generators.fastgan",
    "generators.resnet",
    "backbones.vgg",
    "backbones.timm",
    "backbones.folding",
    "discriminators.vgg",
    "discriminators.dcgan",
    "discriminators.projected",
    "discriminators.vision_aided",
    "transfer.strategy",
    "metrics.distances",
    "metrics.extractors",
    "metrics.neighbours",
]
CODE = """
import importlib, json, sys
guilty = {}
for name in sys.argv[1:]:
    importlib.import_module("transfergen." + name)
    new = {"lightning", "hydra"} & set(sys.modules) - set(sum(guilty.values(), []))
    if new:
        guilty[name] = sorted(new)
print(json.dumps([guilty, "torch" in sys.modules]))
"""


def test_networks_and_losses_know_nothing_of_lightning_or_hydra():
    command = [sys.executable, "-c", CODE, *NETWORKS]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(loaded) == [{}, True]
