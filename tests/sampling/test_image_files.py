"""Images on disk: PNG, numbered files that are shared out, GIF and MP4."""

import io
import resource

import numpy as np
import pytest
import torch
from generators import varied
from PIL import Image

from transfergen.networks.generators.dcgan import DCGAN
from transfergen.sampling.image_files import image_folder, image_zip, to_png, write_gif, write_images, write_mp4
from transfergen.sampling.pretrained import PretrainedGenerator


@pytest.fixture
def fading():
    """Five frames (5, 3, 32, 32) that fade from black to white."""
    return torch.linspace(0, 255, 5).round().to(torch.uint8)[:, None, None, None].expand(5, 3, 32, 32).contiguous()


def test_png_holds_the_pixels():
    pixels = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    read = np.asarray(Image.open(io.BytesIO(to_png(pixels))))
    np.testing.assert_array_equal(read.transpose(2, 0, 1), pixels)


def test_gif_plays_forwards_and_backwards_in_a_loop(tmp_path, fading):
    write_gif(tmp_path / "a.gif", fading, fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (8, 100, 0)
        means = []
        for i in range(8):
            gif.seek(i)
            means.append(np.asarray(gif.convert("RGB")).mean())
    assert means == pytest.approx([0, 64, 128, 191, 255, 191, 128, 64], abs=2)


def test_mp4_has_the_frames_in_order(tmp_path, fading):
    av = pytest.importorskip("av")
    write_mp4(tmp_path / "a.mp4", fading, fps=10)
    with av.open(tmp_path / "a.mp4") as film:
        assert film.streams.video[0].average_rate == 10
        means = [frame.to_ndarray(format="rgb24").mean() for frame in film.decode(video=0)]
    assert means == pytest.approx([0, 64, 128, 191, 255], abs=8)


@pytest.mark.parametrize("channels", [1, 4])
def test_films_of_grey_and_of_transparent_frames(tmp_path, fading, channels):
    av = pytest.importorskip("av")
    frames = fading[:, :1, :, :16].repeat(1, channels, 1, 1)
    write_gif(tmp_path / "a.gif", frames, fps=10)
    write_mp4(tmp_path / "a.mp4", frames, fps=10)
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.size) == (8 if channels == 1 else 7, (16, 32))  # the first two are transparent
    with av.open(tmp_path / "a.mp4") as film:
        means = [frame.to_ndarray(format="rgb24").mean() for frame in film.decode(video=0)]
    grey = [0, 64, 128, 191, 255]
    alphas = [value / 255 if channels == 4 else 1 for value in grey]
    assert means == pytest.approx([v * a + 127.5 * (1 - a) for v, a in zip(grey, alphas, strict=True)], abs=8)


def test_a_transparent_gif_shows_each_frame_alone(tmp_path):
    frames = torch.full((3, 4, 8, 8), 255, dtype=torch.uint8)
    for frame, width in zip(frames, (6, 3, 5), strict=True):
        frame[3, :, width:] = 100
    write_gif(tmp_path / "a.gif", frames, fps=10)
    widths = []
    with Image.open(tmp_path / "a.gif") as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            widths.append(np.count_nonzero(np.asarray(gif.convert("RGBA"))[0, :, 3]))
    assert widths == [6, 3, 5, 3]


def test_devices_share_the_images_and_those_that_exist_are_left(tmp_path):
    network = varied(DCGAN(resolution=32, width=4))
    generators = [PretrainedGenerator(network, {}) for _ in range(2)]
    for name, count in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "000001.png").write_text("kept")
        with image_folder(tmp_path / name) as target:
            write_images(generators[:count], target, range(5, 12), batch_size=2)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert sorted(one) == [f"{i:06d}.png" for i in range(7)]
    assert one["000001.png"] == b"kept"
    expected = generators[0].pixels([5 + 6])[0].int().permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(Image.open(io.BytesIO(one["000006.png"]))) - expected).max() <= 1


@pytest.mark.parametrize("target", [image_zip, image_folder])
def test_full_disk_leaves_nothing_of_an_archive_and_no_half_image(tmp_path, target):
    noise = to_png(torch.randint(256, (3, 64, 64), dtype=torch.uint8))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))
        with pytest.raises(OSError, match="File too large"), target(tmp_path / "out") as images:
            images.write("000000.png", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.rglob("*")] == ([] if target is image_zip else ["out"])
