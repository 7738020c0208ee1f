"""The page: the images it shows, and a click in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from runs import CLASS_NAMES, called

from transfergen import Generator
from transfergen.commands import explore
from transfergen.commands.explore import main
from transfergen.commands.explore_page import page
from transfergen.commands.explore_pictures import (
    BY_SEED,
    between,
    enlarged,
    mixed,
    moved,
    samples,
    training_pictures,
)
from transfergen.networks.generators.base import Generator as Network


def test_samples_are_those_of_the_seeds_and_truncation_changes_them(run_dir):
    generator = Generator.from_pretrained(run_dir)
    grid = samples(generator, 3, 4, 2.0, BY_SEED)
    np.testing.assert_array_equal(grid, generator.grid(range(3, 7)))
    assert not np.array_equal(grid, samples(generator, 3, 4, 0.2, BY_SEED))


def test_interpolation_begins_and_ends_at_the_images_of_its_seeds(run_dir):
    generator = Generator.from_pretrained(run_dir)
    start, middle, end = (between(generator, 1, 2, part, BY_SEED, BY_SEED) for part in (0, 0.5, 1))
    for image, seed in ((start, 1), (end, 2)):
        expected = generator([seed])[0]
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max() <= 1
    assert not np.array_equal(middle, start)
    large = enlarged(middle)
    assert large.size == (480, 480)
    np.testing.assert_array_equal(np.asarray(large)[::15, ::15], middle)


def test_small_pictures_are_enlarged_to_about_the_height_of_the_page():
    heights = {32: 480, 64: 512, 266: 532, 530: 530, 1024: 1024}
    assert {height: enlarged(Image.new("RGB", (9, height))).height for height in heights} == heights


def test_classes_and_styles_are_mixed_where_a_generator_has_them(conditional_run, run_dir):
    pytest.importorskip("gradio")
    generator = Generator.from_pretrained(conditional_run)
    for settings, seed, label in (
        ((1, 1, 0.5, 3, 5), 1, {3: 1, 5: 1}),
        ((1, 2, 1, 3, 5), 2, 5),
        ((1, 2, 1, 3, BY_SEED), 2, 2),
    ):
        image = np.asarray(between(generator, *settings)).astype(int)
        assert np.abs(image - np.asarray(generator([seed], classes=[label])[0])).max() <= 1
    own = np.asarray(generator([15])[0])
    np.testing.assert_allclose(np.asarray(moved(generator, 15, BY_SEED, 0, 0)).astype(int), own, atol=1)
    styles = generator.mix_styles([1], [2], block=3, classes=[4])[0, 0].permute(1, 2, 0)
    np.testing.assert_array_equal(mixed(generator, 1, 2, 3, 4), styles)

    def visible(generator):
        parts = page(generator, "", "run").get_config_file()["components"]
        return {part["props"].get("label") for part in parts if part["props"].get("visible", True)}

    theirs = {"from class", "to class", "Styles", "first block of the fine seed"}
    assert theirs <= visible(generator)
    assert not theirs & visible(Generator.from_pretrained(run_dir))


def test_each_tab_shows_an_image_before_anything_is_moved(conditional_run):
    pytest.importorskip("gradio")
    shown = page(Generator.from_pretrained(conditional_run), "", "run").get_config_file()
    names = {part["id"]: part["props"].get("elem_id") for part in shown["components"]}
    loaded = [each for each in shown["dependencies"] if "load" in {event for _, event in each["targets"]}]
    assert {names[i] for each in loaded for i in each["outputs"]} == {"grid", "between", "mixed", "moved"}
    choices = [part["props"] for part in shown["components"] if part["type"] == "dropdown"]
    assert len(choices) == 5
    assert all([name for name, _ in each["choices"]] == ["by seed", *CLASS_NAMES] for each in choices)
    assert all(dict(map(reversed, each["choices"]))[each["value"]] == "by seed" for each in choices)


def test_each_control_of_a_tab_with_a_generator_makes_its_picture_anew(conditional_run):
    pytest.importorskip("gradio")
    shown = page(Generator.from_pretrained(conditional_run), "", "run").get_config_file()
    parts = {part["id"]: part for part in shown["components"]}
    pictures = {part["props"]["elem_id"] for part in parts.values() if part["type"] == "image"}
    followed = {name: set() for name in pictures}
    for each in shown["dependencies"]:
        for i in each["outputs"]:
            if parts[i]["type"] == "image":
                followed[parts[i]["props"]["elem_id"]] |= {to for to, event in each["targets"] if event == "change"}
    assert {name: len(ids) for name, ids in followed.items()} == {"grid": 4, "between": 5, "mixed": 4, "moved": 8}
    controls = {i for i, part in parts.items() if part["type"] in ("slider", "number", "dropdown")}
    assert set.union(*followed.values()) == controls


def test_each_slider_of_a_direction_changes_the_picture(run_dir):
    generator = Generator.from_pretrained(run_dir)
    still, first, second = (moved(generator, 5, BY_SEED, *steps) for steps in ((0, 0), (3, 0), (0, 3)))
    assert np.abs(np.asarray(still).astype(int) - np.asarray(generator([5])[0])).max() <= 1
    assert len({image.tobytes() for image in (still, first, second)}) == 3


def test_a_number_beside_a_slider_that_is_out_of_its_range_is_told_without_a_traceback(conditional_run):
    gradio = pytest.importorskip("gradio")
    shown = page(Generator.from_pretrained(conditional_run), "", "run")
    sliders = [part for part in shown.blocks.values() if isinstance(part, gradio.Slider)]
    assert len(sliders) == 10
    for slider in sliders:
        assert slider.preprocess(slider.minimum) == slider.minimum
        assert slider.preprocess(None) is None
        for typed in (slider.minimum - 1, slider.maximum + 1):
            with pytest.raises(gradio.Error, match=rf"choose a number from .* to {slider.maximum:g}\.") as told:
                slider.preprocess(typed)
            assert not told.value.print_exception


def test_a_number_that_is_empty_leaves_the_picture_as_it_is(run_dir):
    gradio = pytest.importorskip("gradio")
    shown = page(Generator.from_pretrained(run_dir), "", "run")
    (grid,) = {each.fn for each in shown.fns.values() if [part.elem_id for part in each.outputs] == ["grid"]}
    assert grid(0, 4, 2.0, BY_SEED).size[0] > 0
    for values in ((None, 4, 2.0, BY_SEED), (0, None, 2.0, BY_SEED)):
        assert grid(*values) == gradio.skip()


def test_a_generator_that_has_no_directions_says_so_instead_of_sliders(run_dir, monkeypatch):
    pytest.importorskip("gradio")
    generator = Generator.from_pretrained(run_dir)

    def shown(kind, key):
        return [
            p["props"][key] for p in page(generator, "", "run").get_config_file()["components"] if p["type"] == kind
        ]

    assert [label for label in shown("slider", "label") if "direction" in label] == [
        f"direction {i}" for i in range(1, 7)
    ]
    monkeypatch.setattr(type(generator.network), "latent_weight", Network.latent_weight)
    assert not any("direction" in label for label in shown("slider", "label"))
    assert "directions: this DCGAN does not say which of its weights take the latent" in shown("textbox", "value")


def test_nearest_training_pictures_are_shown_or_the_page_says_why_not(run_dir, tmp_path):
    generator = Generator.from_pretrained(run_dir)
    here = OmegaConf.create({"path": None, "cache_dir": None})
    sheet = training_pictures(generator, run_dir, here, 64)(5)
    assert sheet.size == (6 * 34 + 2, 34 + 2)
    first = np.asarray(sheet)[2:34, 2:34]
    np.testing.assert_array_equal(first, np.asarray(generator([5])[0]))
    with pytest.raises(ValueError, match=r"this generator comes without its training; give run=RUN_DIR"):
        training_pictures(generator, tmp_path, here, 64)


def test_no_word_of_a_file_is_read_as_markdown(run_dir):
    """Markdown would fetch the image that a class, a path or a config names."""
    pytest.importorskip("gradio")
    generator, image = Generator.from_pretrained(run_dir), "![](https://example.org/image.png)"
    shown = page(generator, f"The training pictures cannot be read: {image}", image).get_config_file()
    kinds = {part["type"] for part in shown["components"] if image in str(part["props"].get("value"))}
    assert kinds == {"textbox"}
    assert {part["props"]["value"] for part in shown["components"] if part["type"] == "markdown"} == {"# transfergen"}


def test_missing_run_or_gradio_gets_one_line(monkeypatch, run_dir):
    code, _, err = called(main)
    assert (code, "run=RUN_DIR is missing" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = called(main, f"run={run_dir}")
    assert (code, "pip install 'transfergen[explore]'" in err) == (2, True)


def test_a_port_that_is_taken_gets_one_line_before_the_generator_is_loaded(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = called(main, f"run={run_dir}", f"port={port}")
    free = port + 1 if port < 65535 else 7861
    assert (code, out) == (2, "")
    assert err == f"transfergen: port={port}: address already in use; choose another, such as port={free}\n"


def test_the_page_shows_the_generator_at_its_best_moment(monkeypatch, run_dir, tmp_path):
    pytest.importorskip("gradio")
    run, shown = shutil.copytree(run_dir, tmp_path / "run"), []
    monkeypatch.setattr(explore, "page", lambda generator, *_: shown.append(generator) or SimpleNamespace(launch=dict))
    code, _, err = called(main, f"run={run}", "checkpoint=best")
    assert (code, f"checkpoint=best: run={run} kept none" in err) == (2, True)
    Generator.from_pretrained("builtin:cifar10").save_pretrained(run / "best")
    for checkpoint, resolution in (("last", 32), ("best", 64)):
        code, _, err = called(main, f"run={run}", f"checkpoint={checkpoint}")
        assert code == 0, err
        assert shown[-1].resolution == resolution


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def address(browser, run_dir):
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transfergen", "explore", f"run={run_dir}", f"port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        url = server.stdout.readline().split()[0]
        assert url == f"http://127.0.0.1:{port}"
        while not answers(port):
            assert server.poll() is None, "it ended before it answered"
            time.sleep(0.1)
        yield url
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0, "Ctrl-C is the way to end it"
    finally:
        server.kill()


def test_a_browser_shows_the_pictures_of_its_seeds_and_what_is_wrong_with_a_seed(browser, address, run_dir):
    tab = browser.new_page(viewport={"width": 1000, "height": 1000})
    tab.goto(address, wait_until="domcontentloaded", timeout=60_000)
    picture, seed = tab.locator("#grid img"), tab.locator("#seed input")
    picture.wait_for(timeout=60_000)
    generator = Generator.from_pretrained(run_dir)

    def changed(act):
        before = picture.get_attribute("src")
        act()
        tab.wait_for_function("it => document.querySelector('#grid img').src != it", arg=before, timeout=60_000)
        return np.asarray(Image.open(urllib.request.urlopen(picture.get_attribute("src"))))

    def expected(first):
        return np.asarray(enlarged(samples(generator, first, 16, 2.0, BY_SEED)))

    np.testing.assert_array_equal(changed(lambda: seed.fill("1000")), expected(1000))
    np.testing.assert_array_equal(changed(tab.locator("#next").click), expected(1016))
    assert seed.input_value() == "1016"
    shown = picture.get_attribute("src")
    seed.fill("")
    tab.wait_for_timeout(500)
    assert picture.get_attribute("src") == shown
    seed.fill("-1")
    tab.get_by_text("A seed is a whole number from 0 to 4294967295.").first.wait_for(timeout=60_000)
    if "TRANSFERGEN_SCREENSHOT" in os.environ:
        tab.screenshot(path=Path(os.environ["TRANSFERGEN_SCREENSHOT"]))
    tab.close()
