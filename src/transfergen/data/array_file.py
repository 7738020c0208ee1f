"""Files of arrays, `.npy` and `.npz`, and the pictures in them."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from transfergen.data.formats import file_digest
from transfergen.data.pictures import Pictures, from_array
from transfergen.errors import first_line
from transfergen.image_shape import Channels

PICTURES = "arr_0"
"""The name that numpy gives an array without one, as in the files of ADM's evaluator."""


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Read the named arrays that a file holds. The only array of a `.npy` file is `arr_0`, and stays on the disk.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds Python objects, which are never unpickled.
    """
    if not path.is_file():
        raise ValueError("there is no such file")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {PICTURES: loaded}
        with loaded:
            found = {name: loaded[name] for name in names if name in loaded.files}
            return {name: array for name, array in found.items() if isinstance(array, np.ndarray)}  # or other bytes
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"no arrays of numbers can be read from it ({first_line(error)})") from error


def read_pictures(path: Path) -> Pictures:
    """The pictures of a `.npy` file, or of a `.npz` file's array `arr_0`: uint8, (N, H, W, C) of 1, 3 or 4 channels.

    Raises:
        ValueError: they cannot be read, or are of another type or shape.
    """
    pixels = read_arrays(path, [PICTURES]).get(PICTURES)
    if pixels is None:
        raise ValueError(f"has no array {PICTURES}, which would hold pictures")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in get_args(Channels) or 0 in pixels.shape:
        shape = ", ".join(map(str, pixels.shape))
        raise ValueError(
            f"pictures are uint8 of shape (N, H, W, C), with 1, 3 or 4 channels, and this is {pixels.dtype} of shape "
            f"({shape})"
        )
    identity = f"{path.absolute()}/{path.stat().st_mtime_ns}/{file_digest(path).hex()}"
    pictures = from_array(identity, pixels, np.zeros(len(pixels), np.int64), ())
    return pictures if pixels.shape[1] == pixels.shape[2] else replace(pictures, pixels=None)  # to be made square
