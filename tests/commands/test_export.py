import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from generators import varied
from PIL import Image
from runs import CACHE, CLASS_NAMES, ROOT, called
from torch import nn

from transfergen import Generator
from transfergen.commands.export import main
from transfergen.config import CONF_DIR, instantiate
from transfergen.networks.generators import biggan_deep
from transfergen.networks.generators.base import latents
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.runs.generator_files import save_generator
from transfergen.sampling import web_page
from transfergen.sampling.export import TOLERANCE

NAMES = sorted(file.stem for file in (CONF_DIR / "generator").glob("*.yaml"))


def run_of(folder, name, *, num_classes=3):
    """A run directory with a small generator of that architecture, none of whose weights is 0 or 1."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        chosen = [f"generator={name}", f"data.resolution={16 if name == 'biggan_deep' else 32}", "generator.width=4"]
        config = OmegaConf.to_container(compose("train", chosen).generator, resolve=True)
    if config.get("num_classes", 0) is None:
        config["num_classes"] = num_classes
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
    ("name", "format", "num_classes"),  # onnx is made from the graph that torch_export writes
    [*((name, "onnx", 3) for name in NAMES), ("dcgan", "torch_export", 0), ("biggan_deep", "torch_export", 0)],
)
def test_each_generator_is_exported_and_makes_the_same_images(tmp_path, few_blocks, name, format, num_classes):
    run = run_of(tmp_path, name, num_classes=num_classes)
    file = tmp_path / {"onnx": "generator.onnx", "torch_export": "generator.pt2"}[format]
    code, out, err = called(main, f"run={run}", f"format={format}", f"out={file}")
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


def test_the_generator_at_its_best_moment_is_exported(tmp_path):
    run, out = run_of(tmp_path / "run", "dcgan"), tmp_path / "bf16"
    code, _, err = called(main, f"run={run}", "checkpoint=best", "format=bf16", f"out={out}")
    assert (code, f"checkpoint=best: run={run} kept none" in err) == (2, True)
    best = Generator.from_pretrained(run_of(run / "best", "dcgan")).pixels([1]).int()
    code, _, err = called(main, f"run={run}", "checkpoint=best", "format=bf16", f"out={out}")
    assert code == 0, err
    assert (Generator.from_pretrained(out).pixels([1]).int() - best).abs().float().mean() < 3
    assert (Generator.from_pretrained(run).pixels([1]).int() - best).abs().float().mean() > 5


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


@pytest.mark.parametrize(("format", "name"), [("onnx", "out.onnx"), ("torch_export", "out.pt2")])
def test_an_export_that_finds_no_space_leaves_what_was_there(run_dir, tmp_path, monkeypatch, small_files, format, name):
    def save(program, f, **_):
        f.write(bytes(100_000)) if hasattr(f, "write") else Path(f).write_bytes(bytes(100_000))

    monkeypatch.setattr("transfergen.sampling.export.exported", lambda generator: None)
    monkeypatch.setattr("torch.onnx.export", save)
    monkeypatch.setattr("torch.export.save", save)
    out = tmp_path / name
    out.write_bytes(b"old")
    code, _, err = called(main, f"run={run_dir}", f"format={format}", f"out={out}")
    assert (code, err) == (
        2,
        f"transfergen: out={out}: cannot write {out} (File too large); choose another place\n",
    )
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"old")]


def test_a_run_is_not_overwritten_and_a_folder_is_no_file(run_dir, tmp_path):
    for settings, line in (
        ([f"out={run_dir}", "format=bf16"], "is the folder of a run"),
        ([f"out={tmp_path}"], "is a folder"),
    ):
        code, _, err = called(main, f"run={run_dir}", *settings)
        assert (code, err.count("\n")) == (2, 1)
        assert line in err


def test_mistake_gets_one_line(tmp_path):
    for words, line in (
        (["format=tar", "run=x"], "choose one of onnx"),
        ([], "run=RUN_DIR"),
        (["run=/no"], "no such"),
        (["run=x", "out=x.pt2"], "out=x.pt2: the name is for format=torch_export, and this is format=onnx"),
        (["run=x", "format=torch_export", "out=x.pt"], "out=x.pt: torch.export.load asks for a name that ends in .pt2"),
        (["run=builtin:cifar10", "web_runtime=x"], "web_runtime=x: is for format=web"),
        (["run=builtin:cifar10", "format=web", "web_runtime=/no"], "npm pack onnxruntime-web@"),
        (["run=builtin:cifar10", "format=web", f"web_runtime={ROOT / 'README.md'}"], "cannot be read"),
    ):
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


def test_script_of_the_readme_takes_classes_as_the_readme_says(tmp_path, conditional_run):
    text = (ROOT / "docs" / "generator.md").read_text()
    script = re.search(r"```python\n(import numpy as np\nimport onnxruntime.*?)```", text, re.S)[1]
    call = re.search(r"A generator with classes takes .*`(session\.run\(.*\))`", text)[1]
    assert called(main, f"run={conditional_run}", f"out={tmp_path / 'generator.onnx'}")[0] == 0
    script = script.replace('session.run(None, {"z": z})', call)
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("*.png"))) == 4


@pytest.fixture(scope="module")
def web_runtime():
    """The archive of onnxruntime-web, which npm downloads."""
    if shutil.which("npm") is None:
        pytest.skip("npm, which brings onnxruntime-web, is not installed")
    CACHE.mkdir(exist_ok=True)
    archive = CACHE / f"{web_page.RUNTIME.replace('@', '-')}.tgz"
    with FileLock(f"{archive}.lock"):
        if not archive.exists():
            command = ["npm", "pack", web_page.RUNTIME, "--pack-destination", str(CACHE)]
            packed = subprocess.run(command, capture_output=True, text=True, check=False)
            if packed.returncode:
                (pytest.fail if "CI" in os.environ else pytest.skip)(f"{' '.join(command)}: {packed.stderr}")
    return archive


@pytest.fixture
def opened(browser, web_runtime, tmp_path):
    """A function from a run to its page: the file, a tab that shows it, and what the tab has asked for."""

    def open_page(run):
        page, requests = tmp_path / "page" / "generator.html", []
        code, _, err = called(main, f"run={run}", "format=web", f"out={page}", f"web_runtime={web_runtime}")
        assert code == 0, err
        tab = browser.new_page()
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        return page, tab, requests

    return open_page


def drawn(tab, **settings):
    """The pixels (H, W, 3) of the page's PNG, on white, once it shows these settings."""
    for name, value in settings.items():
        control = tab.locator(f"[name={name}]").first
        (control.select_option if name == "class" else control.fill)(str(value))
    shown = "".join(f"[aria-label*='{name}={value}&']" for name, value in settings.items())
    tab.locator(f"canvas{shown}").wait_for(timeout=60_000)
    png = base64.b64decode(tab.locator("#download").get_attribute("href").partition(",")[2])
    return on_white(Image.open(io.BytesIO(png)))


def on_white(picture):
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")).astype(int)


def hwc(pixels):
    return pixels[0].permute(1, 2, 0).numpy()


def test_a_page_says_what_is_wrong_with_a_seed_and_keeps_its_image(opened, run_dir):
    _, tab, _ = opened(run_dir)
    for good, wrong, name in ((3, "", "seed"), (4, "-5", "seed"), (5, "2.5", "towards"), (6, "4294967296", "seed")):
        drawn(tab, towards=1, seed=good)
        tab.locator(f"[name={name}]").fill(wrong)
        tab.get_by_text("A seed is a whole number from 0 to 4294967295.").wait_for(timeout=60_000)
        assert tab.locator("#download").get_attribute("download") == f"seed{good}.png"


def test_a_page_without_a_server_draws_what_torch_does(opened, tmp_path):
    """The default DCGAN, with statistics of its batch norms that fit its weights."""
    network = DCGAN()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    network(latents(range(64), network.z_dim))
    config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN"}
    save_generator(tmp_path / "run", network.eval(), config, ema=True, images_seen=0)
    page, tab, requests = opened(tmp_path / "run")
    assert list(page.parent.iterdir()) == [page]
    model = re.search('id="model">([^<]*)<', page.read_text())[1]
    assert len(base64.b64decode(model)) < 5_000_000

    generator = Generator.from_pretrained(tmp_path / "run")
    for seed in (3, 2**32 - 1):
        np.testing.assert_allclose(drawn(tab, seed=seed), generator([seed])[0], atol=2)
    moved = generator.vary(seed, 3 * generator.directions(1))
    assert np.abs(hwc(moved).astype(int) - drawn(tab, direction=0)).max() > 2
    np.testing.assert_allclose(drawn(tab, direction=3), hwc(moved), atol=2)
    middle = generator.interpolate([seed, 5], frames=2)[1:]
    np.testing.assert_allclose(drawn(tab, direction=0, towards=5, part=0.5), hwc(middle), atol=2)

    before = drawn(tab)
    tab.locator("#another").click()
    tab.locator(f"canvas:not([aria-label*='seed={seed}&'])").wait_for(timeout=60_000)
    assert np.abs(drawn(tab) - before).max() > 2
    assert {url.partition(":")[0] for url in requests} == {"file", "blob"}

    tab.set_viewport_size({"width": 360, "height": 640})  # a phone's
    assert tab.evaluate("document.documentElement.scrollWidth") == 360


def test_a_page_lets_the_class_be_chosen(opened, conditional_run):
    generator = Generator.from_pretrained(conditional_run)
    _, tab, _ = opened(conditional_run)
    assert tab.locator("[name=class] option").all_inner_texts() == CLASS_NAMES
    for label in (0, 7):
        image = generator([1], classes=[label])[0]
        np.testing.assert_allclose(drawn(tab, seed=1, **{"class": label}), image, atol=2)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_page_draws_grey_and_transparent_images_that_are_not_square(opened, tmp_path, channels):
    settings = {"resolution": 32, "aspect": [3, 2], "image_channels": channels, "z_dim": 8, "width": 8}
    config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", **settings}
    save_generator(tmp_path / "run", varied(DCGAN(**settings)), config, ema=True, images_seen=0)
    _, tab, _ = opened(tmp_path / "run")
    expected = on_white(Generator.from_pretrained(tmp_path / "run")([1])[0])
    assert expected.shape == (32, 48, 3)
    assert expected.std() > 5
    np.testing.assert_allclose(drawn(tab, seed=1), expected, atol=2)


def test_the_runtime_of_a_page_is_downloaded_once_and_never_another(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(web_page, "FILES_URL", tmp_path.as_uri())
    for name in web_page.SHA256:
        (tmp_path / name).write_text(name)
        monkeypatch.setitem(web_page.SHA256, name, hashlib.sha256(name.encode()).hexdigest())
    assert web_page.read_runtime(None) == [name.encode() for name in web_page.SHA256]
    for name in web_page.SHA256:
        (tmp_path / name).unlink()
    assert web_page.read_runtime(None) == [name.encode() for name in web_page.SHA256]
    monkeypatch.setattr(web_page, "RUNTIME", "onnxruntime-web@2")
    code, _, err = called(main, "run=builtin:cifar10", "format=web")
    assert (code, err.count("\n")) == (2, 1)
    for fact in (tmp_path.as_uri(), "npm pack onnxruntime-web@2", "web_runtime=FILE.tgz"):
        assert fact in err
