import numpy as np
import pytest
import torch

from transfergen.images import resize, to_float, to_grid, to_pil, to_uint8


def test_every_pixel_value_survives_conversion_to_float_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256, 256)
    images = to_float(pixels)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_uint8(images), pixels)


def test_floats_are_rounded_to_the_nearest_pixel_and_clipped():
    steps = torch.tensor([-9.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1 - 0.51 / 127.5, 1.0, 9.0])
    before = steps.clone()
    assert to_uint8(steps.view(1, 1, 1, -1)).flatten().tolist() == [0, 0, 0, 1, 254, 255, 255]
    assert torch.equal(steps, before)


def test_bfloat16_images_are_converted_in_float32():
    images = (torch.rand(1, 3, 16, 16) * 2 - 1).bfloat16()
    assert torch.equal(to_uint8(images), to_uint8(images.double()))


def test_enlarging_is_bilinear():
    images = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).expand(1, 3, 2, 2)
    assert resize(images, 4)[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]


def test_shrinking_averages_a_fine_pattern_instead_of_sampling_it():
    stripes = torch.tensor([-1.0, 1.0, 1.0, -1.0]).repeat(8)
    assert resize(stripes.expand(1, 3, 32, 32), 8).abs().max() < 0.5


def test_pixels_of_another_size_come_at_the_wanted_resolution():
    pixels = torch.full((2, 3, 32, 32), 255, dtype=torch.uint8)
    assert torch.equal(to_float(pixels, 64), torch.ones(2, 3, 64, 64))


@pytest.mark.parametrize(("count", "columns", "layout"), [(5, None, (2, 3)), (9, None, (3, 3)), (6, 2, (3, 2))])
def test_a_grid_has_its_images_in_rows(count, columns, layout):
    pixels = (torch.arange(count, dtype=torch.uint8) * 20 + 20).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    sheet = np.asarray(to_grid(pixels, columns))
    rows, across = layout
    assert sheet.shape == (rows * 10 + 2, across * 10 + 2, 3)
    centres = sheet[6::10, 6::10, 0].flatten().tolist()
    assert centres == [20 * (i + 1) for i in range(count)] + [0] * (rows * across - count)


def test_grids_of_images_and_of_their_pixels_are_equal():
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    assert to_grid(images).tobytes() == to_grid(to_uint8(images)).tobytes()


def test_a_picture_keeps_rows_columns_and_channels_in_place():
    pixels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    pixels[:, 1, 2] = torch.tensor([10, 20, 30], dtype=torch.uint8)
    assert to_pil(pixels).getpixel((2, 1)) == (10, 20, 30)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_and_grids_have_the_mode_of_their_channels(channels, mode):
    pixels = torch.randint(256, (3, channels, 8, 12), dtype=torch.uint8)
    assert (to_pil(pixels[0]).mode, to_pil(pixels[0]).size) == (mode, (12, 8))
    grid = to_grid(pixels, columns=3)
    assert (grid.mode, grid.size) == (mode, (3 * 14 + 2, 12))
    assert np.array_equal(np.asarray(grid)[2:10, 2:14], np.asarray(to_pil(pixels[0])))
