import shutil

import pytest
import torch
from generators import varied
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ANY_MODEL, CLASS_NAMES, SMALL_MODELS

from transfergen.commands import cli
from transfergen.config import CONF_DIR, instantiate
from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A run directory with a config and a generator, such as a training of a small DCGAN leaves."""
    return write_run(tmp_path_factory.mktemp("run"), "dcgan")


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory):
    """A run directory of a small BigGAN of ten classes, which are called `CLASS_NAMES`."""
    return write_run(tmp_path_factory.mktemp("run"), "biggan", "generator.num_classes=10", classes=CLASS_NAMES)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, driven by playwright."""
    tools = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    with tools.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


def write_run(folder, model, *overrides, classes=()):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = cli.plain(compose("train", [*ANY_MODEL, *SMALL_MODELS[model], *overrides]))
    OmegaConf.save(config, folder / artefacts.CONFIG, resolve=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = [torch.arange(256) % config.generator.num_classes] if "num_classes" in config.generator else []
        generator = varied(instantiate(config.generator), *labels)
    settings = OmegaConf.to_container(config.generator, resolve=True)
    save_generator(folder, generator, settings, ema=True, images_seen=16, classes=classes)
    return folder
