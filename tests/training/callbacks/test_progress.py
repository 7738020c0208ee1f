from types import SimpleNamespace

import pytest

from transfergen.training.callbacks import progress
from transfergen.training.callbacks.progress import ProgressBar, StatusLine, track_on_bar

SCALARS = {"loss/generator": 0.5, "images_per_second": 80.0}


@pytest.fixture
def clock(monkeypatch):
    """A clock whose time the test sets."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_status_line_is_printed_each_time_the_seconds_have_passed(trainer, module, clock, capsys):
    trainer.current_epoch = 2
    line = StatusLine(every_s=30)
    module.last_scalars = SCALARS
    printed = []
    for clock.now, module.images_seen in ((20.0, 8), (31.0, 1016), (60.0, 1024), (62.0, 1032)):
        line.on_train_batch_end(trainer, module, None, None, 0)
        printed.append(capsys.readouterr().out)
    first = "epoch 2, 1,016 images, g 0.500, 80.0 images/s\n"
    assert printed == ["", first, "", first.replace("1,016", "1,032")]


def test_the_status_line_waits_for_curves_and_shows_both_losses_of_a_gan(trainer, module, clock, capsys):
    trainer.current_epoch = 0
    line, clock.now = StatusLine(every_s=30), 100.0
    line.on_train_batch_end(trainer, module, None, None, 0)
    assert capsys.readouterr().out == ""
    module.last_scalars = SCALARS | {"loss/discriminator": 1.25}
    line.on_train_batch_end(trainer, module, None, None, 0)
    assert "d 1.250, g 0.500" in capsys.readouterr().out


def test_progress_of_other_work_yields_all_items_with_and_without_a_bar(trainer):
    assert list(track_on_bar(trainer)([1, 2, 3], "features")) == [1, 2, 3]
    trainer.progress_bar_callback = ProgressBar()  # draws nothing outside a training
    assert list(track_on_bar(trainer)([1, 2, 3], "features")) == [1, 2, 3]
