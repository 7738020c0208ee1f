"""Every combination of groups that makes sense takes a step, and every model does on two ranks."""

import json
from unittest import mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from ranks import on_two_ranks
from runs import ANY_MODEL, SMALL_MODELS, train, vgg11

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR, instantiate
from transfergen.networks.generators.base import sample
from transfergen.runs.generator_files import load_generator, save_generator
from transfergen.training import fit
from transfergen.training.base_module import GenerativeModule
from transfergen.training.build import build_module, set_num_classes
from transfergen.training.trainer import build_trainer
from transfergen.transfer import ewc


def options(group, *without):
    return sorted({file.stem for file in (CONF_DIR / group).glob("[!_]*.yaml")} - set(without))


GENERATORS = options("generator", "biggan_deep")  # whose images have 128 px at least
DISCRIMINATORS = options("discriminator", "none", "projected_small")
OBJECTIVES = options("objective", "elbo", "vae_gan")
OPTIMIZERS = options("optimizer")
TRANSFERS = options("transfer")
AUGMENTS = options("augment")
CONDITIONAL = ("sagan", "biggan")
OF_GENERATORS = {"biggan": ["generator.z_dim=8", "generator.class_dim=4"]}
OF_DISCRIMINATORS = {
    "vgg": ["discriminator.hidden=8"],
    "single_head": ["discriminator.hidden=16"],
    "projected": ["discriminator.channels=4", "discriminator.width=4"],
    "vision_aided": SMALL_MODELS["vision_aided"][1:],
}
TRUNK = ["backbone=vgg19_multiscale", *vgg11("backbone")]


def combinations():
    """Each discriminator with each objective, in one row; the others take turns along it.

    There are about as many objectives as choices of anything else, so that each discriminator meets most of those too.
    """
    rows = [(d, o) for d in DISCRIMINATORS for o in OBJECTIVES]
    for i, (discriminator, objective) in enumerate(rows):
        augment = AUGMENTS[(i + i // 4) % len(AUGMENTS)]
        if augment == "adaptive" and objective in (
            "wasserstein",
            "wasserstein_gp",
            "relativistic",
            "rpgan",
            "rpgan_drift",
        ):
            augment = "none"  # refused: their logits have no boundary
        transfer = TRANSFERS[i % len(TRANSFERS)]
        if transfer == "fine_tuning" and discriminator in ("projected", "vision_aided"):
            transfer = "feature_extraction"  # refused: their trunks stay frozen
        generator, optimizer = GENERATORS[i % len(GENERATORS)], OPTIMIZERS[(i + i // 6) % len(OPTIMIZERS)]
        # Neighbours differ, along a discriminator's objectives and along an objective's discriminators.
        turns = ("alternating", "simultaneous")[(i + i // len(OBJECTIVES) * (len(OBJECTIVES) + 1)) % 2]
        yield generator, discriminator, objective, optimizer, transfer, augment, turns


@pytest.fixture
def _few_images(monkeypatch):
    """The Fisher information of `transfer=domain_adaptation` is that of one batch, not of 32."""
    monkeypatch.setattr(ewc, "BATCHES", 1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A run directory with a generator of the same config: a teacher, or a source."""
    folder = tmp_path_factory.mktemp("sources")

    def of(config):
        plain = OmegaConf.to_container(config.generator, resolve=True)
        path = folder / str(abs(hash(json.dumps(plain))))
        if not path.exists():
            save_generator(path, instantiate(plain), plain, ema=True, images_seen=1)
        return path

    return of


def composed(*overrides):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=[*ANY_MODEL, "data.source.train=8", *overrides])


@pytest.mark.usefixtures("_few_images")
@pytest.mark.parametrize("combination", list(combinations()), ids="-".join)
def test_combination_takes_a_step_and_its_generator_is_saved_and_loaded(combination, sources, tmp_path):
    generator, discriminator, objective, optimizer, transfer, augment, turns = combination
    network = ["discriminator.width=4"] if discriminator not in ("single_head", "stylegan_t", "vision_aided") else []
    overrides = [
        f"generator={generator}",
        f"discriminator={discriminator}",
        *TRUNK,
        *OF_GENERATORS.get(generator, []),
        *OF_DISCRIMINATORS.get(discriminator, []),
        *network,
        f"objective={objective}",
        f"optimizer={optimizer}",
        "optimizer.d_steps=1",
        f"optimizer.simultaneous={turns == 'simultaneous'}",
        f"transfer={transfer}",
        f"augment={augment}",
    ]
    told = generator in CONDITIONAL and discriminator in (*CONDITIONAL, "projected")
    overrides.append("discriminator.num_classes=null" if told else "data.num_classes=0")
    if transfer == "domain_adaptation":
        overrides += [f"transfer.{term}=1" for term in ("mmd", "coral", "reversal", "ewc")]
    config = composed(*overrides)
    data = instantiate(config.data)
    data.setup()
    set_num_classes(config, data.class_count)
    for key in {"teacher", "source"} & set(config.transfer):
        config.transfer[key] = str(sources(config))
    module = build_module(config)
    before = [p.clone() for p in module.generator.parameters()]
    build_trainer(run_dir=tmp_path, callbacks=[], **{**config.trainer, "max_epochs": 1}).fit(module, data)
    assert module.images_seen == 8
    assert all(p.isfinite().all() for p in module.parameters())
    assert any(not torch.equal(p, q) for p, q in zip(before, module.generator.parameters(), strict=True))
    plain = OmegaConf.to_container(config.generator, resolve=True)
    save_generator(tmp_path, module.ema_generator, plain, ema=True, images_seen=8)
    again = sample(load_generator(tmp_path), range(2), "cpu")
    torch.testing.assert_close(again, sample(module.ema_generator, range(2), "cpu"), atol=1e-5, rtol=1e-5)


STRATEGIES = {
    "distillation": [*SMALL_MODELS["dcgan"], *TRUNK, "transfer=distillation"],
    "domain_adaptation": [
        *SMALL_MODELS["dcgan"],
        *TRUNK,
        "transfer=domain_adaptation",
        *(f"transfer.{term}=1" for term in ("mmd", "coral", "reversal", "ewc")),
    ],
    "r1": [*SMALL_MODELS["projected"], "objective.penalty.r1=1"],
    "simultaneous": [*SMALL_MODELS["projected"], "optimizer.simultaneous=true", "optimizer.extrapolation=1"],
}


def trained(rank, folder, configs):
    """The sums of all weights after the training of each config on this rank."""
    sums, end = {}, GenerativeModule.on_train_end

    def on_train_end(module):
        sums[module.trainer.default_root_dir] = [float(p.double().abs().sum()) for p in module.parameters()]
        end(module)

    few_images = mock.patch.object(ewc, "BATCHES", 1)
    with few_images, mock.patch.object(GenerativeModule, "on_train_end", on_train_end):
        for name, config in configs.items():
            (folder / name).mkdir(exist_ok=True)
            fit.train(OmegaConf.create(config), folder / name)
    return sums


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of every model's training on each of two ranks, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("ranks")
    source = folder / "source"
    code, _, err = train(source, *ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=8", small=False)
    assert code == 0, err
    strategies = {name: list(options) for name, options in STRATEGIES.items()}
    strategies["distillation"].append(f"transfer.teacher={source}")
    strategies["domain_adaptation"].append(f"transfer.source={source}")
    two_steps = ["trainer.devices=2", "optimizer.d_steps=1", "max_images=16"]
    configs = {
        name: OmegaConf.to_container(composed(*options, *two_steps), resolve=True)
        for name, options in (SMALL_MODELS | strategies).items()
    }
    return on_two_ranks(folder, trained, folder, configs, joined=False), folder


@pytest.mark.parametrize("model", [*SMALL_MODELS, *STRATEGIES])
def test_model_trains_on_two_ranks_to_the_same_weights_and_its_generator_loads(both, model):
    (first, second), folder = both
    assert first[str(folder / model)] == second[str(folder / model)]
    images = sample(load_generator(folder / model), range(2), "cpu")
    assert images.isfinite().all()
