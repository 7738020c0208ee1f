import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
import time

import pytest
import torch
from runs import ANY_MODEL, SMALL, SMALL_MODELS, train

from transfergen.runs import artefacts
from transfergen.runs.checkpoint import LAST, PREVIOUS, SafeCheckpointIO, last_good, load, save, verify


def state(number):
    return {"number": number, "weights": torch.full((200_000,), float(number))}


def number(path):
    return SafeCheckpointIO().load_checkpoint(path)["number"]


def test_the_last_checkpoint_and_the_one_before_are_there_with_their_sums(tmp_path):
    for i in range(3):
        save(state(i), tmp_path / LAST)
    assert (number(tmp_path / LAST), number(tmp_path / PREVIOUS)) == (2, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [LAST, f"{LAST}.sha256", PREVIOUS, f"{PREVIOUS}.sha256"]
    )
    sums = subprocess.run(
        ["sha256sum", "-c", f"{LAST}.sha256"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert sums.returncode == 0, sums.stdout


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "html"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog, damage):
    for i in range(2):
        save(state(i), tmp_path / LAST)
    content = bytearray((tmp_path / LAST).read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1  # in the tensor's data: torch.load would take it
    (tmp_path / LAST).write_bytes(
        {"flip": content, "truncate": content[:1000], "empty": b"", "html": b"<html>404</html>"}[damage]
    )
    assert last_good(tmp_path) == tmp_path / PREVIOUS
    assert "last.ckpt is damaged" in caplog.text
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*no older one is whole"):
        last_good(tmp_path)
    with pytest.raises(ValueError, match=r"^init_from\.discriminator=run: .*previous\.ckpt is damaged"):
        load(tmp_path / PREVIOUS, setting="init_from.discriminator=run")


def test_a_checkpoint_is_hashed_once_to_be_chosen_and_loaded_and_again_when_it_has_changed(tmp_path, monkeypatch):
    hashed, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    save(state(0), tmp_path / LAST)
    assert load(last_good(tmp_path))["number"] == 0
    assert hashed == [str(tmp_path / LAST)]
    content = bytearray((tmp_path / LAST).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / LAST).write_bytes(content)
    os.utime(tmp_path / LAST, (0, 0))  # clocks of file systems may be coarse
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / LAST)


def test_a_damaged_checkpoint_is_not_kept_in_the_place_of_a_good_one(tmp_path):
    for i in range(2):
        save(state(i), tmp_path / LAST)
    (tmp_path / LAST).write_bytes(b"damaged")
    save(state(2), tmp_path / LAST)
    assert (number(tmp_path / LAST), number(tmp_path / PREVIOUS)) == (2, 0)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(tmp_path):
    for images in (8, 16):
        code, _, err = train(tmp_path, *SMALL, f"max_images={images}", "resume=auto", small=False)
        assert code == 0, err
    (tmp_path / "checkpoints" / LAST).write_bytes(b"")
    code, _, err = train(tmp_path, *SMALL, "max_images=24", "resume=auto", small=False)
    assert code == 0, err
    assert "last.ckpt is damaged" in (tmp_path / "train.log").read_text()
    saved = torch.load(tmp_path / "checkpoints" / LAST, weights_only=True)
    assert saved["transfergen"]["images_seen"] == 24


def test_a_checkpoint_that_holds_more_than_tensors_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Payload()}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="holds more than tensors"):
        SafeCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def save_forever(path, i, tmp, begun):
    tempfile.tempdir = tmp
    torch.set_num_threads(1)  # its threads do not live in a fork
    begun.set()
    while True:
        save(state(i), path)
        i += 1


def test_killed_while_saving_the_last_checkpoint_always_loads(tmp_path):
    """Processes are killed at 50 moments, half of them with TMPDIR on another file system."""
    path = tmp_path / LAST
    start = time.perf_counter()
    save(state(0), path)
    once = time.perf_counter() - start
    rng, reached = random.Random(0), 0
    context = multiprocessing.get_context("fork")
    for i in range(50):
        begun = context.Event()
        process = context.Process(target=save_forever, args=(path, reached, (None, "/dev/shm")[i % 2], begun))
        process.start()
        begun.wait(60)
        time.sleep(rng.uniform(0, 8 * once))
        process.kill()
        process.join()
        assert last_good(tmp_path) == path  # the last one itself, not the one before
        now = number(path)
        assert now >= reached
        reached = now
    assert reached >= 3  # several were whole, and the rest were cut off somewhere
    with artefacts.claim(tmp_path, "hydra.run.dir"):
        pass
    assert not list(tmp_path.glob(".*.part"))


def test_a_full_disk_leaves_the_old_checkpoint_and_says_how_much_is_needed(tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(mounted)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs more rights than these")
    try:
        path = mounted / "checkpoints" / LAST
        save(state(1), path)
        needed = r"last\.ckpt: no space left for the checkpoint, 80\d,\d{3} bytes are needed; free some and "
        with pytest.raises(OSError, match=f"{needed}go on with resume={mounted}$"):
            save(state(2), path)
        with pytest.raises(OSError, match=f"{needed}start again$"):
            save(state(2), mounted / "new" / "checkpoints" / LAST)
        assert number(path) == 1
        assert [p.name for p in path.parent.iterdir() if "part" in p.name] == []
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_weights_from_files_are_not_in_a_checkpoint_and_are_verified_when_it_is_read(tmp_path, vgg_weights):
    vgg = [*ANY_MODEL, "discriminator.hidden=8", f"backbone.weights={vgg_weights}", "backbone.cut=relu2_2"]
    code, _, err = train(tmp_path, *vgg, "max_images=8", small=False)
    assert code == 0, err
    saved = torch.load(tmp_path / "checkpoints" / LAST, weights_only=True)
    assert not any(".backbone." in name for name in saved["state_dict"])
    assert any(".backbone." in name for name in saved["transfergen"]["left_out"]["names"])
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=16", small=False)
    assert code == 0, err
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=24", "backbone.weights=random", small=False)
    assert code == 2
    assert "the frozen trunk's weights are not those that the run was trained with" in err


def test_another_format_and_other_networks_are_refused_with_the_keys_that_differ(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"]]
    code, _, err = train(tmp_path, *small, "max_images=8", small=False)
    assert code == 0, err
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=16", "generator.z_dim=7", small=False)
    assert code == 2
    assert "resume with the run's own generator.z_dim\n" in err
    path = tmp_path / "checkpoints" / LAST
    saved = torch.load(path, weights_only=True)
    saved["transfergen"]["format"] = 99
    save(saved, path)
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=16", small=False)
    assert code == 2
    assert "format is 99, newer than 1; update transfergen" in err


def test_a_run_goes_on_by_images_seen_in_batches_of_another_size(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"]]
    code, _, err = train(tmp_path, *small, "max_images=24", small=False)
    assert code == 0, err
    code, _, err = train(tmp_path, f"resume={tmp_path}", "max_images=64", "data.batch_size=16", small=False)
    assert code == 0, err
    own = torch.load(tmp_path / artefacts.LAST_CHECKPOINT, weights_only=True)["transfergen"]
    assert own["images_seen"] == 24 + 3 * 16


def test_a_checkpoint_without_a_sum_is_taken_with_a_warning(tmp_path, caplog):
    save(state(1), tmp_path / LAST)
    (tmp_path / f"{LAST}.sha256").unlink()
    verify(tmp_path / LAST)
    assert "has no checksum beside it" in caplog.text
    with pytest.raises(ValueError, match="there is no"):
        verify(tmp_path / "none.ckpt")
