"""Every setting of every command has a type and a range, which are checked before any work."""

import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, check
from transfergen.settings import RANGES, TAKEN_BY, TYPES

COMMANDS = ("train", "check", "generate", "evaluate", "export", "explore", "report")
CHECKED_BY_THE_COMMAND = {"format"}
TRAININGS = [
    *(
        [f"{file.parent.name}={file.stem}"]
        for group in ("model", "experiment")
        for file in (CONF_DIR / group).glob("*")
    ),
    *(
        [f"{group}={file.stem}"]
        for group in ("data", "transfer", "logger", "metrics", "trainer", "augment", "init_from")
        for file in (CONF_DIR / group).glob("[!_]*")
    ),
]
NEEDED = {
    "experiment=distill": ["transfer.teacher=x"],
    "transfer=distillation": ["transfer.teacher=x"],
    "transfer=domain_adaptation": ["transfer.source=x"],
}
SEEDS = "choose a list, as in [a,b], each a whole number, 0 to 4294967295"
CLASSES = (
    "choose a list, as in [a,b], each a whole number or text or a mapping, as in {a: b}, from a whole number or text "
    "to a number"
)
OF_ANOTHER_CHOICE = {
    "metrics.size": "metrics=pixels",
    "objective.clip": "objective=wasserstein",
    "objective.beta": "objective=elbo",
    "objective.sigma": "objective=elbo",
}


def composed(command, *overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        pictures = ["data=image_folder", "data.path=x"] if command == "check" else []
        return compose(command, overrides=[*pictures, *overrides])


@pytest.fixture(scope="module")
def configs():
    return {name: composed(name) for name in COMMANDS}


@pytest.mark.parametrize("overrides", TRAININGS, ids=lambda overrides: overrides[0])
def test_each_choice_as_it_is_passes(overrides):
    path = [] if overrides[0] == "data=shapes" else ["data.path=x"]
    check(composed("train", *overrides, *path, *NEEDED.get(overrides[0], [])))


def test_the_settings_of_each_command_as_they_are_pass(configs):
    for config in configs.values():
        check(config)


def test_each_setting_without_a_target_has_a_type(configs):
    def untyped(node, prefix=""):
        for name, value in node.items_ex(resolve=False):
            key = f"{prefix}{name}"
            if isinstance(value, DictConfig) and "_target_" not in value and name not in TAKEN_BY:
                yield from untyped(value, f"{key}.")
            elif not isinstance(value, DictConfig) and key not in TYPES | dict.fromkeys(CHECKED_BY_THE_COMMAND):
                yield key

    for config in [*configs.values(), composed("train", "experiment=sweep", "init_from=pytorch_dcgan")]:
        assert list(untyped(config)) == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("max_images=abc", "choose a whole number or null, 1 or more"),
        ("max_images=1e3", "choose a whole number or null, 1 or more"),
        ("samples.count=4.5", "choose a whole number, 1 or more"),
        ("samples.every_images=0", "choose a whole number, 1 or more"),
        ("evaluation.every_images=0", "choose a whole number or null, 1 or more"),
        ("evaluation.count=1", "choose a whole number, 2 or more"),
        ("checkpoint_every_images=0", "choose a whole number, 1 or more"),
        ("lr_decay.final_factor=2", "choose a number, 0 to 1"),
        ("generator.width=0", "choose a whole number, 1 or more"),
        ("generator.z_dim=0", "choose a whole number, 1 or more"),
        ("generator.width=true", "choose a whole number, 1 or more"),
        ("optimizer.generator.lr=-1", "choose a number, 0 or more"),
        ("optimizer.generator.lr=nan", "choose a number, 0 or more"),
        ("optimizer.generator.lr=fast", "choose a number, 0 or more"),
        ("optimizer.discriminator.betas=[0.5]", "choose a list, as in [a,b], each a number, 0 to below 1"),
        ("optimizer.discriminator.betas=[0.5,1]", "choose a list, as in [a,b], each a number, 0 to below 1"),
        ("optimizer.generator=5", "choose one of its group's options"),
        ("optimizer.d_steps=1.5", "choose a whole number, 1 or more"),
        ("optimizer.simultaneous=1", "choose true or false"),
        ("ema.halflife_images=-1", "choose a number, 0 or more"),
        ("seed=-1", "choose a whole number, 0 to 4294967295"),
        ("channels_last=no_way", "choose true or false"),
        ("data.num_workers=-1", "choose a whole number, 0 or more"),
        ("data.batch_size=1", "choose a whole number, 2 or more"),
        ("data.classes=cat", "choose a list, as in [a,b], each text or a whole number or null"),
        ("data.max_images=0", "choose a whole number or null, 1 or more"),
        ("data.fit=oval", "choose one of crop, pad, stretch"),
        ("data.damaged=mend", "choose one of error, skip"),
        ("objective.penalty.r1=-1", "choose a number, 0 or more"),
        ("objective.penalty.every=0", "choose a whole number, 1 or more"),
        ("objective.clip=0", "choose a number or null, above 0"),
        ("objective.beta=-1", "choose a number, 0 or more"),
        ("objective.sigma=0.0", "choose a number or null, above 0"),
        ("backbone.taps=relu3_4", "choose a list, as in [a,b], each text"),
        ("discriminator.backbone=vgg19", "choose one of its group's options"),
        ("transfer.trunk=molten", "choose one of frozen, trainable, last_k, gradual"),
        ("transfer.last_k=0", "choose a whole number, 1 or more"),
        ("transfer.trunk_lr_scale=0", "choose a number, above 0"),
        ("transfer.freeze_d=-1", "choose a whole number, 0 or more"),
        ("augment.p=2", "choose a number, 0 to 1"),
        ("augment.cutout=-0.5", "choose a number, 0 to 1"),
        ("init_from.keys=[a]", "choose a list, as in [a,b], each a mapping, as in {a: b}, from text to text"),
        ("logger.csv=null", "choose one of its group's options"),
        ("trainer.limit_train_batches=0", "choose a number or a whole number or null, above 0"),
        ("trainer.max_epochs=1.5", "choose a whole number or null, -1 or more"),
        ("trainer.max_time=5", "choose text or null"),
        ("trainer.threads=0", "choose a whole number or one of auto, 1 or more"),
        ("check data.path=null", "choose text"),
        ("check data.source.holdout=0", "choose a number, between 0 and 1"),
        ("check data.source.holdout=1", "choose a number, between 0 and 1"),
        ("generate num=1.5", "choose a whole number, 1 or more"),
        ("generate seeds=5", SEEDS),
        ("generate truncation=0", "choose a number or null, above 0"),
        ("generate classes=3", CLASSES),
        ('generate classes=[{"cat":"dog"}]', CLASSES),
        ("generate block=0", "choose a whole number or null, 1 or more"),
        ("generate interpolate=[3,-1]", SEEDS.replace("number,", "number or text,")),
        ("generate interpolate=[0.5]", SEEDS.replace("number,", "number or text,")),
        ("generate coarse=[a]", SEEDS),
        ("generate coarse=[4294967296]", SEEDS),
        ("generate checkpoint=worst", "choose one of last, best or a whole number, 1 or more"),
        ("generate checkpoint=0", "choose one of last, best or a whole number, 1 or more"),
        ("evaluate count=1", "choose a whole number, 2 or more"),
        ("evaluate split=holdout", "choose one of train, test"),
        ("evaluate data.fit=oval", "choose one of crop, pad, stretch, null"),
        ("evaluate metrics.size=a", "choose a whole number, 1 or more"),
        ("evaluate metrics.interpolation=nearest", "choose one of bicubic, bilinear"),
        ("export out=[a]", "choose text or null"),
        ("explore port=99999", "choose a whole number, 1 to 65535"),
        ("explore browser=firefox", "choose true or false"),
        ("report runs=a", "choose a list, as in [a,b], each text"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused_with_its_key(configs, override, words):
    command, _, setting = override.rpartition(" ")
    key, _, value = setting.partition("=")
    config = configs[command or "train"].copy()
    if key in OF_ANOTHER_CHOICE:
        config = composed("train", OF_ANOTHER_CHOICE[key])
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, OmegaConf.from_dotlist([f"x={value}"]).x)
    with pytest.raises(ValueError, match=rf"^{re.escape(key)}=.*: {re.escape(words)}$"):
        check(config)


def test_an_error_names_the_key_that_an_interpolation_takes_its_value_from(configs):
    config = configs["train"].copy()
    config.data.resolution = "large"
    with pytest.raises(ValueError, match=r"^data\.resolution=large: choose a whole number"):
        check(config)


def test_null_classes_are_those_of_the_data(configs):
    config = configs["train"].copy()
    OmegaConf.update(config, "data.num_classes", None)
    check(config)


def test_the_table_of_ranges_names_only_settings_that_there_are(configs):
    def names(node, prefix=""):
        if isinstance(node, DictConfig):
            for name, value in node.items_ex(resolve=False):
                yield from (str(name), f"{prefix}{name}")
                yield from names(value, f"{prefix}{name}.")

    known = {name for config in configs.values() for name in names(config)}
    known |= {name for file in CONF_DIR.rglob("*.yaml") for name in names(OmegaConf.load(file), f"{file.parent.name}.")}
    assert {*RANGES, *TYPES} - known <= {"weight_decay", "max_steps"}  # of torch.optim and Lightning
