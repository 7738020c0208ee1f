"""Two processes on one CPU, over gloo."""

from unittest import mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from lightning import LightningModule
from omegaconf import OmegaConf
from ranks import on_two_ranks
from runs import ANY_MODEL, SMALL, SMALL_MODELS
from torch import nn

import transfergen.commands.train  # noqa: F401  registers the resolver of the run directory
from transfergen.config import CONF_DIR
from transfergen.networks.layers.sync_batchnorm import SyncBatchNorm2d
from transfergen.training import fit
from transfergen.training.gan_module import GAN
from transfergen.training.trainer import build_trainer

OPTIONS = {
    "feature_extraction": SMALL,
    "fine_tuning": [*SMALL, "transfer=fine_tuning"],
    "gradual": [
        *SMALL,
        "transfer=fine_tuning",
        "transfer.trunk=gradual",
        "transfer.generator=gradual",
        "transfer.unfreeze_every_images=16",
    ],
    "vision_aided": [
        *ANY_MODEL,
        *SMALL_MODELS["vision_aided"],
        "discriminator.start_images=16",
        "discriminator.every_images=16",
        "augment=adaptive",
    ],
}


def trained(rank, folder, configs):
    """The images that this rank has seen in an epoch with each of the configs, and its weights after it."""
    return {name: epoch(folder / name / "run", config) for name, config in configs.items()}


def epoch(run_dir, config):
    run_dir.mkdir(parents=True, exist_ok=True)
    found, seen, end, step = {}, [], GAN.on_train_end, GAN.training_step

    def training_step(module, batch, batch_idx):
        result = step(module, batch, batch_idx)
        seen.append(batch.indices.tolist())
        return result

    def on_train_end(module):
        found["weights"] = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        found["noise"] = module._randomness.latents(2, 3)
        found["joined"] = getattr(module.discriminator, "joined", [])
        end(module)

    with mock.patch.multiple(GAN, training_step=training_step, on_train_end=on_train_end):
        fit.train(OmegaConf.create(config), run_dir)
    return found | {"seen": seen}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The results of `trained` on each of two ranks, and the folder of their runs."""
    folder = tmp_path_factory.mktemp("ranks")
    one_epoch = ["trainer.max_epochs=1", "trainer.devices=2"]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        configs = {
            name: OmegaConf.to_container(compose("train", overrides=[*overrides, *one_epoch]), resolve=True)
            for name, overrides in OPTIONS.items()
        }
    return on_two_ranks(folder, trained, folder, configs, joined=False), folder


@pytest.fixture(params=OPTIONS)
def ranks(request, both):
    """The results of one config on each of two ranks, and the run directory."""
    found, folder = both
    return [rank[request.param] for rank in found], folder / request.param / "run"


def test_weights_are_bit_identical(ranks):
    (a, b), _ = ranks
    for name, tensor in a["weights"].items():
        assert torch.equal(tensor, b["weights"][name]), name
    assert a["joined"] == b["joined"]


def test_data_is_split_and_noise_differs(ranks):
    (a, b), _ = ranks
    for ours, theirs in zip(a["seen"], b["seen"], strict=True):
        assert len(ours) == len(theirs) == 4
        assert not set(ours) & set(theirs)
    both = [i for rank in (a, b) for batch in rank["seen"] for i in batch]
    assert sorted(both) == list(range(64))
    assert not torch.equal(a["noise"], b["noise"])


def test_one_run_directory_counts_the_images_of_both(ranks):
    _, run_dir = ranks
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["transfergen"]["images_seen"] == 64
    assert len(state["transfergen"]["rng"]) == 2
    assert [entry.name for entry in run_dir.parent.iterdir() if entry.is_dir()] == ["run"]
    assert (run_dir / "grid.png").exists()


@pytest.mark.parametrize("sync_batchnorm", [True, False])
def test_batch_normalisation_sees_all_ranks_unless_it_is_turned_off(tmp_path, sync_batchnorm):
    given = {"run_dir": tmp_path, "callbacks": [], "accelerator": "cpu", "devices": 2}
    trainer = build_trainer(**given, sync_batchnorm=sync_batchnorm)
    module = LightningModule()
    module.norm = nn.BatchNorm2d(1)
    for callback in trainer.callbacks:
        callback.setup(trainer, module, stage="fit")
    assert isinstance(module.norm, SyncBatchNorm2d) == sync_batchnorm


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_each_turn_may_leave_the_other_networks_weights_unused(tmp_path, strategy):
    trainer = build_trainer(run_dir=tmp_path, callbacks=[], accelerator="cpu", devices=2, strategy=strategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]
