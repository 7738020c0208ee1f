"""Reports: pages of a run and of several, of files that are there, damaged or missing."""

import base64
import html
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image
from runs import called

from transfergen.commands.report import main, read_run
from transfergen.commands.report import report as report_main
from transfergen.commands.report_pages import comparison_page, run_page
from transfergen.config import CONF_DIR
from transfergen.runs.curves import draw, plot_precision_recall, precision_recall, read_curves

RECORD = {"name": "recall", "value": 0.25, "extractor": "pixels", "generated": 16, "real": 16, "split": "test"}
HOSTILE = "<script>alert(1)</script>"


def make_run(folder, *, rampup=0.05, grids=9, **config):
    """The files that a run leaves, as far as a report reads them."""
    for name, content in {
        "config.yaml": yaml.safe_dump({"ema": {"rampup": rampup}, "generator": {"width": 8}, "best": None, **config}),
        ".hydra/overrides.yaml": "[model=dcgan, max_images=64]",
        "metrics.json": json.dumps({"images_seen": 64, "seconds": 90.0, "metrics": [RECORD]}),
        "csv/version_0/metrics.csv": "step,loss/generator,loss/discriminator,once\n8,1,0.5,\n16,2,0.25,3\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for name in ("grid", "samples/reals", *(f"samples/{8 * i:09d}" for i in range(grids - 1))):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (34, 34)).save(folder / f"{name}.png")
    return folder


def report(out, *arguments):
    code, _, err = called(main, *arguments, f"out={out}")
    assert code == 0, err
    return out.read_text()


def test_a_folder_as_out_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr("transfergen.commands.report.read_run", pytest.fail)
    code, _, err = called(main, f"run={tmp_path}", f"out={tmp_path}")
    assert (code, err) == (2, f"transfergen: out={tmp_path}: is a folder; give a file\n")


def test_page_of_a_run_shows_its_files_and_loads_nothing(tmp_path):
    run = make_run(tmp_path / "run", grids=30)
    evaluation = {
        "checkpoint": "best",
        "chosen_by": "recall on 9 test images",
        "metrics": [RECORD | {"name": "precision", "warning": "few images"}],
    }
    (run / "evaluation.json").write_text(
        json.dumps(evaluation | {"earlier": [{"metrics": [RECORD]}, {"checkpoint": 25_024, "metrics": [RECORD]}]})
    )
    page = report(tmp_path / "report.html", f"run={run}")
    for words in (
        "<h2>Samples</h2>",
        "<h2>Curves</h2>",
        "64 images (repeats counted), 1.5 minutes",
        "python train.py model=dcgan max_images=64",
        "best generator, 16 samples, 16 reals (test)",
        "25,024-image generator, 16 samples, 16 reals (test)",
        "few images; chosen by recall on 9 test images",
        "real images</figcaption>",
        "the end</figcaption>",
        "width: 8",
    ):
        assert words in page
    assert page.count("<td>recall</td>") == 3
    assert page.count("data:image/png;base64,") == 9 + 1  # over time, and the last grid
    assert page.count("<svg") == 2  # a curve of one point is none
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?https?:", page)


def test_nothing_that_a_run_holds_becomes_markup(tmp_path):
    hostile = RECORD | dict.fromkeys(("name", "extractor", "split", "warning"), HOSTILE)
    run = make_run(tmp_path / "run", note=HOSTILE)
    (run / "metrics.json").write_text(json.dumps({"metrics": [hostile]}))
    (run / "csv/version_0/metrics.csv").write_text(f"step,{HOSTILE}\n1,1\n2,2\n")
    (run / ".hydra/overrides.yaml").write_text(json.dumps([HOSTILE]))
    Image.new("RGB", (34, 34)).save(run / "samples" / "z<script>.png")
    other = make_run(tmp_path / "<b>other")
    for page in (
        report(tmp_path / "run.html", f"run={run}"),
        report(tmp_path / "runs.html", f"runs=['{run}','{other}']"),
    ):
        assert "<script" not in page
        assert "<b>" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_resumed_run_shows_the_command_that_began_it_and_the_last(tmp_path):
    run = make_run(tmp_path / "run")
    config = OmegaConf.load(CONF_DIR / "train.yaml")
    config.resume = str(run)
    folder = run / config.hydra.output_subdir
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text("[resume=there, ++ema.rampup=0, max_images=96]")
    page = report(tmp_path / "report.html", f"run={run}")
    assert re.findall(r"python train\.py.*?max_images=\d+", page) == [
        "python train.py model=dcgan max_images=64",
        "python train.py resume=there ema.rampup=0 max_images=96",
    ]


def test_a_command_of_a_page_can_be_copied_into_a_shell(tmp_path):
    run = make_run(tmp_path / "run")
    (run / ".hydra/overrides.yaml").write_text("['data.path=my pictures', max_images=64]")
    page = html.unescape(report(tmp_path / "report.html", f"run={run}"))
    assert "python train.py 'data.path=my pictures' max_images=64</pre>" in page


def test_pages_fit_a_phone(browser, tmp_path):
    a, b = make_run(tmp_path / "a", note="x" * 200), make_run(tmp_path / "b", note="y" * 200)
    Image.new("RGB", (800, 34)).save(a / "neighbours.png")
    context = browser.new_context(viewport={"width": 360, "height": 640}, is_mobile=True)
    tab = context.new_page()
    for number, given in enumerate((f"run={a}", f"runs=[{a},{b}]")):
        out = tmp_path / f"{number}.html"
        report(out, given)
        tab.goto(out.as_uri())
        assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    context.close()


def test_runs_side_by_side_show_what_differs(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", rampup=0.5)
    page = report(tmp_path / "report.html", f"sweep={tmp_path}")
    settings = page[page.index("Settings that differ") : page.index("<h2>Metrics")]
    assert "<td>ema.rampup</td><td>0.05</td><td>0.5</td>" in settings
    assert "generator.width" not in settings
    assert "<td>recall (pixels; 16 samples, 16 reals (test))</td><td>0.25</td><td>0.25</td>" in page
    assert page.count("data:image/png;base64,") == page.count("<svg") == 2
    assert report(tmp_path / "same.html", f"runs=[{a},{b}]").count("<svg") == 2


def test_a_sweep_shows_its_trials_in_order_and_why_others_failed(tmp_path):
    for i in range(11):
        make_run(tmp_path / str(i), grids=2, seed=i)
    for name, content in {"3": {"error": None}, "11": {"error": "lr=-1: choose <more>"}, "x": {}, "y": []}.items():
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "trial.json").write_text(json.dumps(content))
    page = report(tmp_path / "report.html", f"sweep={tmp_path}")
    assert re.findall(r"<th>(\d+)</th>", page)[:11] == [str(i) for i in range(11)]
    assert re.findall(r'<p class="warning">(.*)</p>', page) == ["trial 11 failed: lr=-1: choose &lt;more&gt;"]


def test_pages_say_which_values_are_better_and_show_neighbours(tmp_path):
    run = make_run(tmp_path / "run", grids=2)
    records = [RECORD | {"name": name, "larger_is_better": larger} for name, larger in (("a", True), ("b", False))]
    (run / "metrics.json").write_text(json.dumps({"images_seen": 64, "seconds": 9.0, "metrics": [*records, RECORD]}))
    page = report(tmp_path / "report.html", f"run={run}")
    for name, better in (("a", "larger"), ("b", "smaller"), ("recall", "")):
        assert f'<td>{name}</td><td class="number">0.25</td><td>{better}</td>' in page
    assert "<h2>Neighbours</h2>" not in page
    Image.new("RGB", (34, 34), "red").save(run / "neighbours.png")
    picture = base64.b64encode((run / "neighbours.png").read_bytes()).decode()
    page = report(tmp_path / "report.html", f"run={run}")
    assert page.count(picture) == 1
    assert page.index("<h2>Metrics") < page.index("<h2>Neighbours") < page.index(picture) < page.index("<h2>Settings")
    both = report(tmp_path / "both.html", f"runs=[{run},{run}]")
    assert "<td>b (pixels; 16 samples, 16 reals (test)), smaller is better</td>" in both
    assert picture not in both


def test_a_run_that_is_given_twice_is_shown_once(tmp_path):
    run, other = (make_run(tmp_path / name) for name in ("run", "other"))
    for given, title in (
        (f"{run},{run}", "<title>1 run</title>"),
        (f"{run},{other},{other / '..' / 'run'}", "<title>2 runs</title>"),
    ):
        assert title in report(tmp_path / "report.html", f"runs=[{given}]")


def test_damaged_and_missing_files_are_named_and_the_rest_is_shown(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("seed: 1\n")
    (broken / "evaluation.json").write_text("{")
    page = report(tmp_path / "report.html", f"run={broken}")
    assert "evaluation.json is damaged" in page
    assert "it has no final metrics" in page
    assert "seed: 1" in page
    for words, line in (
        ([], "give one of run="),
        ([f"run={tmp_path}"], "no config.yaml"),
        ([f"run={tmp_path}/nope"], f"run={tmp_path}/nope: there is no such folder"),
        ([f"sweep={broken}"], "no run in it"),
        ([f"sweep={make_run(tmp_path / 'run')}"], f"it is a run itself: give run={tmp_path / 'run'}"),
        ([f"sweep={tmp_path}/nope"], f"sweep={tmp_path}/nope: there is no such folder"),
        ([f"runs={broken}"], f"runs={broken}: choose a list, as in [a,b]"),
    ):
        code, _, err = called(main, *words)
        assert code == 2
        assert line in err


ODD = {
    "metrics.json": [
        "[]",
        "5",
        '{"metrics": [5]}',
        '{"metrics": [{"name": "recall"}]}',
        '{"images_seen": "many", "metrics": []}',
        '{"metrics": [{"name": 1, "value": "x", "extractor": [], "generated": {}, "real": 1, "split": 1}]}',
        "[" * 100_000,
        "\x80",
    ],
    "config.yaml": [
        "[]",
        "a: [",
        "{a: &a [1], b: *a}",
        "password: ${oc.env:HOME}",
        "{1: {2: x}, y: 2001-01-01}",
        "\x00",
    ],
    ".hydra/overrides.yaml": ["5", "{a: b}", "[[1], null]"],
    "csv/version_0/metrics.csv": [
        "",
        "step,a\nnan,1\ninf,1\n1e400,1\n1e300,1\n-1,2\n",
        "step,$\\frac{$\n1,1\n2,2\n",
        "step,step\n1,2\n2,3\n",
        "step,a\n1,1e400\n2,-1e400\n3,nan\n",
        "step,a\n1," + "9" * 5000 + "\n2,1\n",
        f"step,{'x' * 200_000}\n1,1\n2,2\n",
        "\x00\xff,\n1,2",
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_a_report_of_odd_files_is_a_page(tmp_path, name):
    run = make_run(tmp_path / "run", grids=2)
    for content in ODD[name]:
        (run / name).write_bytes(content.encode("latin-1"))
        runs = [read_run(run, "run")] * 2
        for page in (run_page(runs[0]), comparison_page(runs)):
            assert "<h1>" in page, content[:80]
            assert os.environ["HOME"] not in page


def test_a_report_waits_for_no_pipe_and_embeds_nothing_from_outside_the_run(tmp_path):
    run, secret = make_run(tmp_path / "run", grids=2), tmp_path / "secret.png"
    secret.write_text("secret")
    (run / "grid.png").unlink()
    (run / "grid.png").symlink_to(secret)
    (run / "samples").rename(run / "kept")
    (run / "samples").symlink_to(tmp_path)
    (run / "metrics.json").unlink()
    os.mkfifo(run / "metrics.json")
    page = report(tmp_path / "report.html", f"run={run}")
    assert "metrics.json is damaged (it is no file)" in page
    assert "grid.png is damaged (it is a link)" in page
    assert "secret.png" not in page
    assert base64.b64encode(b"secret").decode() not in page


def test_a_report_of_a_folder_whose_name_is_no_unicode_is_a_page(tmp_path):
    run = make_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), grids=2)
    assert b"<title>?</title>" in report_bytes(tmp_path / "report.html", run)


def report_bytes(out, run):
    report_main(OmegaConf.create({"run": str(run), "runs": [], "sweep": None, "out": str(out)}))
    return out.read_bytes()


def test_curves_of_a_resumed_run_are_joined_and_a_cut_line_is_skipped(tmp_path):
    for version, rows in {0: "1,10,\n2,20,5\n3,3", 2: "2,21,\n4,40,7\n"}.items():
        folder = tmp_path / "csv" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"step,loss,other\n{rows}")
    assert read_curves(tmp_path) == {"loss": [(1, 10), (2, 21), (3, 3), (4, 40)], "other": [(2, 5), (4, 7)]}


PATHS = "step,metrics/precision,metrics/recall\n8,0.5,0.1\n16,nan,0.2\n24,0.75,\n32,0.625,0.3\n40,0.25,0.4\n"


def test_precision_against_recall_is_a_path_through_the_points_that_have_both(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "csv/version_0/metrics.csv").write_text(PATHS)
    path = precision_recall(read_curves(run))
    assert path == [(8, 0.5, 0.1), (32, 0.625, 0.3), (40, 0.25, 0.4)]
    (axes,) = plot_precision_recall({"run": path}).axes
    assert axes.lines[0].get_xydata().tolist() == [[0.1, 0.5], [0.3, 0.625], [0.4, 0.25]]
    assert [text.get_text() for text in axes.texts] == ["40", "32", "8"]
    assert axes.get_legend() is None
    (axes,) = plot_precision_recall({"a": path, "b": path[:1]}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_images_seen_are_written_where_no_other_number_is():
    close = [(1000 * i, 0.5 + i / 10_000, 0.5) for i in range(9)]
    (axes,) = plot_precision_recall({"run": [(0, 0.1, 0.1), *close]}).axes
    assert [text.get_text() for text in axes.texts] == ["8,000", "0"]


def test_pages_show_precision_against_recall(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    (a / "csv/version_0/metrics.csv").write_text(PATHS)
    for arguments, charts in ((f"run={a}", 3), (f"runs=[{a},{b}]", 2 + 2 + 1)):
        page = report(tmp_path / "report.html", arguments)
        assert page.count("<!-- precision against recall") == 1
        assert page.count("<svg") == charts


def test_axis_is_logarithmic_where_values_are_far_apart():
    near, far = (draw("loss", {"a": [(1, 1.0), (2, top)], "b": [(1, 2.0)]}) for top in (10.0, 1000.0))
    assert "10^" not in near
    assert near.startswith("<svg")
    assert far != near
    assert json.dumps(far).count("mathdefault") > json.dumps(near).count("mathdefault") == 0
