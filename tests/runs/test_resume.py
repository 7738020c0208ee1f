import copy

import pytest
import torch

from transfergen.runs.checkpoint import FORMAT
from transfergen.runs.resume import KEY, check_and_complete, differing_keys, leave_out, set_loop_progress

CONFIG = {"generator": {"width": 8}}


def state():
    return {"head": torch.ones(2), "trunk": torch.arange(3.0)}


def checkpoint():
    """A checkpoint that leaves the frozen trunk out."""
    saved = {"state_dict": state(), KEY: {"format": FORMAT, "config": CONFIG, "images_seen": 8}}
    leave_out(saved, ["trunk", "not there"])
    return saved


def test_what_a_checkpoint_leaves_out_comes_back_from_the_network():
    saved = checkpoint()
    assert saved["state_dict"].keys() == {"head"}
    own = check_and_complete(saved, state(), CONFIG)
    assert own["images_seen"] == 8
    assert torch.equal(saved["state_dict"]["trunk"], torch.arange(3.0))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda saved, here: saved.pop(KEY), "was not written by transfergen"),
        (lambda saved, here: saved[KEY].update(format=FORMAT + 1), "newer than"),
        (lambda saved, here: here.update(trunk=torch.zeros(3)), "the frozen trunk's weights are not those"),
        (lambda saved, here: here.update(head=torch.ones(3)), r"1 of 2 tensors differ, head first.*generator\.width"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused(change, line):
    saved, here = checkpoint(), state()
    change(saved, here)
    with pytest.raises(ValueError, match=line):
        check_and_complete(saved, here, {"generator": {"width": 16}})


@pytest.mark.parametrize(
    ("images_seen", "epoch", "batch"), [(0, 0, 0), (8, 0, 1), (32, 1, 0), (43, 1, 1)], ids=lambda value: f"{value}"
)
def test_the_loops_stand_where_the_images_seen_say(images_seen, epoch, batch):
    counters = {"total": {}, "current": {}}
    loops = {"epoch_progress": copy.deepcopy(counters), "epoch_loop.batch_progress": copy.deepcopy(counters)}
    saved = {"loops": {"fit_loop": loops}, "epoch": 9}
    set_loop_progress(saved, images_seen, batch_size=8, batches_per_epoch=4)
    assert saved["epoch"] == epoch
    assert loops["epoch_progress"]["current"]["completed"] == epoch
    assert loops["epoch_progress"]["current"]["started"] == epoch + (batch > 0)
    assert loops["epoch_loop.batch_progress"]["current"]["completed"] == batch
    assert loops["epoch_loop.batch_progress"]["total"]["completed"] == 4 * epoch + batch


def test_keys_that_differ_are_named_with_dots():
    assert differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == "a.c"
