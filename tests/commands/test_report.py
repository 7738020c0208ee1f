import json
import re

import pytest
from runs import ANY_MODEL, SMALL_MODELS, called, train

from transfergen.commands.report import main
from transfergen.runs.curves import draw, read_curves

SMALL = [*ANY_MODEL, *SMALL_MODELS["dcgan"]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a hostile setting, and another one of the same sweep."""
    root = tmp_path_factory.mktemp("runs")
    for name, more in {
        "a": ["max_images=64", "samples.every_images=8"],
        "b": ["max_images=32", "ema.rampup=0.5"],
    }.items():
        code, _, err = train(root / name, *SMALL, *more, small=False)
        assert code == 0, err
    path = root / "a" / "config.yaml"
    path.write_text(path.read_text() + "note: <script>alert(1)</script>\n")
    return root


def report(out, *arguments):
    code, _, err = called(main, *arguments, f"out={out}")
    assert code == 0, err
    return out.read_text()


def test_page_of_a_run_has_all_of_it_and_loads_nothing(runs, tmp_path):
    page = report(tmp_path / "report.html", f"run={runs / 'a'}")
    for words in (
        "<h2>Samples</h2>",
        "<h2>Curves</h2>",
        "64 images",
        "model=dcgan",
        "kernel_distance",
        "16 reals (test)",
    ):
        assert words in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("data:image/png;base64,") == 9 + 1  # of 8 + 1 over time, and the last grid
    assert page.count("<svg") == len([line for line in read_curves(runs / "a").values() if len(line) > 1]) > 5
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?https?:", page)


def test_a_resumed_run_shows_the_command_that_it_began_with_and_the_last(tmp_path):
    run = tmp_path / "run"
    for folder, more in (
        (run, [*SMALL, "max_images=16"]),
        (None, [f"resume={run}", "max_images=32"]),
        (None, [f"resume={run}", "max_images=48"]),
    ):
        code, _, err = train(folder, *more, small=False)
        assert code == 0, err
    page = report(tmp_path / "report.html", f"run={run}")
    assert re.findall(r"python train\.py.*?max_images=\d+", page) == [
        f"python train.py {' '.join(SMALL)} max_images=16",
        f"python train.py resume={run} max_images=48",
    ]


def test_runs_side_by_side_show_what_differs(runs, tmp_path):
    page = report(tmp_path / "report.html", f"sweep={runs}")
    settings = page[page.index("Settings that differ") : page.index("<h2>Metrics")]
    assert "ema.rampup" in settings
    assert "0.05</td><td>0.5" in settings
    assert "generator.width" not in settings
    assert page.count("data:image/png;base64,") == 2
    assert report(tmp_path / "same.html", f"runs=[{runs / 'a'},{runs / 'b'}]").count("<svg") == page.count("<svg")


def test_what_is_damaged_or_missing_is_named_and_the_rest_is_there(runs, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("seed: 1\n")
    (broken / "evaluation.json").write_text("{")
    page = report(tmp_path / "report.html", f"run={broken}")
    assert "evaluation.json is damaged" in page
    assert "it has no final metrics" in page
    for words, line in (
        ([], "give one of run="),
        ([f"run={tmp_path}"], "no config.yaml"),
        ([f"sweep={broken}"], "no run in it"),
    ):
        code, _, err = called(main, *words)
        assert code == 2
        assert line in err


def test_curves_of_a_resumed_run_are_one_and_a_cut_line_is_passed_over(tmp_path):
    for version, rows in {0: "1,10,\n2,20,5\n3,3", 2: "2,21,\n4,40,7\n"}.items():
        folder = tmp_path / "csv" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"step,loss,other\n{rows}")
    assert read_curves(tmp_path) == {"loss": [(1, 10), (2, 21), (3, 3), (4, 40)], "other": [(2, 5), (4, 7)]}


def test_axis_is_logarithmic_where_values_are_far_apart():
    near, far = (draw("loss", {"a": [(1, 1.0), (2, top)], "b": [(1, 2.0)]}) for top in (10.0, 1000.0))
    assert "10^" not in near
    assert near.startswith("<svg")
    assert far != near
    assert json.dumps(far).count("mathdefault") > json.dumps(near).count("mathdefault") == 0
