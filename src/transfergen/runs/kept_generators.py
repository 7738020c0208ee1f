"""The generators that a run keeps: the last, the best, and snapshots."""

from pathlib import Path

from transfergen.runs.artefacts import BEST, SNAPSHOTS


def snapshot_folder(run_dir: Path, images_seen: int) -> Path:
    """Where a run keeps its generator as it was after so many real images."""
    return run_dir / SNAPSHOTS / f"{images_seen:09d}"


def choose_generator(run: str, checkpoint: str | int) -> str | Path:
    """The argument of `load_pretrained` for the settings `run` and `checkpoint`.

    Args:
        run: folder of a run, or what else `load_pretrained` takes.
        checkpoint: last, best, or the images seen of a snapshot.

    Raises:
        ValueError: the best or a snapshot is asked for, and `run` is no folder of a run, or has none.
    """
    if checkpoint == "last":
        return run
    folder = Path(run).expanduser()
    if not folder.is_dir():
        raise ValueError(f"checkpoint={checkpoint}: run={run} is no folder of a run; leave checkpoint= out")
    if checkpoint == "best":
        chosen, problem = folder / BEST, "kept none; train with evaluation.every_images=N"
    else:
        chosen, problem = snapshot_folder(folder, int(checkpoint)), "kept none; train with snapshot_every_images=N"
        if kept := sorted(each.name for each in (folder / SNAPSHOTS).glob("[0-9]*")):
            problem = f"kept another moment; choose one of {', '.join(f'{int(name):_}' for name in kept)}"
    if not chosen.is_dir():
        raise ValueError(f"checkpoint={checkpoint}: run={run} {problem}, or leave checkpoint= out")
    return chosen
