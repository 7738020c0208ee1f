"""Images to disk: folders and archives of PNGs, GIF, MP4."""

import io
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from transfergen.images import to_pil

_RUN_LENGTHS = 3
"""zlib's Z_RLE."""

_WRITERS = 2
"""Threads that encode a batch while the network, which needs all cores itself, waits. Pillow does not hold Python."""


class _Target:
    """Takes batches of pixels."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_WRITERS)

    def add(self, numbers: Sequence[int], pixels: Tensor) -> None:
        """Images (B, 3, R, R) uint8 under these numbers."""
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


class ImageFolder(_Target):
    """000000.png and so on; those that are there already need not be made again."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):  # of a run that was killed
            part.unlink()
        self._there = {file.name for file in folder.iterdir()}

    def __contains__(self, number: int) -> bool:
        return _name(number) in self._there

    def _write(self, numbers: Sequence[int], pixels: Tensor) -> None:
        for number, image in zip(numbers, pixels, strict=True):
            part = self._folder / f".{_name(number)}.part"
            part.write_bytes(to_png(image))
            part.replace(self._folder / _name(number))


class ImageZip(_Target):
    """The same in one archive, which is there only once it is whole."""

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


def to_png(pixels: Tensor) -> bytes:
    """Pixels (3, R, R) uint8 -> a PNG. Run lengths alone are as small for small images, and take half the time."""
    buffer = io.BytesIO()
    to_pil(pixels).save(buffer, "PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return buffer.getvalue()


def write_gif(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Frames (N, 3, R, R) uint8, there and back for ever."""
    frames = [to_pil(frame) for frame in (*pixels, *pixels.flip(0)[1:-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)


def write_mp4(path: Path, pixels: Tensor, *, fps: int) -> None:
    """Frames (N, 3, R, R) uint8, R even, as H.264.

    Raises:
        ValueError: PyAV, which encodes, is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError(f"{path.name} needs a package more: pip install 'transfergen[video]'") from error
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
