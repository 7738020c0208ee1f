"""`transfergen generate`: images from a trained generator."""

import json
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator

SETTINGS = "generate.json"
"""In the folder of images: what they were made with."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("generate", _task, arguments)


def _task(config: DictConfig) -> None:
    _check(config)
    from transfergen.devices import choose_devices
    from transfergen.sampling.pretrained import PretrainedGenerator

    run, out = Path(str(config.run)).expanduser(), Path(config.out).expanduser()
    if config.checkpoint == "best":
        run = run / "best"
    where = run if run.exists() or config.checkpoint == "best" else str(config.run)  # a name on the hub
    devices = choose_devices(config.device, config.devices)
    generators = [PretrainedGenerator.from_pretrained(where).to(device) for device in devices]
    generator = generators[0]
    wrong = [y for y in config.classes if y not in range(generator.num_classes)]
    if wrong:
        raise ValueError(f"classes={config.classes}: this generator has {generator.num_classes}, counted from 0")
    if config.invert is not None:
        _invert(generator, config, out)
    elif config.interpolate:
        _interpolate(generator, config, out)
    else:
        _images(generators, config, out)


def _check(config: DictConfig) -> None:
    if config.run is None:
        raise ValueError("run=RUN_DIR is missing: the folder of a training run, or a model of the hub")
    if config.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={config.checkpoint}: choose last or best")
    for key in ("num", "batch_size", "devices", "frames", "fps", "steps"):
        if config[key] < 1:
            raise ValueError(f"{key}={config[key]}: at least 1")
    if config.truncation is not None and config.truncation <= 0:
        raise ValueError(f"truncation={config.truncation}: above 0, or null for none")


def _images(generators: Sequence["PretrainedGenerator"], config: DictConfig, out: Path) -> None:
    """The same images whatever number of `generators`, each on a device of its own, shares the work."""
    from transfergen.images import to_grid
    from transfergen.sampling.image_files import ImageFolder, ImageZip

    options: dict[str, Any] = {"classes": list(config.classes), "truncation": config.truncation}
    zipped = out.suffix == ".zip"
    folder = out.parent if zipped else out
    folder.mkdir(parents=True, exist_ok=True)
    if not zipped:
        _same_settings(folder, options | {"seed": config.seed, "generator": generators[0].about.get("sha256")})
    first = range(config.seed, config.seed + min(64, config.num))
    to_grid(generators[0].pixels(first, **options)).save(folder / "grid.png")

    def make(generator: "PretrainedGenerator", numbers: Sequence[int]) -> None:
        seeds = [config.seed + i for i in numbers]
        target.add(numbers, generator.pixels(seeds, batch_size=config.batch_size, **options))

    size, several = config.batch_size, len(generators)
    with (
        ImageZip(out) if zipped else ImageFolder(out / "images") as target,
        ThreadPoolExecutor(several) as workers,
    ):
        missing = [i for i in range(config.num) if i not in target]
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        for start in _track(range(0, len(batches), several), "generating"):
            list(workers.map(make, generators, batches[start : start + several]))
    where = out if zipped else out / "images"
    print(f"{config.num:,} images: {where}, the first of them in {folder / 'grid.png'}")


def _same_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Raises ValueError if the folder holds images of other settings, which would stay among the new ones."""
    path = folder / SETTINGS
    before = json.loads(path.read_text()) if path.exists() else settings
    other = [key for key in settings if before.get(key) != settings[key]]
    if other:
        raise ValueError(
            f"out={folder}: holds images of another {', '.join(other)}; choose another folder, or empty it"
        )
    path.write_text(json.dumps(settings))


def _interpolate(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import write_gif, write_mp4

    label = config.classes[0] if config.classes else 0
    seeds = OmegaConf.to_container(config.interpolate)
    assert isinstance(seeds, list)
    pixels = generator.interpolate(seeds, frames=config.frames, label=label, truncation=config.truncation)
    out.mkdir(parents=True, exist_ok=True)
    write_gif(out / "interpolation.gif", pixels, fps=config.fps)
    write_mp4(out / "interpolation.mp4", pixels, fps=config.fps)
    print(f"{len(pixels)} frames: {out / 'interpolation.gif'}, {out / 'interpolation.mp4'}")


def _invert(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from transfergen.data.pictures import to_rgb, to_square
    from transfergen.images import from_pil, to_float, to_grid, to_uint8
    from transfergen.sampling.inversion import invert

    path = Path(config.invert).expanduser()
    try:
        with Image.open(path) as file:
            pixels = from_pil(to_square(to_rgb(file), generator.resolution, "crop"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"invert={path}: cannot read it ({error})") from error
    picture = to_float(pixels[None]).to(generator.device)
    labels = torch.tensor(config.classes[:1] or [0], device=generator.device) if generator.num_classes else None
    z, squared = invert(
        generator.network,
        picture,
        steps=config.steps,
        seed=config.seed,
        labels=labels,
        over=lambda steps: _track(steps, "searching"),
    )
    with torch.no_grad():
        image = generator.network(z) if labels is None else generator.network(z, labels)
    out.mkdir(parents=True, exist_ok=True)
    to_grid(torch.cat([pixels[None], to_uint8(image).cpu()]), columns=2).save(out / "inversion.png")
    save_file({"z": z.cpu()}, out / "latent.safetensors")
    print(
        f"the picture, and the image nearest to it: {out / 'inversion.png'} (mean squared error {float(squared):.4f})"
    )


def _track(items: range, description: str) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    screen = Console(stderr=True)
    return track(items, description, console=screen, transient=True, disable=not sys.stderr.isatty())
