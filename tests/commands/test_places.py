"""Where commands write, before any work and after it."""

from pathlib import Path

import pytest
from runs import ANY_MODEL, SMALL_MODELS, called, train

from transfergen.commands.generate import main as generate
from transfergen.commands.places import check_out, unwritten


@pytest.mark.parametrize(("place", "folder"), [("file/new", True), ("file", True), ("file/new.html", False)])
def test_a_file_in_the_place_of_a_folder_is_refused_before_any_work(tmp_path, place, folder):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"^out={tmp_path / place}: {tmp_path / 'file'} is a file, not a folder"):
        check_out(tmp_path / place, folder=folder)


def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(tmp_path, monkeypatch):
    def refuse(*, dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write everywhere
    for folder in (True, False):
        with pytest.raises(ValueError, match=rf"^out={tmp_path}/a/b: {tmp_path} cannot be written to; choose another"):
            check_out(tmp_path / "a" / "b", folder=folder)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_a_place_where_nobody_can_make_a_file_is_refused_before_any_work(monkeypatch):
    with pytest.raises(ValueError, match=r"^save_stats=/proc/a/b\.npz: /proc cannot be written to; choose another"):
        check_out(Path("/proc/a/b.npz"), "save_stats")
    code, _, err = called(generate, "run=builtin:cifar10", "out=/proc/x")
    assert (code, err) == (2, "transfergen: out=/proc/x: /proc cannot be written to; choose another place\n")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc")
def test_a_cache_that_cannot_be_written_is_told_with_its_setting(tmp_path):
    settings = [*ANY_MODEL, *SMALL_MODELS["dcgan"], "data.max_memory_mib=0", "max_images=8", "data.cache_dir=/proc/x"]
    code, _, err = train(tmp_path / "run", *settings, small=False)
    assert (code, err.count("\n")) == (2, 1)
    assert "data.cache_dir=/proc/x: cannot write /proc/x" in err


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("new/images/000000.png", "out"),
        ("new", "out"),
        ("stats.npz", "save_stats"),
        (".stats.npz.7.part", "save_stats"),
        ("elsewhere/a.png", None),
    ],
)
def test_a_file_that_cannot_be_written_later_is_told_with_the_setting_that_asks_for_it(tmp_path, file, setting):
    places = {"out": str(tmp_path / "new" / "samples"), "save_stats": str(tmp_path / "stats.npz")}
    places["out"] = str(tmp_path / "new") if "images" in file else places["out"]
    error = OSError(28, "No space left on device", str(tmp_path / file))
    line = f"{setting}={places.get(setting)}: cannot write {tmp_path / file} (No space left on device); choose another"
    assert unwritten(error, places) == (setting and f"{line} place")
    assert unwritten(OSError("standard output: full"), places) is None
