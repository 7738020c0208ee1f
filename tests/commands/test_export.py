import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from runs import ROOT, called
from torch import nn

from transfergen import Generator
from transfergen.commands.export import main
from transfergen.config import CONF_DIR, instantiate
from transfergen.networks.generators import biggan_deep
from transfergen.runs.generator_files import save_generator
from transfergen.sampling.export import TOLERANCE

NAMES = sorted(file.stem for file in (CONF_DIR / "generator").glob("*.yaml"))


def run_of(folder, name):
    """A run directory with a small generator of that architecture, none of whose weights is 0 or 1."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        chosen = [f"generator={name}", f"data.resolution={16 if name == 'biggan_deep' else 32}", "generator.width=4"]
        config = OmegaConf.to_container(compose("train", chosen).generator, resolve=True)
    if config.get("num_classes", 0) is None:
        config["num_classes"] = 3
    network = instantiate(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    save_generator(folder, network.eval(), config, ema=True, images_seen=8)
    return folder


@pytest.fixture
def few_blocks(monkeypatch):
    """BigGAN-deep of 16 px, with attention behind two of four blocks. That of 128 px takes half a minute."""
    monkeypatch.setitem(biggan_deep.MULTIPLES, 16, (2, 2, 1))
    monkeypatch.setattr(biggan_deep, "ATTENTION", 2)


@pytest.mark.parametrize(
    ("name", "format"),  # onnx is made from the graph that torch_export writes
    [*((name, "onnx") for name in NAMES), ("dcgan", "torch_export"), ("biggan_deep", "torch_export")],
)
def test_each_generator_is_exported_and_makes_the_same_images(tmp_path, few_blocks, name, format):
    code, out, err = called(main, f"run={run_of(tmp_path, name)}", f"format={format}", f"out={tmp_path / 'out.pt2'}")
    assert code == 0, err
    assert float(re.search(r"differs by (\S+) at most", out)[1]) <= TOLERANCE


def test_bf16_is_half_the_size_and_loads_like_any_generator(tmp_path):
    run, out = run_of(tmp_path / "run", "dcgan"), tmp_path / "bf16"
    code, _, err = called(main, f"run={run}", "format=bf16", f"out={out}")
    assert code == 0, err
    sizes = [(folder / "generator.safetensors").stat().st_size for folder in (run, out)]
    assert sizes[1] < 0.6 * sizes[0]
    a, b = (Generator.from_pretrained(folder).pixels([1]).int() for folder in (run, out))
    assert 0 < (a - b).abs().float().mean() < 3


class Other(nn.Sequential):
    z_dim, num_classes = 100, 0

    def forward(self, z):
        return -self[0](z)


def test_an_export_that_makes_other_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("transfergen.sampling.export.plain_network", lambda generator: Other(generator.network))
    code, _, err = called(
        main, f"run={run_of(tmp_path, 'dcgan')}", "format=torch_export", f"out={tmp_path / 'out.pt2'}"
    )
    assert code == 2
    assert "do not use it" in err


def test_a_run_is_not_overwritten_and_a_folder_is_no_file(run_dir, tmp_path):
    for settings, line in (
        ([f"out={run_dir}", "format=bf16"], "is the folder of a run"),
        ([f"out={tmp_path}"], "is a folder"),
    ):
        code, _, err = called(main, f"run={run_dir}", *settings)
        assert (code, err.count("\n")) == (2, 1)
        assert line in err


def test_mistake_gets_one_line(tmp_path):
    for words, line in ((["format=tar", "run=x"], "choose one of onnx"), ([], "run=RUN_DIR"), (["run=/no"], "no such")):
        code, _, err = called(main, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert line in err


def test_script_of_the_readme_samples_with_onnxruntime_alone(tmp_path):
    script = re.search(
        r"```python\n(import numpy as np\nimport onnxruntime.*?)```", (ROOT / "docs" / "generator.md").read_text(), re.S
    )[1]
    assert len(script.splitlines()) <= 10
    run = run_of(tmp_path, "dcgan")
    assert called(main, f"run={run}", f"out={tmp_path / 'generator.onnx'}")[0] == 0
    checked = script + "import sys\nassert not {'torch', 'transfergen'} & set(sys.modules)\n"
    ran = subprocess.run([sys.executable, "-c", checked], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert np.asarray(Image.open(tmp_path / "0.png")).shape == (32, 32, 3)
