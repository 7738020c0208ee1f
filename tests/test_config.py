import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

import transfergen.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, instantiate, resumed

OFFLINE = ["backbone.weights=random"]


def composed(*overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def targets(node, path=""):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield from targets(node[key], f"{path}.{key}")


YAML_NODES = [
    pytest.param(node, id=f"{file.relative_to(CONF_DIR)}{path}")
    for file in sorted(CONF_DIR.rglob("*.yaml"))
    for path, node in targets(OmegaConf.load(file))
    if node._target_.startswith("transfergen.")
]


@pytest.mark.parametrize("node", YAML_NODES)
def test_yaml_has_the_arguments_of_its_target_in_order_with_their_defaults(node):
    parameters = [
        p
        for p in inspect.signature(get_object(node._target_)).parameters.values()
        if p.name not in ("split", "dataset")  # handed over by the data module; by tests
    ]
    names = [key for key in node if key not in ("_target_", "_partial_")]
    if node.get("_partial_"):
        parameters = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert names == [p.name for p in parameters]
    own = {"weights", "name", "taps", "trunk"}  # where one class has several YAMLs, each chooses
    for parameter in parameters:
        if parameter.name in names and not OmegaConf.is_interpolation(node, parameter.name):
            if OmegaConf.is_missing(node, parameter.name) or parameter.name in own:
                continue
            value = node[parameter.name]
            default = parameter.default
            if default is not inspect.Parameter.empty and not isinstance(value, DictConfig):
                assert value == default, parameter.name


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize("generator", [f.stem for f in (CONF_DIR / "generator").glob("*.yaml")])
def test_each_generator_is_built_and_makes_what_it_declares(generator, resolution):
    config = composed(f"generator={generator}", f"data.resolution={resolution}", "generator.width=4")
    network = instantiate(config.generator)
    images = network(torch.randn(2, network.z_dim))
    assert images.shape == (2, 3, resolution, resolution) == (2, 3, network.resolution, network.resolution)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("backbone", [f.stem for f in (CONF_DIR / "backbone").glob("*.yaml")])
@pytest.mark.parametrize("discriminator", [f.stem for f in (CONF_DIR / "discriminator").glob("*.yaml")])
def test_each_discriminator_is_built_on_each_backbone_and_scores_images(discriminator, backbone, resolution):
    shallow = {"timm": "backbone.taps=[2]", "vgg19": "backbone.cut=relu2_2"}.get(backbone, "backbone.taps=[1,2]")
    config = composed(
        f"discriminator={discriminator}", f"backbone={backbone}", f"data.resolution={resolution}", *OFFLINE, shallow
    )
    network = instantiate(config.discriminator)
    images = torch.rand(2, 3, resolution, resolution) * 2 - 1
    for feature_map, channels in zip(network.backbone(images), network.backbone.channels, strict=True):
        assert feature_map.shape[:2] == (2, channels)
    assert network(images).shape == (2, 1)


@pytest.mark.parametrize("experiment", [f.stem for f in (CONF_DIR / "experiment").glob("*.yaml")])
def test_each_experiment_composes_and_the_command_line_wins(experiment):
    config = composed(f"experiment={experiment}", "data.batch_size=10", "transfer=fine_tuning")
    assert config.data.batch_size == 10
    assert config.transfer.trunk == "tuned"


def test_model_selects_and_a_swapped_backbone_inherits_nothing():
    config = composed("model=vgg_disc", "backbone=efficientnet_lite0")
    assert config.backbone.name == "tf_efficientnet_lite0"
    assert config.discriminator.backbone == config.backbone
    assert "cut" not in config.backbone
    assert composed("model=vgg_disc", "backbone.cut=relu3_4", "transfer=fine_tuning").backbone.cut == "relu3_4"


def test_tutorial_is_the_plainest_form():
    config = composed("experiment=tutorial")
    assert (config.transfer.trunk, config.gan.ema_halflife_images) == ("tuned", 0)


def test_reference_settings_are_the_designs():
    config = composed()
    assert (config.data.batch_size, config.data.resolution, config.trainer.max_epochs) == (128, 64, 200)
    assert (config.backbone.cut, config.generator.z_dim, config.objective.saturating) == ("pool4", 100, False)
    for optimizer in config.optimizer.values():
        assert (optimizer.lr, list(optimizer.betas)) == (2e-4, [0.5, 0.999])


@pytest.mark.parametrize(
    "target",
    ["os.system", "torch.load", "transfergen.artefacts.os.getpid", "transfergen.generate.Path", "lightning.nothing"],
)
def test_target_from_elsewhere_is_refused_before_anything_is_called(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="_target_"):
        instantiate({"nested": [{"_target_": target, "_args_": ["touch called"]}]})
    assert not list(Path(tmp_path).iterdir())


def test_resumed_config_is_the_saved_one_with_this_command_lines_overrides():
    saved = OmegaConf.create({"trainer": {"max_epochs": 1, "devices": 1}, "data": {"path": "old"}, "seed": 5})
    fresh = OmegaConf.create({"trainer": {"max_epochs": 9, "devices": 2}, "data": {"path": "new"}, "seed": 0})
    config = resumed(saved, fresh, ["resume=there", "trainer.max_epochs=9", "data=other"])
    assert config == {"trainer": {"max_epochs": 9, "devices": 1}, "data": {"path": "new"}, "seed": 5}
    with pytest.raises(ValueError, match="keeps its model"):
        resumed(saved, fresh, ["model=vgg_disc"])
