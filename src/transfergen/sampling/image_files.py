"""Images to disk: numbered PNGs in a folder or an archive, GIF, MP4."""

import io
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from transfergen.images import to_float, to_pil, to_rgb, to_uint8
from transfergen.runs.artefacts import partial, write
from transfergen.sampling.pretrained import PretrainedGenerator

_RUN_LENGTHS = 3
"""zlib's Z_RLE."""

_WRITERS = 2
"""Threads that encode a batch while the network, which needs all cores itself, waits. Pillow releases the GIL."""


class ImageTarget(NamedTuple):
    """Where images are written."""

    write: Callable[[str, bytes], object]
    """Writes a file, given its name and content. Several threads may call it."""
    existing: Collection[str] = ()
    """Names of the files that are there already."""


@contextmanager
def image_folder(folder: Path) -> Iterator[ImageTarget]:
    """A folder, which is made if it does not exist. No file in it is ever incomplete."""
    folder.mkdir(parents=True, exist_ok=True)
    yield ImageTarget(lambda name, content: write(folder / name, content), {file.name for file in folder.iterdir()})


@contextmanager
def image_zip(path: Path, comment: str = "") -> Iterator[ImageTarget]:
    """An archive with a comment; it exists only once it is whole."""
    with partial(path) as part, zipfile.ZipFile(part, "w") as archive:  # stored: PNGs are compressed already
        archive.comment = comment.encode()
        yield ImageTarget(archive.writestr)


def write_images(
    generators: Sequence[PretrainedGenerator],
    target: ImageTarget,
    seeds: Sequence[int],
    *,
    batch_size: int,
    track: Callable[[range], Iterable[int]] = iter,
    **options: Any,
) -> None:
    """Write the images of seeds as 000000.png, 000001.png and so on, unless the target has them already.

    Args:
        generators: the same network on one or more devices, which share the batches. Their number changes no image.
        target: receives the images.
        seeds: of the images.
        batch_size: images computed at once on a device.
        track: is handed the range of rounds and iterates over it, for a progress bar.
        options: those of `PretrainedGenerator.pixels`.
    """

    def make(generator: PretrainedGenerator, numbers: Sequence[int]) -> None:
        pixels = generator.pixels([seeds[i] for i in numbers], batch_size=batch_size, **options)
        for i, png in zip(numbers, writers.map(to_png, pixels), strict=True):
            target.write(names[i], png)

    names = [f"{i:06d}.png" for i in range(len(seeds))]
    missing = [i for i, name in enumerate(names) if name not in target.existing]
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    devices = len(generators)
    with ThreadPoolExecutor(devices) as workers, ThreadPoolExecutor(_WRITERS) as writers:
        for start in track(range(0, len(batches), devices)):
            list(workers.map(make, generators, batches[start : start + devices]))


def to_png(pixels: Tensor) -> bytes:
    """Pixels (C, H, W) uint8 -> a PNG: grey, RGB or RGBA.

    Run lengths compress small images as well as zlib's search, in half the time.
    """
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def write_gif(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Write frames (N, C, H, W) uint8 that play forwards and backwards in a loop, at `fps` frames a second.

    A GIF's pixels are opaque or transparent: those whose alpha is less than half become transparent.
    """
    disposal: dict[str, int] = {}
    if pixels.shape[1] == 4:
        pixels = torch.where(pixels[:, 3:] < 128, 0, pixels)
        disposal = {"disposal": 2}  # else a frame would show through what is transparent in the next one
    frames = [to_pil(frame) for frame in (*pixels, *pixels.flip(0)[1:-1])]
    loop = {"save_all": True, "append_images": frames[1:], "duration": round(1000 / fps), "loop": 0}
    with partial(path) as part:
        frames[0].save(part, "GIF", **loop, **disposal)


def write_mp4(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Write frames (N, C, H, W) uint8, H and W even, as H.264 at `fps` frames a second. Alpha is laid on a mid grey.

    Raises:
        ValueError: PyAV, which encodes them, is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{path.name} needs one more package: pip install 'transfergen[video]'") from error
    with partial(path) as part, av.open(part, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = pixels.shape[2:]
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            (rgb,) = to_uint8(to_rgb(to_float(frame[None])))
            image = av.VideoFrame.from_ndarray(rgb.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
