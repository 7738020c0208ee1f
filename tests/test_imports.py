"""Imports run down from room to room, and what computes knows nothing of what trains or of the command line."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import transfergen

ROOT = Path(transfergen.__file__).parent
GROUND = (
    "config",
    "settings",
    "targets",
    "errors",
    "digest",
    "signal_handler",
    "devices",
    "distributed",
    "image_shape",
    "images",
    "templates",
)
FLOORS = [  # from top to bottom; a module may import from its own room and from the floors below it
    ("__main__",),
    ("commands",),
    ("training",),
    ("transfer", "evaluation", "sampling"),
    ("runs",),
    ("networks", "data", "losses"),
    GROUND,
]
PLAIN = [  # for use without Lightning and Hydra
    "images",
    "training.adversarial_step",
    "training.ema",
    "training.augmentation",
    "sampling.inversion",
    "sampling.image_generator",
    "sampling.latents",
    "sampling.pretrained",
    "sampling.image_files",
    "losses.adversarial",
    "networks.generators.dcgan",
    "networks.generators.fastgan",
    "networks.generators.resnet",
    "networks.generators.biggan_deep",
    "networks.public.reading",
    "networks.backbones.vgg",
    "networks.backbones.timm",
    "networks.acceleration.folding",
    "networks.discriminators.vgg",
    "networks.discriminators.dcgan",
    "networks.discriminators.projected",
    "networks.discriminators.vision_aided",
    "transfer.strategy",
    "evaluation.clip",
    "evaluation.distances",
    "evaluation.extractors",
    "evaluation.metrics",
    "evaluation.neighbours",
]
CODE = """
import gc, importlib, json, sys
gc.disable()
guilty = {}
for name in sys.argv[1:]:
    importlib.import_module("transfergen." + name)
    new = {"lightning", "hydra"} & set(sys.modules) - set(sum(guilty.values(), []))
    if new:
        guilty[name] = sorted(new)
print(json.dumps([guilty, "torch" in sys.modules]))
"""


def test_networks_and_losses_know_nothing_of_lightning_or_hydra():
    loaded = subprocess.run([sys.executable, "-c", CODE, *PLAIN], check=True, capture_output=True, text=True).stdout
    assert json.loads(loaded) == [{}, True]


def test_imports_run_down_from_room_to_room():
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    rising, seen = [], 0
    for file in sorted(ROOT.rglob("*.py")):
        here = file.relative_to(ROOT).with_suffix("").parts[0]
        if here == "__init__":
            continue
        for name in imported(file):
            there = name.split(".")[1]
            seen += 1
            if there != here and not (floor_of[there] > floor_of[here] or {here, there} <= set(GROUND)):
                rising.append(f"{file.relative_to(ROOT)} imports {name}")
    assert rising == []
    assert seen > 200


@pytest.mark.parametrize("room", ["training", "networks", "evaluation", "commands"])
def test_no_two_modules_of_a_room_import_each_other(room):
    needs = {module(file): set(imported(file)) for file in (ROOT / room).rglob("*.py")}
    for name in needs:
        reached, todo = set(), [name]
        while todo:
            for other in needs.get(todo.pop(), set()) - reached:
                reached.add(other)
                todo.append(other)
        assert name not in reached, f"{name} imports itself in a circle"


def module(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(["transfergen", *(part for part in parts if part != "__init__")])


def imported(file):
    """Modules of the package that a file imports when it is loaded, and inside its functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("transfergen."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transfergen":
            if node.module == "transfergen" or (ROOT / Path(*node.module.split(".")[1:])).is_dir():
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
