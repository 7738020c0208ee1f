"""`python -m transfergen.generate`, `transfergen-generate`: pictures from a trained generator."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from transfergen import cli


def main() -> None:
    """The command."""
    cli.main("generate", _task)


def _task(config: DictConfig) -> None:
    if config.run is None:
        raise ValueError("run=RUN_DIR is missing: the folder of a training run")
    if config.num < 1 or config.batch_size < 1:
        raise ValueError(f"num={config.num}, batch_size={config.batch_size}: at least 1")
    if config.truncation is not None and config.truncation <= 0:
        raise ValueError(f"truncation={config.truncation}: above 0, or null for none")
    import torch
    from rich.progress import track

    from transfergen.artefacts import load_generator
    from transfergen.generators.base import sample
    from transfergen.images import to_grid, to_pil, to_uint8

    generator = load_generator(Path(config.run).expanduser())
    wrong = [y for y in config.classes if y not in range(generator.num_classes)]
    if wrong:
        raise ValueError(f"classes={config.classes}: this generator has {generator.num_classes}, counted from 0")
    out = Path(config.out).expanduser()
    (out / "images").mkdir(parents=True, exist_ok=True)
    shown = []
    starts = range(0, config.num, config.batch_size)
    for start in track(starts, "generating", transient=True, disable=not sys.stdout.isatty()):
        seeds = range(config.seed + start, config.seed + min(config.num, start + config.batch_size))
        images = sample(
            generator,
            seeds,
            torch.device("cpu"),
            batch_size=config.batch_size,
            truncation=config.truncation,
            classes=config.classes,
        )
        pixels = to_uint8(images)
        for i, picture in enumerate(pixels, start=start):
            to_pil(picture).save(out / "images" / f"{i:06d}.png")
        if start < 64:
            shown.append(pixels)
    to_grid(torch.cat(shown)[:64]).save(out / "grid.png")
    print(f"{config.num} images: {out / 'images'}, the first of them in {out / 'grid.png'}")


if __name__ == "__main__":
    main()
