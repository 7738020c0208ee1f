"""Jobs of a cluster on this machine: submitit's local executor, and two nodes in two network namespaces."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import ANY_MODEL, ROOT, SMALL_MODELS, train

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "evaluation.count=16"]
ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def processes(words):
    """Process numbers whose command line has all of these."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(folder.name))
    return found


def writes(pid, folder):
    """Whether a process has a file of a folder open."""
    return any(folder in file.resolve().parents for file in Path(f"/proc/{pid}/fd").iterdir())


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_slurm_config_composes_and_asks_to_be_queued_again():
    code, shown, err = train(None, "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "--cfg=hydra", small=False)
    assert code == 0, err
    for line in ("partition: gpu", "signal_delay_s: 120", "max_num_timeout: 20", "submitit_launcher.SlurmLauncher"):
        assert line in shown


@pytest.mark.faults
def test_each_training_of_a_sweep_is_a_job_and_a_preempted_one_goes_on(tmp_path):
    images = 4_000
    arguments = [
        "-m",
        "hydra/launcher=submitit_local",
        f"hydra.sweep.dir={tmp_path}",
        "optimizer.generator.lr=1e-4,2e-4",
    ]
    launch = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments, *SMALL, f"max_images={images}", "trainer.max_epochs=-1"],
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: [f for f in tmp_path.glob("0/csv/*/metrics.csv") if f.stat().st_size > 500])
    (preempted,) = (pid for pid in processes(["submitit.core._submit", str(tmp_path)]) if writes(pid, tmp_path / "0"))
    os.kill(preempted, signal.SIGUSR2)  # the other may not listen yet
    out, err = launch.communicate(timeout=200)
    assert launch.returncode == 0, err
    assert f"best: {tmp_path}" in out
    for trial in "01":
        assert json.loads((tmp_path / trial / "metrics.json").read_text())["images_seen"] == images
    assert len(list(tmp_path.glob("0/csv/*"))) == 2  # it was cut short once


@pytest.fixture
def nodes():
    """Two network namespaces with a cable between them: (name, address) of each."""
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("network namespaces need iproute2 and root")
    names = [f"transfergen{os.getpid()}{side}" for side in "ab"]

    def ip(*arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)

    if ip("netns", "add", names[0]).returncode:
        pytest.skip("network namespaces cannot be made here")
    ip("netns", "add", names[1])
    try:
        cable = [f"tg{os.getpid() % 10**6}{side}" for side in "ab"]
        made = ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        assert made.returncode == 0, made.stderr
        for name, end, address in zip(names, cable, ("10.77.0.1", "10.77.0.2"), strict=True):
            ip("link", "set", end, "netns", name)
            for line in (f"addr add {address}/24 dev {end}", f"link set {end} up", "link set lo up"):
                done = ip("netns", "exec", name, "ip", *line.split())
                assert done.returncode == 0, done.stderr
        yield list(zip(names, cable, strict=True))
    finally:
        for name in names:
            ip("netns", "delete", name)


def on_nodes(nodes, run_dir, *overrides):
    """One torchrun a node, as a person starts them; their processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "static", "--master-addr", "10.77.0.1", "--master-port", "29511"]
    script = [str(ROOT / "train.py"), *SMALL, f"hydra.run.dir={run_dir}", "trainer.num_nodes=2", *overrides]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", name, *torchrun, f"--node-rank={rank}", *script],
            env=ENV | {"GLOO_SOCKET_IFNAME": device},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, (name, device) in enumerate(nodes)
    ]


def images_saved(run_dir):
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["transfergen"]["images_seen"]


@pytest.mark.faults
def test_two_nodes_train_together_end_together_and_go_on(nodes, tmp_path):
    forever = ["trainer.max_epochs=-1", "checkpoint_every_images=160", "resume=auto"]
    first = on_nodes(nodes, tmp_path, *forever)
    until((tmp_path / "checkpoints" / "previous.ckpt").exists)
    for pid in processes(["train.py", str(tmp_path)]):  # the second node loses power
        if Path(f"/proc/{pid}/ns/net").readlink() == Path(f"/proc/{first[1].pid}/ns/net").readlink():
            os.kill(pid, signal.SIGKILL)
    for process in first:
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0, err
    assert not processes(["train.py", str(tmp_path)])
    before = images_saved(tmp_path)
    target = before + 160
    for process in on_nodes(nodes, tmp_path, *forever, f"max_images={target}"):
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    assert images_saved(tmp_path) == target
