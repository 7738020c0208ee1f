"""Pictures in zip and tar archives, which are read in place as the folders would be that they hold.

An archive may be anybody's. The names in it are only names, under which nothing is opened or written.
"""

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from transfergen.data.formats import bytes_digest, file_digest
from transfergen.data.picture_files import PictureFiles, Walk, join_name
from transfergen.errors import first_line

_LARGEST = 2**30
"""Bytes of the largest picture that is read, since the headers of an archive may promise any size."""
_LONGEST = 4096
"""Characters of the longest name; file systems have no longer ones."""


def find_pictures(setting: str, root: Path) -> PictureFiles:
    """The pictures in a folder or in an archive.

    Raises:
        ValueError: there is no such folder or archive, no picture in it, or an archive cannot be read. The message
            names the `setting`.
    """
    kinds = {suffix: kind for kind in (_Zip, _Tar, _CompressedTar) for suffix in kind.SUFFIXES}
    kind = next((kind for suffix, kind in kinds.items() if root.name.lower().endswith(suffix)), None)
    if root.is_dir():
        files = PictureFiles(root)
    elif kind is not None and root.is_file():
        try:
            files = _open(kind, root, root.stat().st_mtime_ns)
        except Exception as error:  # whatever a broken archive leads its reader to
            raise ValueError(f"{setting}={root}: cannot be read as an archive ({first_line(error)})") from error
    elif root.is_file():
        raise ValueError(f"{setting}={root}: neither a folder nor an archive ({', '.join(kinds)}); unpack it first")
    else:
        raise ValueError(f"{setting}={root}: there is no such folder or archive")
    if not files.names:
        found = ["no picture in it or in its subfolders", files.left_out_text()]
        raise ValueError(f"{setting}={root}: " + "; ".join(filter(None, found)))
    return files


class Archive(PictureFiles):
    """The pictures in an archive. Several threads, and processes after a fork, may read them at the same time.

    Args:
        root: the archive.
        members: for the name of each member, the argument of `_read` and the size in bytes; None for what is no file.
            The name of a folder ends in `/`.
    """

    def __init__(self, root: Path, members: dict[str, tuple[Any, int] | None]) -> None:
        self._members: dict[str, tuple[Any, int] | None] = {}
        self._digests: dict[str, bytes] = {}
        for name, member in members.items():
            if len(name) > _LONGEST:
                raise ValueError(f"a name in it is longer than {_LONGEST:,} characters")
            parts = [part for part in name.split("/") if part not in ("", ".", "..")]
            if parts:
                self._members["/".join(parts) + "/" * name.endswith("/")] = member
        super().__init__(root)

    def digest(self, name: str) -> bytes:
        """See the base class. Compressed bytes cannot be skipped: each picture is read as a whole, but only once."""
        if name not in self._digests:
            try:
                self._digests[name] = file_digest(self.source(name))
            except Exception:  # whatever a damaged archive leads its reader to
                self._digests[name] = bytes_digest(os.fsencode(name))
        return self._digests[name]

    def read(self, name: str) -> bytes | None:
        """The content of any file, also of one that is no picture; None if there is none of this name."""
        return self.source(name).read() if self._members.get(name) else None

    def _read(self, where: Any, size: int) -> bytes:
        raise NotImplementedError

    def source(self, name: str) -> BinaryIO:
        """See the base class. The whole content is read into memory."""
        member = self._members[name]
        assert member is not None
        if member[1] > _LARGEST:
            raise ValueError(f"{member[1] / 2**20:,.0f} MiB, more than {_LARGEST / 2**20:,.0f}")
        return BytesIO(self._read(*member))

    def _walk(self) -> Walk:
        tree: dict[str, tuple[set[str], list[str]]] = {"": (set(), [])}
        for path in self._members:
            folder, _, name = path.rpartition("/")
            if folder not in tree:
                for each in accumulate(folder.split("/"), join_name):
                    tree.setdefault(each, (set(), []))
                    above, _, last = each.rpartition("/")
                    tree[above][0].add(last)
            if name:
                tree[folder][1].append(name)
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            folders = list(tree[folder][0])
            yield folder, folders, tree[folder][1]
            waiting += [join_name(folder, name) for name in folders]

    def _identity(self, folder: str) -> Hashable:
        return folder

    def _is_file(self, name: str) -> bool:
        return self._members[name] is not None

    def _modified(self, name: str) -> int:
        return self.root.stat().st_mtime_ns


class _Zip(Archive):
    SUFFIXES = (".zip",)

    def __init__(self, root: Path) -> None:
        self._file, self._process = zipfile.ZipFile(root), os.getpid()
        members = self._file.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise ValueError("it is encrypted")
        named = {m.filename.replace("\\", "/"): m for m in members}  # some programs on Windows write backslashes
        links = {name for name, member in named.items() if stat.S_ISLNK(member.external_attr >> 16)}
        super().__init__(root, {name: None if name in links else (m, m.file_size) for name, m in named.items()})

    def _read(self, where: zipfile.ZipInfo, size: int) -> bytes:
        if self._process != os.getpid():  # after a fork, processes would move each other's place in one file
            self._file, self._process = zipfile.ZipFile(self.root), os.getpid()
        return self._file.read(where)


class _Tar(Archive):
    SUFFIXES: tuple[str, ...] = (".tar",)

    def __init__(self, root: Path) -> None:
        self._index(root, "r:")

    def _index(self, root: Path, mode: Any) -> None:
        with tarfile.open(root, mode, tarinfo=_Header) as tar:
            super().__init__(root, {m.name + "/" * m.isdir(): self._locate(tar, m) for m in tar})

    def _locate(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int] | None:
        """The place in `_file` where a member's content begins, and its size; None if the member is no file."""
        return (member.offset_data, member.size) if member.isreg() and not member.issparse() else None

    def _opened(self) -> AbstractContextManager[BinaryIO]:
        """The file in which `_locate` finds members: closed after each use, as there may be thousands of archives."""
        return self.root.open("rb", buffering=0)

    def _read(self, where: int, size: int) -> bytes:
        with self._opened() as file:
            content = os.pread(file.fileno(), size, where)
        if len(content) < size:
            raise ValueError("the archive ends before it does")
        return content


class _CompressedTar(_Tar):
    """A compressed tar archive: its files are unpacked once, in order, into a temporary file without a name."""

    SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

    def __init__(self, root: Path) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as this object)
        self._index(root, "r|*")
        self._file.flush()

    def _opened(self) -> AbstractContextManager[Any]:
        return nullcontext(self._file)

    def _locate(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[int, int] | None:
        located, start = super()._locate(tar, member), self._file.tell()
        if located is None or member.size > _LARGEST:  # `source` refuses these
            return located
        folder = tempfile.gettempdir()
        if shutil.disk_usage(folder).free < member.size + _LARGEST:
            raise ValueError(f"{folder} has no space for what it unpacks to; set TMPDIR, or unpack it elsewhere")
        content = tar.extractfile(member)
        assert content is not None
        shutil.copyfileobj(content, self._file)
        return start, member.size


class _Header(tarfile.TarInfo):
    """A header that raises an error if it is damaged, where tarfile would see the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(str(error)) from None


TAR_SUFFIXES = (*_Tar.SUFFIXES, *_CompressedTar.SUFFIXES)
"""How the names of tar archives end, in lower case."""


@lru_cache(maxsize=2)
def _open(kind: type[_Zip] | type[_Tar], root: Path, modified: int) -> Archive:
    """An archive whose index is read once for both splits, and again once the archive has changed."""
    return kind(root)
