"""The names that a `_target_` may have: the list is that of conf/, and nothing else is called."""

import inspect
from pathlib import Path

import pytest

from transfergen.commands.foreign_configs import trusted_names
from transfergen.config import instantiate
from transfergen.targets import get_target, shipped_targets, trust

OF_OTHERS = {
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "torch.optim.Adam",
    "torch.optim.RMSprop",
}
ROOMS = ("networks", "losses", "data", "transfer", "evaluation.extractors")
ROOMS += ("evaluation.clip", "evaluation.dinov2", "training.augmentation", "training.muon", "training.loggers")


@pytest.fixture
def anything(tmp_path, monkeypatch):
    """A module whose function makes a file; it must not be called."""
    (tmp_path / "anything.py").write_text("from pathlib import Path\n\n\ndef at_all():\n    Path('called').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield "anything.at_all"
    trust([])


@pytest.mark.parametrize("name", sorted(shipped_targets()))
def test_each_target_is_a_known_class_or_one_of_a_room_that_builds_what_a_config_says(name):
    found = get_target(name)
    if name in OF_OTHERS:
        assert inspect.isclass(found)
        return
    module, _, attribute = name.rpartition(".")
    assert found.__module__ == module
    assert found.__name__ == attribute
    assert module.removeprefix("transfergen.").startswith(ROOMS) or name.endswith(".SweepReport")


def test_the_list_holds_networks_losses_optimizers_strategies_sources_and_loggers():
    assert shipped_targets() >= OF_OTHERS | {
        "transfergen.networks.generators.dcgan.DCGAN",
        "transfergen.losses.adversarial.hinge",
        "transfergen.transfer.strategy.Strategy",
        "transfergen.data.image_folder.image_folder",
    }
    assert len(shipped_targets()) < 60


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.optim.Optimizer",
        "lightning.fabric.utilities.cloud_io._load",
        "lightning.pytorch.cli.instantiate_class",
        "lightning.pytorch.loggers.WandbLogger",
        "lightning.nothing",
        "transfergen.commands.generate.Path",
        "transfergen.config.instantiate",
        "transfergen.runs.artefacts.os.getpid",
        "transfergen.runs.artefacts.write",
        ["os.system"],
        None,
    ],
)
def test_target_that_the_configs_do_not_name_is_refused_before_anything_is_called(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known = {"_target_": "transfergen.data.datamodule.ImageDataModule"}
    with pytest.raises(ValueError, match=r"_target_=.*refused"):
        instantiate({"first": known, "nested": [{"_target_": target, "path": "called", "content": "x"}]})
    assert not list(Path(tmp_path).iterdir())


def test_a_function_of_ones_own_needs_the_word_of_the_command_line(anything):
    with pytest.raises(ValueError, match=r"_target_=anything\.at_all: refused.*trust=\[anything\.at_all\]"):
        instantiate({"_target_": anything})
    assert not Path("called").exists()
    trust(trusted_names(["seed=1", f"trust=[{anything},other.thing]"]))
    instantiate({"_target_": anything})
    assert Path("called").exists()
    trust(trusted_names(["experiment=quickstart"]))
    with pytest.raises(ValueError, match="refused"):
        instantiate({"_target_": anything})


def test_a_trusted_name_that_does_not_exist_is_said_to():
    trust(["transfergen.config.nothing", "no_such_module.Thing"])
    try:
        for name in ("transfergen.config.nothing", "no_such_module.Thing"):
            with pytest.raises(ValueError, match=f"_target_={name}: there is no such object"):
                get_target(name)
    finally:
        trust([])
