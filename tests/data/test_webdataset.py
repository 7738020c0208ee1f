import io
import json
import tarfile

import pytest
from PIL import Image
from runs import ANY_MODEL, train

from transfergen.data.webdataset import webdataset


def write_shard(path, samples):
    """A shard of samples {key: {extension: content}}; a number is a picture whose red value it is."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for key, files in samples.items():
            for extension, content in files.items():
                if isinstance(content, int):
                    file = io.BytesIO()
                    Image.new("RGB", (40, 36), (content, 7, 9)).save(file, "PNG")
                else:
                    file = io.BytesIO(content)
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = file.seek(0, io.SEEK_END)
                file.seek(0)
                tar.addfile(member, file)


@pytest.fixture
def shards(tmp_path):
    """Two shards of eight pictures, of red values 0 to 15 and of classes 10, 9, 2 in turn, which JSON has as names."""
    for shard in range(2):
        samples = {
            f"part/{i:04}": {
                "png": i,
                "cls": str((10, 9, 2)[i % 3]).encode(),
                "json": json.dumps({"about": {"kind": "cdo"[i % 3]}}).encode(),
            }
            for i in range(8 * shard, 8 * shard + 8)
        }
        write_shard(tmp_path / f"train-{shard:04}.tar", samples)
    return tmp_path


def reds(pictures):
    return [pictures.open(i).convert("RGB").getpixel((0, 0))[0] for i in range(len(pictures))]


@pytest.mark.parametrize(
    "pattern",
    [
        "train-{0000..0001}.tar",
        "train-{0000,0001}.tar",
        "train-{*0,0001..0001}.tar",  # a list of a pattern and a range
        "train-{0001,0000..0001}.tar",  # which names a shard twice
        "train-{*0,0000,0001}.tar",  # and so does a pattern
        "train-*.tar",
        "",
    ],
)
def test_pictures_and_classes_of_all_shards_are_read_and_a_part_held_out(shards, pattern):
    path = str(shards / pattern)
    parts = [webdataset(path, split, holdout=0.25) for split in ("train", "test")]
    assert sorted(reds(parts[0]) + reds(parts[1])) == list(range(16))
    assert len(parts[1]) == 4
    assert f"data.path={path}: 2 shards, 16 samples with a picture" in parts[0].notes
    for part in parts:
        assert part.classes == ("2", "9", "10")  # by number, and not as text
        assert part.labels.tolist() == [(2, 1, 0)[red % 3] for red in reds(part)]


def test_classes_may_be_in_a_field_of_the_json_and_the_test_split_in_shards_of_its_own(shards):
    paths = [str(shards / f"train-000{i}.tar") for i in range(2)]
    test = webdataset(paths[0], "test", test_path=paths[1], label="json.about.kind")
    assert reds(test) == list(range(8, 16))
    assert test.classes == ("c", "d", "o")
    assert test.labels.tolist() == [i % 3 for i in range(8, 16)]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_one_picture_of_each_sample_is_taken_and_those_without_a_class_are_left_out(tmp_path, name):
    samples = {f"{i}": {"input.png": i, "output.png": 100 + i, "cls": b"1"} for i in range(4)}
    write_shard(tmp_path / name, samples | {"4": {"input.png": 4, "output.png": 104, "kind": b"x"}})
    path, options = str(tmp_path), {"test_path": str(tmp_path / name)}
    assert reds(webdataset(path, "train", **options)) == [0, 1, 2, 3]
    assert reds(webdataset(path, "train", image="output.png", **options)) == [100, 101, 102, 103]
    assert any("left out: 1 picture without a class" in note for note in webdataset(path, "train", **options).notes)
    cls, kind = (webdataset(path, "train", label=label, **options) for label in ("cls", "kind"))
    assert cls.identity() != kind.identity()  # a stored file of the one is not the other's
    with pytest.raises(ValueError, match=r"data\.source\.image=jpg: .* choose input\.png, output\.png"):
        webdataset(path, "train", image="jpg")
    with pytest.raises(ValueError, match=r"data\.source\.label=json\.label: no sample in .* has a class there"):
        webdataset(path, "train", label="json.label")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train-{0000..0002}.tar", r"data\.path=.*: there is no shard .*train-0002\.tar"),
        ("train-{0000,0007}.tar", r"data\.path=.*: there is no shard .*train-0007\.tar"),
        ("none", "there is no shard .*none"),
        ("train-{0001..0000}.tar", "there is no shard in this folder or range"),
        ("broken.tar", r"data\.path=.*broken\.tar: cannot be read as an archive"),
        ("odd.tar", r"data\.source\.label=json\.kind: a label in .* cannot be read"),
    ],
)
def test_shards_that_are_missing_or_broken_are_refused_in_one_line(shards, path, message):
    (shards / "broken.tar").write_bytes((shards / "train-0000.tar").read_bytes()[:3000] + b"x" * 3000)
    write_shard(shards / "odd.tar", {"a": {"png": 1, "json": b"{"}})
    with pytest.raises(ValueError, match=message) as error:
        webdataset(str(shards / path), "train", label="json.kind")
    assert "\n" not in str(error.value)


def test_a_run_trains_on_shards(shards, tmp_path):
    data = ["data=webdataset", f"data.path={shards}/train-{{0000..0001}}.tar", "model=dcgan", "discriminator.width=8"]
    code, _, err = train(tmp_path / "run", *ANY_MODEL[:1], *ANY_MODEL[4:], *data, "max_images=8", small=False)
    assert code == 0, err
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())["splits"]
    assert {name: split["pictures"] for name, split in splits.items()} == {"train": 14, "test": 2}
