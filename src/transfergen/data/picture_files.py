"""The picture files below a folder: which are read, and which are left out."""

import os
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from transfergen.data.formats import HEIF_SUFFIXES, SUFFIXES, bytes_digest, file_digest, open_image
from transfergen.data.pictures import Pictures
from transfergen.errors import counted

_RUN_FILES = {".hydra", "multirun.yaml"}
"""Files by which the folder of a run or of a sweep is told: Hydra writes them there."""
_RUN = ("folder of a run", "folders of runs")
_READ_ALREADY = ("link to a folder that is read already", "links to folders that are read already")
_NO_SUFFIX = ("file without a suffix", "files without a suffix")
Walk = Iterator[tuple[str, list[str], list[str]]]


class PictureFiles:
    """The pictures in a folder and in its subfolders.

    Hidden files are passed over, and so are the folders of runs, whose pictures are samples. Links are followed, but
    each folder is read once. Names are relative to the folder, with `/` between their parts.

    Attributes:
        root: the folder.
        names: of the pictures, sorted.
        folders: all subfolders but hidden ones and those that runs were written to.
        left_out: how many other files and folders of each kind there are, by its singular and its plural.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        self.folders: set[str] = set()
        self.left_out: Counter[tuple[str, str]] = Counter()
        seen: set[Hashable] = set()
        for folder, folders, names in self._walk():
            identity = self._identity(folder)
            is_run = bool(folder) and not _RUN_FILES.isdisjoint([*folders, *names])
            if is_run:
                self.folders.difference_update(accumulate(folder.split("/"), "{}/{}".format))
            if is_run or identity in seen:
                self.left_out[_RUN if is_run else _READ_ALREADY] += 1
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            self.folders.update(join_name(folder, name) for name in folders)
            for name in (join_name(folder, name) for name in sorted(names) if not _is_hidden(name)):
                suffix = PurePosixPath(name).suffix.lower()
                if suffix not in SUFFIXES:
                    self.left_out[(suffix, suffix) if suffix else _NO_SUFFIX] += 1
                elif self._is_file(name):
                    self.names.append(name)
                else:
                    self.left_out[f"{suffix} that is no file", f"{suffix} that are no files"] += 1
        self.names.sort(key=lambda name: name.split("/"))

    def pictures(self, names: Sequence[str], identity: str, **others: Any) -> Pictures:
        """The pictures of these names. Their identity begins with `identity`; `others` are arguments of `Pictures`."""

        def about(name: str) -> tuple[str, int, bytes]:
            return str(self._path(name).absolute()), self._modified(name), self.digest(name)

        return Pictures(
            identity=lambda: f"{identity}/{bytes_digest(repr([about(name) for name in names]).encode()).hex()}",
            open=lambda i: open_image(self.source(names[i])),
            name=lambda i: str(self._path(names[i])),
            digest=lambda i: self.digest(names[i]),
            **others,
        )

    def left_out_text(self) -> str:
        """A line that counts the files without a picture by their kind; "" if there are none."""
        kinds = ", ".join(counted(count, *kind) for kind, count in self.left_out.most_common())
        heif = next((kind for kind, _ in self.left_out if kind in HEIF_SUFFIXES), "")  # not among SUFFIXES here
        needs = f" ({heif} needs one more package: pip install 'transfergen[heif]')" if heif else ""
        return f"left out: {kinds}{needs}" if kinds else ""

    def digest(self, name: str) -> bytes:
        """16 bytes that differ between pictures of different content, see `file_digest`."""
        return file_digest(self._path(name))

    def _path(self, name: str) -> Path:
        return Path(f"{self.root}/{name}")

    def _walk(self) -> Walk:
        """Yield each folder with the names in it, as `os.walk` does: folders removed from the list are not visited."""

        def fail(error: OSError) -> None:
            raise error

        for folder, folders, names in os.walk(self.root, onerror=fail, followlinks=True):
            below = Path(folder).relative_to(self.root)
            yield "/".join(below.parts), folders, names

    def _identity(self, folder: str) -> Hashable:
        """A value that all names of one folder share, such as those of links to it, and no other folder has."""
        status = self._path(folder).stat()
        return status.st_dev, status.st_ino

    def _is_file(self, name: str) -> bool:
        return self._path(name).is_file()

    def _modified(self, name: str) -> int:
        return self._path(name).stat().st_mtime_ns

    def source(self, name: str) -> Path | BinaryIO:
        """The file that a picture is decoded from: its path, or its bytes as an open file."""
        return self._path(name)


def join_name(folder: str, name: str) -> str:
    """The name, relative to the root, of `name` in a folder; the folder is "" for the root itself."""
    return f"{folder}/{name}" if folder else name


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # what macOS adds to its archives
