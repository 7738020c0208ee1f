"""The docs are true: commands compose, names exist, links lead somewhere, tables match the code, the site builds."""

import ast
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from xml.etree import ElementTree

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from runs import ROOT
from test_commands import OTHERWISE_TESTED
from test_imports import FLOORS

from transfergen.config import CONF_DIR

READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
OTHERS = [ROOT / name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*READMES, *OTHERS, *sorted((ROOT / "docs").rglob("*.md"))]
MATH = "{http://www.w3.org/1998/Math/MathML}math"
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def commands(page):
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.replace("python train.py", "transfergen train").split("  #")[0], comments=True)
            if "transfergen" in words[:-1]:
                name, *overrides = words[words.index("transfergen") + 1 :]
                yield name, [word for word in overrides if word != "-m"]


@pytest.mark.parametrize("page", READMES, ids=NAMES[:2])
def test_readme_is_short(page):
    assert len(page.read_text().splitlines()) <= 200


def test_chinese_readme_says_the_same():
    english, chinese = (page.read_text() for page in READMES)
    assert list(commands(READMES[0])) == list(commands(READMES[1]))
    for pattern in (r"^#+ ", r"^\|", r"^!\[.*?\]\((.*?)\)", r"`([a-z_]+=[a-z0-9_]+)`", r"\]\((?!README)([^)]+)\)"):
        assert sorted(re.findall(pattern, english, re.MULTILINE)) == sorted(re.findall(pattern, chinese, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_each_command_composes(page):
    """Commands that test_commands.py does not run, or runs without some of their settings."""
    for name, overrides in commands(page):
        if page in OTHERS or any(word in " ".join(overrides) for word in (*OTHERWISE_TESTED, "backbone.weights=")):
            compose_command(name, tuple(overrides))


@cache
def compose_command(name, overrides):
    GlobalHydra.instance().clear()
    plain = [o for o in overrides if not o.startswith("hydra")]
    several = [o for o in plain if "," in o.partition("=")[2] and "[" not in o]
    first = [f"{key}={values.split(',')[0]}" for key, _, values in (o.partition("=") for o in several)]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        OmegaConf.to_container(compose(name, [o for o in plain if o not in several] + first), resolve=False)


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
            assert rest.split(".")[0] in keys_of(group), f"{group}.{rest}"


@cache
def keys_of(group):
    return {key for file in (CONF_DIR / group).glob("*.yaml") for key in OmegaConf.load(file)}


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


def test_each_test_that_is_named_is_there():
    page = (ROOT / "docs" / "reliability.md").read_text()
    tests = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []
    assert [path for path in re.findall(r"`(tests/[\w/]+\.py)`", page) if not (ROOT / path).exists()] == []


def test_modules_and_functions_are_no_longer_than_contributing_says():
    said = re.search(r"at most (\d+) lines; functions have at most (\d+)", (ROOT / "CONTRIBUTING.md").read_text())
    most_lines, most_in_function = map(int, said.groups())
    too_long = []
    for file in (*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")):
        text = file.read_text()
        too_long += [file.name] if len(text.splitlines()) > most_lines else []
        functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
        too_long += [f.name for f in functions if f.end_lineno - f.lineno >= most_in_function]
    assert too_long == []


def test_table_of_rooms_matches_the_code():
    """Rooms and imports exactly, lines to a tenth or to a hundred."""
    package = ROOT / "src" / "transfergen"
    table = (ROOT / "docs" / "architecture.md").read_text().split("## Rooms")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\| `.*", table, re.MULTILINE)]
    rooms = [re.findall(r"`(\w+)`", row[0]) for row in rows]
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for row in rooms for room in row} == there - {"__init__"}
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    for row, (_, lines, _, may_import) in zip(rooms, rows, strict=True):
        files = [file for room in row for file in (*package.glob(f"{room}.py"), *(package / room).rglob("*.py"))]
        actual = sum(len(file.read_text().splitlines()) for file in files)
        assert abs(actual - int(lines)) <= max(100, actual / 10), f"{row}: {actual} lines"
        below = FLOORS[floor_of[row[0]] + 1 :]
        names = re.findall(r"`(\w+)`", may_import) + [room for room in FLOORS[-1] if "the ground" in may_import]
        assert set(names) == {room for floor in below for room in floor} | (set(row) if not below else set()), row


def test_metrics_of_the_docs_can_be_used_in_any_loop(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "metrics.md").read_text(), re.DOTALL)[1]
    exec(code, {"real_images": torch.rand(8, 3, 32, 32) * 2 - 1, "fake_images": torch.zeros(8, 3, 32, 32)})
    assert {"FrechetDistance", "KernelDistance", "recall"} < set(re.findall(r"'(\w+)'", capsys.readouterr().out))


def test_notebook_is_kept_with_its_outputs_and_without_what_differs_between_machines():
    text = (ROOT / "docs" / "quickstart.ipynb").read_text()
    assert len(text) < 600_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    printed = []
    for cell in cells:
        source, outputs = "".join(cell["source"]), cell["outputs"]
        kinds = {kind for output in outputs for kind in output.get("data", {output["output_type"]: None})}
        last = source.splitlines()[-1]
        expected = "stream" if source.startswith("%%bash") or last.startswith("print(") else "image/png"
        assert expected in kinds, source
        printed += ["".join(output.get("text", "")) for output in outputs]
    assert len(cells) >= 9
    assert not re.search(r"(?<![\w.~])/\w|[\r\x1b]|images/s|\d{4}-\d\d-\d\d", "\n".join(printed))  # paths, bars, times


def test_site_builds_offline_without_a_dead_link(tmp_path):
    """Strict: a wrong link, anchor, image or docstring, or a page outside the navigation, ends the build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert "transfergen.networks.generators.dcgan.DCGAN" in pages["reference/networks.html"]
    rooms = {name for name in pages if name.startswith("reference/")}
    assert {name for name in rooms if f'href="{name}"' not in pages["index.html"]} == set(), "not in the navigation"
    assert "<math" in pages["methods/gan.html"]
    assert 'src="data:image/png;base64,' in pages["quickstart.html"]
    assert (tmp_path / "search" / "search_index.js").exists()
    for name, html in pages.items():
        assert re.findall(r"""(?:src|<link[^>]*href)=["'](?:https?:)?//[^"']+""", html) == [], name
        formulas = re.findall(r"<math.*?</math>", html, re.DOTALL)
        assert [ElementTree.fromstring(formula).tag for formula in formulas] == [MATH] * len(formulas)
        assert 'class="arithmatex"' not in html, name
