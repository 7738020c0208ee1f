"""Commands in the docs compose, options that they name exist, and links lead somewhere."""

import re
import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from runs import ROOT

from transfergen.config import CONF_DIR

PAGES = [ROOT / "README.md", ROOT / "README.zh.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page):
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line.replace("python train.py", "transfergen train").split("  #")[0], comments=True)
            if "transfergen" in words[:-1]:
                name, *overrides = words[words.index("transfergen") + 1 :]
                yield name, [word for word in overrides if word != "-m"]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_command_composes(page):
    """Those of train.py and of the other programs run, too: test_commands.py."""
    for name, overrides in commands(page):
        GlobalHydra.instance().clear()
        hydra = [o for o in overrides if o.startswith("hydra")]
        several = [o for o in overrides if "," in o.partition("=")[2] and "[" not in o]
        plain = [o for o in overrides if o not in hydra + several]
        plain += [f"{key}={values.split(',')[0]}" for key, _, values in (o.partition("=") for o in several)]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            OmegaConf.to_container(compose(name, plain), resolve=False)


def test_there_are_commands_to_look_at():
    assert sum(len(list(commands(page))) for page in PAGES) > 60


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_option_that_is_named_exists(page):
    groups = {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()}
    for group, option in re.findall(r"`([a-z_]+)=([a-z0-9_]+)`", page.read_text()):
        if group in groups:
            assert (CONF_DIR / group / f"{option}.yaml").exists(), f"{group}={option}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_key_that_is_named_exists(page):
    """Dotted keys in backticks, in any option of their group."""
    groups = {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir()} - {"hydra", "experiment", "metrics"}
    for group, rest in re.findall(r"`([a-z_]+)\.([a-z_.]+)(?:=[^`]*)?`", page.read_text()):
        if group in groups and rest not in ("json", "safetensors", "onnx"):
            nodes = [OmegaConf.load(file) for file in (CONF_DIR / group).glob("*.yaml")]
            assert any(rest.split(".")[0] in node for node in nodes), f"{group}.{rest}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target
