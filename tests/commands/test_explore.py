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
from runs import called

from transfergen import Generator
from transfergen.commands import explore
from transfergen.commands.explore import (
    BY_SEED,
    between,
    enlarged,
    main,
    mixed,
    moved,
    page,
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
        parts = page(generator, "").get_config_file()["components"]
        return {part["props"].get("label") for part in parts if part["props"].get("visible", True)}

    theirs = {"from class", "to class", "Styles", "first block of the fine seed"}
    assert theirs <= visible(generator)
    assert not theirs & visible(Generator.from_pretrained(run_dir))


def test_each_tab_shows_an_image_before_anything_is_moved(conditional_run):
    pytest.importorskip("gradio")
    shown = page(Generator.from_pretrained(conditional_run), "").get_config_file()
    names = {part["id"]: part["props"].get("elem_id") for part in shown["components"]}
    loaded = [each for each in shown["dependencies"] if "load" in {event for _, event in each["targets"]}]
    assert {names[i] for each in loaded for i in each["outputs"]} == {"grid", "between", "mixed", "moved"}
    choices = [part["props"] for part in shown["components"] if part["type"] == "dropdown"]
    assert len(choices) == 5
    assert all(dict(map(reversed, each["choices"]))[each["value"]] == "by seed" for each in choices)


def test_each_slider_of_a_direction_changes_the_picture(run_dir):
    generator = Generator.from_pretrained(run_dir)
    still, first, second = (moved(generator, 5, BY_SEED, *steps) for steps in ((0, 0), (3, 0), (0, 3)))
    assert np.abs(np.asarray(still).astype(int) - np.asarray(generator([5])[0])).max() <= 1
    assert len({image.tobytes() for image in (still, first, second)}) == 3


def test_a_generator_that_has_no_directions_says_so_instead_of_sliders(run_dir, monkeypatch):
    pytest.importorskip("gradio")
    generator = Generator.from_pretrained(run_dir)

    def shown(kind, key):
        return [p["props"][key] for p in page(generator, "").get_config_file()["components"] if p["type"] == kind]

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
    shown = page(generator, f"The training pictures cannot be read: {image}").get_config_file()
    kinds = {part["type"] for part in shown["components"] if image in str(part["props"].get("value"))}
    assert kinds == {"textbox"}
    assert {part["props"]["value"] for part in shown["components"] if part["type"] == "markdown"} == {"# transfergen"}


def test_missing_run_or_gradio_gets_one_line(monkeypatch, run_dir):
    code, _, err = called(main)
    assert (code, "run=RUN_DIR is missing" in err) == (2, True)
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = called(main, f"run={run_dir}")
    assert (code, "pip install 'transfergen[explore]'" in err) == (2, True)


def test_the_page_shows_the_generator_at_its_best_moment(monkeypatch, run_dir, tmp_path):
    pytest.importorskip("gradio")
    run, shown = shutil.copytree(run_dir, tmp_path / "run"), []
    monkeypatch.setattr(
        explore, "page", lambda generator, search: shown.append(generator) or SimpleNamespace(launch=dict)
    )
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


def test_a_click_in_a_browser_changes_the_picture(browser, address):
    tab = browser.new_page(viewport={"width": 1000, "height": 1000})
    tab.goto(address, wait_until="domcontentloaded", timeout=60_000)
    picture = tab.locator("#grid img")
    picture.wait_for(timeout=60_000)
    before = picture.get_attribute("src")
    tab.locator("#seed input").fill("1000")
    tab.locator("#show").click()
    tab.wait_for_function("before => document.querySelector('#grid img').src != before", arg=before, timeout=60_000)
    after = urllib.request.urlopen(picture.get_attribute("src")).read()
    assert after != urllib.request.urlopen(before).read()
    if "TRANSFERGEN_SCREENSHOT" in os.environ:
        tab.screenshot(path=Path(os.environ["TRANSFERGEN_SCREENSHOT"]))
    tab.close()
