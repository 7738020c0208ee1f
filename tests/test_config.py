import inspect
import math
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, instantiate
from transfergen.networks.backbones.timm import TimmBackbone
from transfergen.networks.weights import WeightsError
from transfergen.runs.resume import resume_config


def composed(*overrides, resolution=None):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=list(overrides))
    if resolution is not None:
        config.data.resolution = resolution
    return config


CHOICES = [
    f"{file.parent.name}/{file.stem}"
    for file in sorted(CONF_DIR.glob("*/[!_]*.yaml"))
    if file.parent.name not in ("model", "experiment")
]
CHOSEN = {  # what a choice sets to other values than the signature's defaults: that is what it is for
    "augment": {"colour", "translation", "cutout", "flip"},
    "backbone/dinov2_vits14": {"name"},
    "backbone/efficientnet_lite0_projected": {"taps", "input_size"},
    "backbone/timm": {"name", "taps", "weights"},
    "backbone/vgg19_multiscale": {"cut", "taps"},
    "discriminator/biggan": {"width", "attention", "orthogonal_init"},
    "discriminator/projected_small": {"width", "enlarge", "standardize_features", "joint_batchnorm"},
    "discriminator/sagan": {"attention"},
    "discriminator/wgan_gp": {"spectral_norm"},
    "generator/biggan": {
        *("z_dim", "width", "attention", "spectral_norm", "class_dim", "hierarchical", "orthogonal_init", "orthogonal")
    },
    "generator/dcgan_low_pass": {"low_pass"},
    "generator/fastgan_projected": {"width", "second_convolutions", "hypersphere", "bounded"},
    "generator/sagan": {"attention", "spectral_norm"},
    "metrics/dinov2_large": {"name"},
    "objective/relativistic": {"r1", "r2"},
    "objective/rpgan_drift": {"drift"},
    "objective/vae_gan": {"perceptual", "adversarial"},
    "objective/wasserstein": {"clip"},
    "objective/wasserstein_gp": {"interpolated"},
    "optimizer/muon": {"lr", "fallback_lr_scale", "fallback_output"},
    "optimizer/muon_batch32": {"lr", "fallback_lr_scale"},
    "transfer/fine_tuning": {"trunk"},
}


def options(group):
    """The choices of a group."""
    return sorted(file.stem for file in (CONF_DIR / group).glob("[!_]*.yaml"))


def targets(node):
    """This node and those below it, as far as they name a class or a function of this package."""
    if isinstance(node, DictConfig):
        if str(node.get("_target_")).startswith("transfergen."):
            yield node
        for key in node:
            if not OmegaConf.is_interpolation(node, key) and not OmegaConf.is_missing(node, key):
                yield from targets(node[key])


def arguments(node):
    """The parameters that a node of a config has to set, by name."""
    target = get_object(node._target_)
    parameters = dict(inspect.signature(target).parameters)
    if "settings" in parameters and parameters["settings"].kind is inspect.Parameter.VAR_KEYWORD:
        del parameters["settings"]  # a strategy hands these to its base class
        parameters |= inspect.signature(target.__mro__[1]).parameters
    partial = node.get("_partial_")  # the data module calls a source with path and split
    return {
        name: parameter
        for name, parameter in parameters.items()
        if name not in ("dataset", "save_dir")
        and not (partial and parameter.kind is not inspect.Parameter.KEYWORD_ONLY)
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_sets_all_arguments_of_its_target_to_their_defaults_but_for_what_it_is_there_for(choice):
    group, _, option = choice.partition("/")
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        content = compose(choice)[group]
    chosen = CHOSEN.get(choice, set()) | CHOSEN.get(group, set())
    for node in targets(content):
        expected = arguments(node)
        assert set(node) - {"_target_", "_partial_"} == set(expected)
        for name, parameter in expected.items():
            if name in chosen or OmegaConf.is_interpolation(node, name) or OmegaConf.is_missing(node, name):
                continue
            value = node[name]
            if parameter.default is not inspect.Parameter.empty and not isinstance(value, DictConfig):
                assert (tuple(value) if isinstance(value, ListConfig) else value) == parameter.default, name
    for file in ("_base.yaml", f"{option}.yaml"):
        if (CONF_DIR / group / file).exists() and "_target_" in content:
            order = list(arguments(content))
            names = [name for name in OmegaConf.load(CONF_DIR / group / file) if name in order]
            assert names == sorted(names, key=order.index), file


SIZES = {"biggan_deep": [128, 256, 512]}
"""The resolutions of generators that are not for 32 to 256 px."""


WITHOUT_CLASSES = ("dcgan", "fastgan", "vision_aided")
"""How the names of networks begin that cannot be told of classes."""


def with_classes(names):
    """Each network without classes and, if it can have them, with three."""
    return [(name, classes) for name in names for classes in ([0] if name.startswith(WITHOUT_CLASSES) else [0, 3])]


@pytest.mark.parametrize(
    ("generator", "classes", "resolution"),
    [
        (name, classes, resolution)
        for name, classes in with_classes(options("generator"))
        for resolution in SIZES.get(name, [32, 64, 128, 256])
    ],
)
def test_each_generator_is_built_and_makes_images_of_its_resolution(generator, classes, resolution):
    config = composed(f"generator={generator}", "generator.width=4", resolution=resolution)
    network = instantiate(config.generator, **narrow(config.generator, classes)).eval()
    images = network(torch.randn(2, network.z_dim), torch.tensor([0, 2]))
    assert images.shape == (2, 3, resolution, resolution) == (2, 3, network.resolution, network.resolution)
    assert images.abs().max() <= 1


DISCRIMINATORS = [name for name in options("discriminator") if name not in ("none", "projected_small")]
BACKBONES = [name for name in options("backbone") if name != "none"]
ON_A_BACKBONE = [
    name for name in DISCRIMINATORS if "backbone" in OmegaConf.load(CONF_DIR / f"discriminator/{name}.yaml")
]
SHALLOW = {
    "dino_vits16": ["taps=[0,1]", "input_size=32"],
    "dinov2_vits14": ["taps=[0,1]", "input_size=28"],
    "timm": ["taps=[2]"],
    "vgg19": ["arch=vgg11", "cut=relu2_1"],
    "vgg19_multiscale": ["arch=vgg11", "cut=relu2_1", "taps=[relu1_1]"],
    "efficientnet_lite0": ["taps=[1,2]"],
    "efficientnet_lite0_projected": ["taps=[1,2]", "input_size=null"],
}


def small(backbone, node):
    """Overrides that give a backbone random weights and few layers."""
    return [f"{node}.weights=random", *(f"{node}.{override}" for override in SHALLOW[backbone])]


@pytest.mark.parametrize(
    ("discriminator", "backbone", "resolution"),
    [  # each pair once, and with that each discriminator and each backbone at each resolution
        (discriminator, backbone, (32, 64, 128, 256)[(i + j) % 4])
        for i, discriminator in enumerate(ON_A_BACKBONE)
        for j, backbone in enumerate(BACKBONES)
    ],
)
def test_each_discriminator_is_built_on_each_backbone_and_scores_images(discriminator, backbone, resolution):
    config = composed(
        f"discriminator={discriminator}",
        f"backbone={backbone}",
        *small(backbone, "backbone"),
        resolution=resolution,
    )
    network = instantiate(config.discriminator)
    images = torch.rand(2, 3, resolution, resolution) * 2 - 1
    (trunk,) = network.backbones
    for feature_map, channels in zip(trunk(images), trunk.channels, strict=True):
        assert feature_map.shape[:2] == (2, channels)
    assert_logits(network(images))


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
@pytest.mark.parametrize(("discriminator", "classes"), with_classes(sorted(set(DISCRIMINATORS) - set(ON_A_BACKBONE))))
def test_each_other_discriminator_does_without_the_backbone_and_scores_images(discriminator, classes, resolution):
    config = composed(
        *(f"discriminator={discriminator}", "backbone=none"),
        *(
            override
            for name in composed(f"discriminator={discriminator}").discriminator.get("backbones", {})
            for override in small(name, f"discriminator.backbones.{name}")
        ),
        resolution=resolution,
    )
    network = instantiate(config.discriminator, **narrow(config.discriminator, classes))
    images, y = torch.rand(2, 3, resolution, resolution) * 2 - 1, torch.tensor([0, 2])
    assert_logits(network(images, y))
    while network.grows_at < math.inf:
        network.grow(images, -images)
        assert_logits(network(images, y))


def narrow(node, classes):
    """Arguments of a network that is told of so many classes, as narrow as it can be."""
    return {key: value for key, value in {"num_classes": classes, "width": 8}.items() if key in node}


def assert_logits(logits):
    assert logits.ndim == 2
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("model", ["_recipe", *options("model")])
def test_each_model_selects_and_sets_nothing_of_what_it_selects(model):
    content = OmegaConf.load(CONF_DIR / "model" / f"{model}.yaml")
    assert set(content) <= {"defaults", "data", "ema", "lr_decay", "max_images"}
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        chosen = compose("train", [f"model={model}"], return_hydra_config=True).hydra.runtime.choices
    for default in (default for default in content.defaults if default != "_recipe"):
        (group, option), *_ = default.items()
        assert chosen[group.removeprefix("override /")] == option


def test_the_projected_model_has_the_settings_of_the_release():
    """Read in its train.py, networks_fastgan.py, discriminator.py, projector.py and diffaug.py."""
    config = composed("model=projected")
    assert (config.data.batch_size, config.ema.halflife_images, config.ema.rampup) == (64, 64 * 10_000 / 32, 0.05)
    assert (config.backbone.name, config.backbone.input_size) == ("tf_efficientnet_lite0", 224)
    assert TimmBackbone(name=config.backbone.name, taps=config.backbone.taps, weights="random").strides == (
        4,
        8,
        16,
        32,
    )
    expected = {
        "generator": {"z_dim": 256, "width": 128, "second_convolutions": True, "hypersphere": True, "bounded": False},
        "discriminator": {"channels": 64, "width": None, "enlarge": True, "mix_scales": True}
        | {"standardize_features": False, "joint_batchnorm": False},
        "augment": {"colour": 1.0, "translation": 0.125, "cutout": 0.2, "flip": False, "p": 1.0},
    }
    for group, settings in expected.items():
        assert {name: config[group][name] for name in settings} == settings
    for player in ("generator", "discriminator"):
        assert config.optimizer[player]._target_ == "torch.optim.Adam"
        assert (config.optimizer[player].lr, config.optimizer[player].betas) == (2e-4, [0.0, 0.99])
    assert config.objective._target_.endswith(".hinge")
    assert config.lr_decay.start_images is None


@pytest.mark.parametrize("model", ["wgan", "wgan_gp"])
def test_wasserstein_models_have_the_batches_of_their_papers(model):
    config = composed(f"model={model}")
    assert (config.data.batch_size, config.optimizer.d_steps) == (64, 5)
    if model == "wgan_gp":
        generator_updates = config.lr_decay.end_images / (config.data.batch_size * config.optimizer.d_steps)
        assert (config.lr_decay.final_factor, generator_updates) == (0.0, 100_000)


@pytest.mark.parametrize("preset", ["cifar10", "few_shot", "small", "large"])
def test_presets_keep_the_small_heads_and_whole_images(preset):
    config = composed(f"experiment={preset}")
    heads = {"channels": 64, "width": 64, "enlarge": False, "standardize_features": True, "joint_batchnorm": True}
    assert {name: config.discriminator[name] for name in heads} == heads
    assert (config.augment.cutout, config.backbone.input_size) == (0.0, None)


def test_networks_of_vision_aided_are_chosen_by_name():
    config = composed(
        "model=vision_aided",
        "discriminator.backbones.vgg19=null",
        "+backbone@discriminator.backbones.r18=timm",
        "+backbone@discriminator.backbones.dino=dino_vits16",
        *(f"discriminator.backbones.{name}.weights=random" for name in ("r18", "dino")),
        *(f"discriminator.backbones.dino.{override}" for override in SHALLOW["dino_vits16"]),
        "discriminator.ordinary.width=4",
        "data.resolution=32",
    )
    network = instantiate(config.discriminator)
    assert list(network.judges) == ["efficientnet_lite0", "r18", "dino"]
    assert network.ordinary.layers[0].out_channels == 4
    config = composed("model=vision_aided", "backbone@discriminator.backbones.vgg19=vgg19_multiscale")
    assert config.discriminator.backbones.vgg19.cut == "relu4_4"


def test_scales_of_the_projected_discriminator_are_the_backbones_taps():
    config = composed(
        *("model=projected", "backbone=vgg19_multiscale", "backbone.cut=relu3_4", "backbone.taps=[relu1_2,relu2_2]"),
        *("backbone.weights=random", "data.resolution=32"),
    )
    network = instantiate(config.discriminator)
    assert [mix.in_channels for mix in network.mix_channels] == [64, 128, 256]
    assert len(network.heads) == 3


@pytest.mark.parametrize("experiment", options("experiment"))
def test_each_experiment_composes_and_the_command_line_wins(experiment):
    config = composed(f"experiment={experiment}", "data.batch_size=10", "transfer=fine_tuning", "augment=none")
    assert config.data.batch_size == 10
    assert config.transfer.trunk == "trainable"
    assert instantiate(config.augment).is_identity
    mirrored = instantiate(composed(f"experiment={experiment}", "augment=flip").augment)
    assert (mirrored.flip, mirrored.colour, mirrored.translation, mirrored.cutout) == (True, 0, 0, 0)


def test_model_selects_and_a_swapped_backbone_inherits_nothing():
    config = composed("model=vgg_disc", "backbone=efficientnet_lite0")
    assert config.backbone.name == "tf_efficientnet_lite0"
    assert config.discriminator.backbone == config.backbone
    assert "cut" not in config.backbone
    assert composed("model=vgg_disc", "backbone.cut=relu3_4", "transfer=fine_tuning").backbone.cut == "relu3_4"


def test_a_setting_that_a_strategy_and_its_base_do_not_have_is_refused_by_its_key():
    options = ["transfer=domain_adaptation", "transfer.source=x", "transfer.consistency=0", "transfer.last_k=2"]
    assert instantiate(composed(*options, "backbone=none").transfer).last_k == 2
    with pytest.raises(ValueError, match=r"^transfer\.output: DomainAdaptation has no such setting"):
        instantiate(composed(*options, "backbone=none", "+transfer.output=1").transfer)


def test_tutorial_has_the_settings_of_the_textbook():
    config = composed("experiment=tutorial")
    assert (config.data.batch_size, config.data.resolution, config.trainer.max_epochs) == (128, 64, 200)
    assert (config.backbone.cut, config.generator.z_dim, config.objective.saturating) == ("pool4", 100, False)
    assert (config.transfer.trunk, config.ema.halflife_images) == ("trainable", 0)
    assert instantiate(config.augment).is_identity
    assert config.optimizer.d_steps == 1
    for optimizer in (config.optimizer.discriminator, config.optimizer.generator):
        assert (optimizer._target_, optimizer.lr, list(optimizer.betas)) == ("torch.optim.Adam", 2e-4, [0.5, 0.999])


RANDOM_TRUNK = ["backbone.weights=random"]


@pytest.mark.parametrize(
    ("overrides", "node", "message"),
    [
        (["backbone.cut=pool9"], "discriminator", "backbone.cut=pool9: vgg19 has no such layer"),
        (
            ["model=vision_aided", "discriminator.backbones.vgg19.cut=pool9"],
            "discriminator.backbones",
            "discriminator.backbones.vgg19.cut=pool9: vgg19 has no such layer",
        ),
        (["backbone=none"], "discriminator", "backbone=none: "),
        (
            [*RANDOM_TRUNK, "backbone.cut=pool5", "data.resolution=32"],
            "discriminator",
            "data.resolution=32: the backbone's tap of stride 32",
        ),
        (["data.resolution=48"], "generator", "data.resolution=48: choose 32"),
        (["generator.resolution=48"], "generator", "generator.resolution=48: choose 32"),
        (["model=vision_aided", "data.resolution=48"], "discriminator.ordinary", "data.resolution=48: choose 32"),
        (
            ["model=vision_aided", "discriminator.ordinary.norm=group"],
            "discriminator.ordinary",
            "discriminator.ordinary.norm=group: choose one of batch, layer, none",
        ),
        (
            ["objective=hinge", "objective.penalty.r1=-1"],
            "objective",
            "objective.penalty.r1=-1: choose a number, 0 or more",
        ),
        (["objective=vae_gan", "objective.game=null"], "objective", "objective.adversarial=0.1: must be 0 unless"),
        (["metrics=inception", "metrics.weights=nowhere.pth"], "metrics", "metrics.weights=nowhere.pth: there is no"),
        (["transfer.trunk=molten"], "transfer", "transfer.trunk=molten: choose"),
        (
            ["+discriminator.layers=3"],
            "discriminator",
            "discriminator.layers: VGGDiscriminator has no such setting; take it out with "
            "~discriminator.layers, or choose another discriminator",
        ),
        (["+transfer.colour=red"], "transfer", "transfer.colour: Strategy has no such setting"),
        (
            [
                "transfer=domain_adaptation",
                "transfer={source: x, consistency: 0, backbone: null}",
                "+transfer.colour=red",
            ],
            "transfer",
            "transfer.colour: DomainAdaptation has no such setting",
        ),
        (["generator.width=wide"], "generator", "generator.width=wide: choose a whole number"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_an_error_begins_with_the_override_that_sets_the_argument(overrides, node, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        instantiate(OmegaConf.select(composed(*overrides), node))


def test_an_error_keeps_its_type_and_without_a_config_its_words():
    target = "transfergen.networks.backbones.vgg.VGG"
    with pytest.raises(WeightsError, match=r"^weights=nowhere\.pth: there is no such file"):
        instantiate({"_target_": target, "cut": "pool1", "weights": "nowhere.pth"})


def test_given_arguments_replace_those_of_the_config_which_are_not_built():
    config = OmegaConf.create({"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 48, "width": 4})
    assert instantiate(config, resolution=32).resolution == 32


def test_resumed_config_is_the_saved_one_with_this_command_lines_overrides():
    saved = OmegaConf.create({"trainer": {"max_epochs": 1, "devices": 1}, "data": {"path": "old"}, "seed": 5})
    fresh = OmegaConf.create({"trainer": {"max_epochs": 9, "devices": 2}, "data": {"path": "new"}, "seed": 0})
    choices = OmegaConf.create({"model": "dcgan", "experiment": None})
    overrides = ["resume=there", "model=dcgan", "trainer.max_epochs=9", "data=other"]
    config = resume_config(saved, choices, fresh, overrides)
    assert config == {"trainer": {"max_epochs": 9, "devices": 1}, "data": {"path": "new"}, "seed": 5}
    with pytest.raises(ValueError, match="keeps its model"):
        resume_config(saved, choices, fresh, ["model=vgg_disc"])
    assert "path" not in resume_config(saved, choices, fresh, ["~data.path"]).data
    for override in ("~data.cache_dir", "~logger.csv", "~logger"):
        with pytest.raises(ValueError, match=f"^{override}: the run has no such key; leave it out"):
            resume_config(saved, choices, fresh, [override])


@pytest.mark.parametrize("experiment", ["tutorial", "distill"])
def test_an_experiment_with_a_recipe_of_its_own_takes_nothing_from_the_default_models(experiment):
    config = composed(f"experiment={experiment}", *(["transfer.teacher=x"] if experiment == "distill" else []))
    assert (config.data.batch_size, config.lr_decay.start_images) == (128, None)
    assert instantiate(config.augment).is_identity
    assert config.optimizer.generator._target_ == "torch.optim.Adam"
