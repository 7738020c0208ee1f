"""Images to disk: numbered PNGs in a folder or an archive, GIF, MP4."""

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from transfergen.images import to_pil
from transfergen.sampling.pretrained import PretrainedGenerator

_RUN_LENGTHS = 3
"""zlib's Z_RLE."""

_WRITERS = 2
"""Threads that encode a batch while the network, which needs all cores itself, waits. Pillow releases the GIL."""


class ImageTarget:
    """Where images are written, each under a number. Subclasses say how one is written."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WRITERS)

    def add(self, numbers: Sequence[int], pixels: Tensor) -> None:
        """Write images (B, 3, R, R) uint8, by their B numbers."""
        shares = [(numbers[i::_WRITERS], pixels[i::_WRITERS]) for i in range(_WRITERS)]
        list(self._pool.map(self._write, *zip(*shares, strict=True)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        self._close(whole=error is None)

    def __contains__(self, number: int) -> bool:
        return False

    def _write(self, numbers: Sequence[int], pixels: Tensor) -> None:
        raise NotImplementedError

    def _close(self, *, whole: bool) -> None:
        pass


class ImageFolder(ImageTarget):
    """Files 000000.png, 000001.png, ...; it contains the numbers whose files exist already."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):  # of a run that was killed
            part.unlink()
        self._existing = {file.name for file in folder.iterdir()}

    def __contains__(self, number: int) -> bool:
        return _name(number) in self._existing

    def _write(self, numbers: Sequence[int], pixels: Tensor) -> None:
        for number, image in zip(numbers, pixels, strict=True):
            part = self._folder / f".{_name(number)}.part"
            part.write_bytes(to_png(image))
            part.replace(self._folder / _name(number))


class ImageZip(ImageTarget):
    """Files 000000.png, 000001.png, ... in one archive, which exists only once it is whole."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._archive = zipfile.ZipFile(self._part, "w")  # stored: PNGs are compressed already
        self._lock = Lock()

    def _write(self, numbers: Sequence[int], pixels: Tensor) -> None:
        for number, image in zip(numbers, pixels, strict=True):
            content = to_png(image)
            with self._lock:
                self._archive.writestr(_name(number), content)

    def _close(self, *, whole: bool) -> None:
        self._archive.close()
        if whole:
            self._part.replace(self._path)
        else:
            self._part.unlink()


def write_images(
    generators: Sequence[PretrainedGenerator],
    target: ImageTarget,
    seeds: range,
    *,
    batch_size: int,
    track: Callable[[range], Iterable[int]] = iter,
    **options: Any,
) -> None:
    """Write the images of seeds, numbered from 0, that the target does not contain yet.

    Args:
        generators: the same network on one or more devices, which share the batches. Their number changes no image.
        target: receives the images.
        seeds: of the images.
        batch_size: images computed at once on a device.
        track: is handed the range of rounds and iterates over it, for a progress bar.
        options: those of `PretrainedGenerator.pixels`.
    """

    def make(generator: PretrainedGenerator, numbers: Sequence[int]) -> None:
        target.add(numbers, generator.pixels([seeds[i] for i in numbers], batch_size=batch_size, **options))

    missing = [i for i in range(len(seeds)) if i not in target]
    batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
    devices = len(generators)
    with ThreadPoolExecutor(devices) as workers:
        for start in track(range(0, len(batches), devices)):
            list(workers.map(make, generators, batches[start : start + devices]))


def to_png(pixels: Tensor) -> bytes:
    """Pixels (3, R, R) uint8 -> a PNG. Run lengths compress small images as well as zlib's search, in half the time."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def write_gif(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Write frames (N, 3, R, R) uint8 that play forwards and backwards in a loop, at `fps` frames a second."""
    frames = [to_pil(frame) for frame in (*pixels, *pixels.flip(0)[1:-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)


def write_mp4(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Write frames (N, 3, R, R) uint8, with R even, as H.264 at `fps` frames a second.

    Raises:
        ValueError: PyAV, which encodes them, is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{path.name} needs one more package: pip install 'transfergen[video]'") from error
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps))
        stream.height, stream.width = pixels.shape[2:]
        stream.pix_fmt = "yuv420p"
        for frame in pixels:
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())


def _name(number: int) -> str:
    return f"{number:06d}.png"
