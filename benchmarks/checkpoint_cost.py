"""What checkpoints and their checksums cost: seconds of a save beside seconds of training between two saves.

    python benchmarks/checkpoint_cost.py
    python benchmarks/checkpoint_cost.py model=vgg_disc data=shapes backbone.weights=random

Trains in this process with a save after each few steps, at the default settings or those given, and times both. The
share is for the default interval, `checkpoint_every_images`. The last line is JSON.
"""

import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from transfergen.commands.train import main as train
from transfergen.training.callbacks import Checkpointing

INTERVAL = 50_000
SAVES, STEPS = 12, 5


def main() -> None:
    """The command."""
    overrides = sys.argv[1:] or ["experiment=quickstart"]
    saves: list[float] = []
    steps: list[float] = []
    save = Checkpointing.save
    clock = {"batch": 0.0, "images": 0, "count": 0}

    def timed_save(self: Checkpointing, *arguments: Any) -> None:
        start = time.perf_counter()
        save(self, *arguments)
        saves.append(time.perf_counter() - start)

    def timed_batch_end(self: Checkpointing, trainer: Any, module: Any, *rest: Any) -> None:
        now = time.perf_counter()
        if clock["images"]:
            steps.append((now - clock["batch"]) / (module.images_seen - clock["images"]))
        clock["count"] += 1
        if clock["count"] % STEPS == 0:
            self.save(trainer, module)
        if len(saves) > SAVES:
            trainer.should_stop = True
        clock["batch"], clock["images"] = time.perf_counter(), module.images_seen

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Checkpointing, "save", timed_save),
        mock.patch.object(Checkpointing, "on_train_batch_end", timed_batch_end),
        mock.patch.object(sys, "argv", ["train.py", *overrides, f"hydra.run.dir={folder}", "evaluation.count=16"]),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        train()
        size = (Path(folder) / "checkpoints" / "last.ckpt").stat().st_size
    once, an_image = statistics.median(saves[1:]), statistics.median(steps[1:])
    share = once / (INTERVAL * an_image)
    print(f"{' '.join(overrides)}: a save of {size / 2**20:.1f} MiB takes {1000 * once:.0f} ms, {INTERVAL:,} images")
    print(f"{INTERVAL * an_image:,.0f} s: {100 * share:.3f} % of the training")
    print(json.dumps({"save_seconds": round(once, 4), "share": round(share, 6)}))


if __name__ == "__main__":
    main()
