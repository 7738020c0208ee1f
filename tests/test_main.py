"""The command line `transfergen COMMAND`: its overview, its help, its errors, and its processes."""

import subprocess
import sys
import tomllib

import pytest
from runs import ROOT, called

from transfergen.__main__ import COMMANDS, main
from transfergen.config import CONF_DIR

HELP = """
import contextlib, sys
from hydra.core.global_hydra import GlobalHydra
from transfergen.__main__ import COMMANDS, main
for arguments in [[], *([name] for name in COMMANDS)]:
    GlobalHydra.instance().clear()
    sys.argv = ["transfergen", *arguments, "--help"]
    with contextlib.suppress(SystemExit):
        main()
    assert "torch" not in sys.modules, arguments
"""


@pytest.fixture(scope="module")
def overview():
    """The output of `transfergen --help`, and after it the help of each command; all of it without torch."""
    return subprocess.run([sys.executable, "-c", HELP], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_overview_says_in_a_line_what_the_first_line_of_each_help_says(overview, name):
    code, out, err = called(main, name, "--help")
    assert code == 0, err
    assert f"  {name:10}{out.splitlines()[0]}\n" in overview
    keys = (CONF_DIR / f"{name}.yaml").read_text().partition("\n\n")[2].partition("\nhydra:")[0].strip()
    assert keys in out
    assert "\nhydra:" not in keys
    assert {"train": "\nmax_images: ", "check": "\nformat: "}.get(name, "\nrun: ") in f"\n{keys}"


def test_version_is_that_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert called(main, "--version") == (0, f"transfergen {project['version']}\n", "")


def test_unknown_command_gets_one_line_with_the_nearest_name():
    code, out, err = called(main, "generat", "num=1")
    assert (code, out) == (2, "")
    assert err == "transfergen: generat: there is no such command, did you mean generate? (--help lists all)\n"


def test_each_module_of_a_command_is_in_the_command_line():
    modules = {file.stem for file in (ROOT / "src" / "transfergen" / "commands").glob("*.py")}
    shared = {"__init__", "cli", "foreign_configs", "imports", "output", "overrides", "places", "sweep"}
    parts = {"explore_page", "explore_pictures", "report_pages"}  # of the command before the underscore
    assert modules - shared - parts == set(COMMANDS)
    assert {name.partition("_")[0] for name in parts} <= set(COMMANDS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"transfergen": f"{main.__module__}:{main.__name__}"}


def test_nothing_of_the_working_folder_is_imported(tmp_path):
    for name in ("hydra_plugins/evil/__init__.py", "omegaconf.py", "yaml/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    start = [sys.executable, "-m", "transfergen", "report", "--help"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
