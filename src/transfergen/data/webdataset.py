"""Shards in the layout of WebDataset: tar archives in which the files of a sample lie together under one key."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from transfergen.data.archives import TAR_SUFFIXES, Archive, find_pictures
from transfergen.data.formats import bytes_digest, file_digest, open_image
from transfergen.data.labels import number_classes
from transfergen.data.pictures import Pictures, Split, hold_out
from transfergen.errors import counted

_BRACES = re.compile(r"\{(\d+\.\.\d+|[^{},]*(?:,[^{},]*)+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class _Sample(NamedTuple):
    """The picture `key.extension` in a shard."""

    shard: Archive
    key: str
    extension: str

    @property
    def name(self) -> str:
        return f"{self.key}.{self.extension}"

    def label(self, where: str) -> Any:
        """The class that lies beside the picture, in `key.where`, or in a field of `key.json`; None: there is none."""
        extension, *fields = where.split(".")
        content = self.shard.read(f"{self.key}.{extension}")
        if content is None:
            return None
        text = content.decode().strip()
        value = text if not fields else json.loads(text)
        for field in fields:
            value = value.get(field) if isinstance(value, dict) else None
        return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d+", value) else value


def webdataset(
    path: str,
    split: Split,
    *,
    test_path: str | None = None,
    image: str | None = None,
    label: str = "cls",
    holdout: float = 0.1,
) -> Pictures:
    """A split of the pictures in tar shards, read in place. If some have a class, those without one are left out.

    Args:
        path: the shards: one file, a folder of them, a pattern with `*`, or a range or list in braces, as in
            `train-{0000..0009}.tar` and `train-{000,001,007}.tar`.
        split: train or test.
        test_path: the shards of the test split; None: a part of the others is held out.
        image: the extension of a sample's picture, as in `jpg`; None: that of the first picture of each.
        label: where the class of a sample is: an extension, or a field of its JSON, as in `json.label`.
        holdout: fraction of the pictures that is held out.

    Raises:
        ValueError: there is no such shard, it is broken, it has no picture with this extension, or there are no classes
            where `label` says.
    """
    train, classes = _labelled("data.path", path, image, label, None)
    if test_path is None:
        return hold_out(train, split, holdout)
    return train if split == "train" else _labelled("data.source.test_path", test_path, image, label, classes)[0]


def _labelled(setting: str, path: str, image: str | None, where: str, known: Any) -> tuple[Pictures, tuple[Any, ...]]:
    """The pictures in shards, and their classes as they are written there."""
    shards = _shards(setting, path)
    state = tuple((str(shard), shard.stat().st_mtime_ns, file_digest(shard)) for shard in shards)
    everything = _samples(setting, state)
    firsts: dict[tuple[Path, str], _Sample] = {}
    for sample in everything:
        if image in (None, sample.extension):
            firsts.setdefault((sample.shard.root, sample.key), sample)
    samples = list(firsts.values())
    if not samples:
        found = ", ".join(sorted({sample.extension for sample in everything}))
        raise ValueError(f"data.source.image={image}: no picture in {path} has this extension; choose {found}")
    try:
        values = [sample.label(where) for sample in samples]
    except ValueError as error:
        raise ValueError(f"data.source.label={where}: a label in {path} cannot be read ({error})") from error
    if where != "cls" and all(value is None for value in values):
        raise ValueError(f"data.source.label={where}: no sample in {path} has a class there")
    if any(isinstance(value, str) for value in (values if known is None else known)):  # not numbers alone
        values = [None if value is None else str(value) for value in values]
    labels, classes = number_classes(values, f"data.source.label={where}", setting, known=known)
    notes = [f"{setting}={path}: {counted(len(shards), 'shard')}, {counted(len(samples), 'sample')} with a picture"]
    if unknown := int((labels < 0).sum()):
        notes.append(f"{setting}={path}: left out: {counted(unknown, 'picture')} without a class")
    pictures = Pictures(
        identity=lambda: f"webdataset/{image}/{bytes_digest(repr(state).encode()).hex()}",
        open=lambda i: open_image(samples[i].shard.source(samples[i].name)),
        name=lambda i: f"{samples[i].shard.root}/{samples[i].name}",
        labels=labels,
        classes=tuple(map(str, classes)),
        digest=lambda i: samples[i].shard.digest(samples[i].name),
        notes=tuple(notes),
    )
    return (pictures.subset(np.flatnonzero(labels >= 0), f"labelled/{where}") if unknown else pictures), classes


def _shards(setting: str, path: str) -> list[Path]:
    """The files that a path, a pattern, or ranges and lists in braces stand for, each once.

    Raises:
        ValueError: there are none, or one of a range or list is missing.
    """
    shards: list[Path] = []
    for given in map(Path, _expanded(str(Path(path).expanduser()))):
        if given.is_dir():
            shards += sorted(file for file in given.iterdir() if file.name.lower().endswith(TAR_SUFFIXES))
        else:
            shards += sorted(given.parent.glob(given.name)) or [given]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise ValueError(f"{setting}={path}: there is no shard {missing[0] if missing else 'in this folder or range'}")
    return list(dict.fromkeys(shard.resolve() for shard in shards))


def _expanded(pattern: str) -> Iterator[str]:
    """The paths of a pattern with braces: of ranges, as `{00..11}`, whose leading zeros stay, and of lists, as `{a,b}`.

    An item of a list may be a range.
    """
    found = _BRACES.search(pattern)
    if not found:
        yield pattern
        return
    for item in found[1].split(","):
        span = _RANGE.fullmatch(item)
        texts = [f"{i:0{len(span[1])}}" for i in range(int(span[1]), int(span[2]) + 1)] if span else [item]
        for text in texts:
            yield from _expanded(f"{pattern[: found.start()]}{text}{pattern[found.end() :]}")


@lru_cache(maxsize=2)
def _samples(setting: str, state: tuple[tuple[str, int, bytes], ...]) -> list[_Sample]:
    """All pictures in shards, whose headers are read once."""
    samples = []
    for path, *_ in state:
        shard = cast(Archive, find_pictures(setting, Path(path)))
        for name in shard.names:
            folder, slash, file = name.rpartition("/")
            key, _, extension = file.partition(".")
            samples.append(_Sample(shard, f"{folder}{slash}{key}", extension))
    return samples
