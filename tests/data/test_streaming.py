import io
from functools import partial

import datasets
import numpy as np
import pytest
from PIL import Image
from runs import ANY_MODEL, train

from transfergen.data import huggingface_stream, streaming
from transfergen.data.datamodule import ImageDataModule
from transfergen.data.huggingface import huggingface


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(streaming, "chunk_rows", lambda row: 4)


def write_parquet(folder, **splits):
    """Parquet files, two a split, of pictures of these red values; classes are the values modulo 3, but -1 for 99."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    for split, reds in splits.items():
        for i, part in enumerate((reds[: len(reds) // 2], reds[len(reds) // 2 :])):
            rows = {"image": [_cell(red) for red in part], "label": [-1 if red == 99 else red % 3 for red in part]}
            table = datasets.Dataset.from_dict(rows, features)
            table.to_parquet(folder / f"{split}-{i:05}-of-00002.parquet")
    return str(folder)


def _cell(red):
    file = io.BytesIO()
    Image.new("RGB", (40, 36), (red, 7, 9)).save(file, "PNG")
    return {"bytes": file.getvalue() if red < 200 else b"broken", "path": None}


@pytest.fixture
def streamed(tmp_path):
    """A function that makes a data module which streams a folder."""

    def make(path, *, streaming=True, **options):
        source = partial(huggingface, streaming=streaming, holdout=options.pop("holdout", 0.1))
        options = {"resolution": 32, "batch_size": 2, "cache_dir": str(tmp_path / "cache"), **options}
        data = ImageDataModule(source, path=path, **options)
        data.prepare_data()
        data.setup()
        return data

    return make


def content(store):
    """The red value and the label of each picture."""
    batch = store[np.arange(len(store))]
    return list(zip(batch.pixels[:, 0, 0, 0].tolist(), batch.labels.tolist(), strict=True))


def test_a_stream_has_the_pictures_and_classes_that_are_there_without_streaming(tmp_path, streamed):
    path = write_parquet(tmp_path, train=[*range(10), 99], validation=[20, 21, 22], test=[99, 99])
    data, plain = streamed(path), streamed(path, streaming=False)
    assert sorted(content(data.train_set)) == content(plain.train_set)
    assert sorted(content(data.test_set)) == content(plain.test_set) == [(20, 2), (21, 0), (22, 1)]
    assert data.train_set.classes == plain.train_set.classes
    assert set(data.notes()) == set(plain.notes())
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_a_part_is_held_out_by_what_pictures_show(tmp_path, streamed):
    path = write_parquet(tmp_path, train=list(range(12)))
    data, plain = (streamed(path, streaming=each, holdout=0.25) for each in (True, False))
    assert sorted(content(data.test_set)) == content(plain.test_set)
    assert sorted(content(data.train_set)) == content(plain.train_set)
    assert data.splits()["test"] == plain.splits()["test"]


def test_no_more_than_max_images_are_read_and_a_few_of_each_file_in_turn(tmp_path, streamed):
    path = write_parquet(tmp_path, train=list(range(20)), test=list(range(30, 40)))
    data = streamed(path, max_images=6)
    assert [red for red, _ in content(data.train_set)] == [0, 1, 10, 11, 2, 3]
    assert len(data.test_set) == 6


def read_labels(monkeypatch, fail_after=None):
    """A list that gets the red values of pictures as they are read; reading fails after so many."""
    read = []
    content_of = huggingface_stream._content

    def recorded(cell):
        if len(read) == fail_after:
            raise ConnectionError("the line is cut")
        read.append(content_of(cell))
        return read[-1]

    monkeypatch.setattr(huggingface_stream, "_content", recorded)
    return read


def test_an_interrupted_reading_goes_on_and_the_next_run_reads_nothing(tmp_path, streamed, monkeypatch):
    path = write_parquet(tmp_path, train=list(range(20)), test=[30, 31])
    whole = content(streamed(path, cache_dir=str(tmp_path / "other")).train_set)
    with monkeypatch.context() as patch:
        read_labels(patch, fail_after=11)
        with pytest.raises(ValueError, match=r"reading split train stopped \(the line is cut\); the same command goes"):
            streamed(path)
    with monkeypatch.context() as patch:
        read = read_labels(patch)
        assert content(streamed(path).train_set) == whole
        assert len(read) <= 20 - 4 + 2  # at least the first chunk was kept
    with monkeypatch.context() as patch:
        read_labels(patch, fail_after=0)
        assert content(streamed(path).train_set) == whole


def test_broken_pictures_are_named_or_skipped_and_a_stream_without_pictures_is_refused(tmp_path, streamed, caplog):
    path = write_parquet(tmp_path, train=[0, 1, 2, 200, 4, 5, 6, 7], test=[30, 31])
    with pytest.raises(ValueError, match=r"cannot read .*split train, picture \d \(cannot identify image file\)"):
        streamed(path)
    data = streamed(path, damaged="skip", max_damaged=0.2)
    assert sorted(content(data.train_set)) == [(red, red % 3) for red in (0, 1, 2, 4, 5, 6, 7)]
    assert "1 of 8 pictures cannot be read" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="split train has no pictures"):
        streamed(write_parquet(tmp_path / "empty", train=[], test=[1, 2]))


@pytest.mark.parametrize("path", ["/etc/hostname", "zip://a.png::file:///etc/hostname", "hf://models/x", None])
def test_a_path_in_a_cell_is_followed_to_a_data_set_on_the_hub_alone(monkeypatch, path):
    monkeypatch.setattr("fsspec.open", lambda *_: pytest.fail("opened"))
    assert huggingface_stream._content({"bytes": None, "path": path}) == b""
    monkeypatch.setattr("fsspec.open", lambda *_: io.BytesIO(b"content"))
    assert huggingface_stream._content({"bytes": None, "path": "hf://datasets/a/b@main/1.png"}) == b"content"


def test_a_run_trains_on_a_stream(tmp_path):
    path = write_parquet(tmp_path, train=list(range(16)), test=[30, 31])
    data = ["data=huggingface", f"data.path={path}", "data.source.streaming=true", f"data.cache_dir={tmp_path}/cache"]
    small = [*ANY_MODEL[:1], *ANY_MODEL[4:-1], "model=dcgan", "discriminator.width=8", "max_images=8"]
    code, _, err = train(tmp_path / "run", *small, *data, small=False)
    assert code == 0, err
    assert "streaming: true" in (tmp_path / "run" / "config.yaml").read_text()
    code, _, err = train(None, f"resume={tmp_path / 'run'}", "max_images=16", small=False)
    assert code == 0, err
