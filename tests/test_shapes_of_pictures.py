"""Pictures of any mode and shape, from files to a training, its resumption, images, an export and metrics."""

import json
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from runs import ANY_MODEL, SMALL_MODELS, called, train, vgg11

from transfergen import Generator
from transfergen.commands import evaluate, export, generate
from transfergen.image_shape import ImageShape
from transfergen.training import gan_module

MODES = ("L", "LA", "RGB", "RGBA", "P")
VGG = [*vgg11("backbone"), "discriminator.width=8", "discriminator.hidden=16"]
RUNS = {
    "grey upright": (1, "[2,3]", ImageShape(1, 48, 32), VGG),
    "RGBA wide": (4, "[2,1]", ImageShape(4, 32, 64), [*SMALL_MODELS["projected"], "augment=diffaugment"]),
}


def picture(mode, seed):
    """Noise of this mode, and of a size that depends on the seed."""
    rng = np.random.default_rng(seed)
    rgba = Image.fromarray(rng.integers(0, 256, (40 + seed % 7, 30 + seed % 5, 4), np.uint8))
    if mode != "P":
        return rgba.convert(mode)
    palette = rgba.convert("RGB").quantize(8)
    palette.info["transparency"] = 0
    return palette


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        picture(MODES[i % 5], i).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module", params=RUNS)
def run(request, pictures, tmp_path_factory):
    """A run directory, after two steps and two more of the resumed training; and the shape of its images."""
    channels, aspect, shape, model = RUNS[request.param]
    folder = tmp_path_factory.mktemp("run")
    data = [f"data.path={pictures}", f"data.channels={channels}", f"data.aspect={aspect}"]
    general = [option for option in ANY_MODEL if not option.startswith(("data=", "data.source"))]
    kept = mock.Mock(wraps=gan_module.RealFeatures)
    with mock.patch.object(gan_module, "RealFeatures", kept):
        code, _, err = train(folder, *general, "data=image_folder", *data, *model, "max_images=16", small=False)
        assert code == 0, err
    assert (kept.call_args.kwargs["cache_mib"] == 0) == (channels == 4), "features on one random colour would be kept"
    code, _, err = train(folder, f"resume={folder}", "max_images=32", small=False)
    assert code == 0, err
    return folder, shape


def test_grids_the_config_and_the_generator_have_the_shape(run):
    folder, shape = run
    columns = 2
    sides = tuple(columns * (side + 2) + 2 for side in (shape.width, shape.height))
    for grid in ("grid.png", "samples/reals.png", "samples/000000032.png"):
        with Image.open(folder / grid) as sheet:
            assert (sheet.mode, sheet.size) == (shape.mode, sides), grid
    generator = Generator.from_pretrained(folder)
    assert (generator.image_shape, generator.resolution) == (shape, 32)
    (image,) = generator([7])
    assert (image.mode, image.size) == (shape.mode, (shape.width, shape.height))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_seen"] == 32
    assert metrics["metrics"]


def test_images_are_written_in_their_mode_and_measured_in_their_shape(run, pictures, tmp_path):
    folder, shape = run
    code, _, err = called(generate.main, f"run={folder}", "num=3", f"out={tmp_path}")
    assert code == 0, err
    for i in range(3):
        with Image.open(tmp_path / "images" / f"{i:06d}.png") as image:
            assert (image.mode, image.size) == (shape.mode, (shape.width, shape.height))
    channels = f"data.channels={shape.channels}"
    about = {"resolution": 32, "aspect": list(shape.aspect), "channels": shape.channels}
    for given in (
        [f"run={folder}"],
        [f"run={folder}", f"real={pictures}"],
        [f"fake={tmp_path / 'images'}", f"real={pictures}", channels],
    ):
        out = tmp_path / "result.json"
        code, printed, err = called(
            evaluate.main, *given, "metrics=pixels", "count=8", f"out={out}", "format=json", "device=cpu"
        )
        assert code == 0, err
        result = json.loads(printed)
        assert {key: result[key] for key in about} == about
        assert {record["name"] for record in result["metrics"]} >= {"frechet_distance", "kernel_distance"}


def test_the_export_makes_the_same_images(run, tmp_path):
    code, out, err = called(export.main, f"run={run[0]}", "format=torch_export", f"out={tmp_path / 'out.pt2'}")
    assert code == 0, err
    assert "differs by" in out


def test_the_image_nearest_to_a_picture_is_searched_in_the_shape(run, pictures, tmp_path):
    folder, shape = run
    code, _, err = called(generate.main, f"run={folder}", f"invert={pictures / '3.png'}", "steps=2", f"out={tmp_path}")
    assert code == 0, err
    with Image.open(tmp_path / "inversion.png") as sheet:
        assert (sheet.mode, sheet.size) == (shape.mode, (2 * shape.width + 6, shape.height + 4))
