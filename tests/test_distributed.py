"""Two processes on one CPU, over gloo."""

import json

import pytest
import torch
from runs import ANY_MODEL, SMALL, SMALL_MODELS, command

from transfergen.training.trainer import SyncBatchNorm, build_trainer

LIST_RANKS = """
import json, sys, torch
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
import transfergen.commands.train
from transfergen.config import CONF_DIR
from transfergen.training.fit import train
from transfergen.training.gan_module import GAN

end, step = GAN.on_train_end, GAN.training_step
seen = []

def training_step(self, batch, batch_idx):
    result = step(self, batch, batch_idx)
    seen.append(batch.indices)
    return result

def on_train_end(self):
    state = dict(self.named_parameters())
    torch.save({"weights": state, "seen": [i.tolist() for i in seen], "noise": self._randomness.latents(2, 3),
                "joined": getattr(self.discriminator, "joined", [])}, run_dir.parent / f"rank{self.global_rank}.pt")
    seen.clear()
    end(self)

GAN.training_step, GAN.on_train_end = training_step, on_train_end
for name, overrides in json.loads(sys.argv[1]).items():
    run_dir = Path(sys.argv[2]) / name / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=[*overrides, "trainer.max_epochs=1", "trainer.devices=2"])
    train(OmegaConf.create(OmegaConf.to_container(config, resolve=True)), run_dir)
"""


OPTIONS = {
    "feature_extraction": SMALL,
    "fine_tuning": [*SMALL, "transfer=fine_tuning"],
    "gradual": [*SMALL, "transfer=fine_tuning", "transfer.trunk=gradual", "transfer.unfreeze_every_images=16"],
    "vision_aided": [
        *ANY_MODEL,
        *SMALL_MODELS["vision_aided"],
        "discriminator.start_images=16",
        "discriminator.every_images=16",
        "augment=adaptive",
    ],
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the trainings with all options, one after the other in one pair of processes."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "pair.py"
    script.write_text(LIST_RANKS)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = command(None, json.dumps(OPTIONS), str(folder), script=launcher, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(params=OPTIONS)
def ranks(request, trained):
    """What each of two ranks has seen and become after an epoch, and the run directory."""
    folder = trained / request.param
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)], folder / "run"


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
    assert isinstance(trainer.strategy._layer_sync, SyncBatchNorm) == sync_batchnorm


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_each_turn_may_leave_the_other_networks_weights_unused(tmp_path, strategy):
    trainer = build_trainer(run_dir=tmp_path, callbacks=[], accelerator="cpu", devices=2, strategy=strategy)
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]
