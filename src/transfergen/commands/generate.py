"""`transfergen generate`: images from a trained generator."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.runs import artefacts

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator

SETTINGS = "generate.json"
"""In the folder of images: the settings that they were made with."""


def generate(config: DictConfig) -> None:
    """Write images, an interpolation between images, or the image nearest to a picture.

    Raises:
        ValueError: a setting is missing or out of range, or the generator cannot be loaded.
    """
    _check(config)
    from transfergen.devices import choose_devices
    from transfergen.sampling.pretrained import PretrainedGenerator

    out = Path(config.out).expanduser()
    source = Path(str(config.run)).expanduser() / artefacts.BEST if config.checkpoint == "best" else str(config.run)
    devices = choose_devices(config.device, config.devices)
    generators = [PretrainedGenerator.from_pretrained(source).to(device) for device in devices]
    unknown = [y for y in config.classes if y not in range(generators[0].num_classes)]
    if unknown:
        raise ValueError(f"classes={config.classes}: this generator has {generators[0].num_classes}, counted from 0")
    if config.invert is not None:
        _invert(generators[0], config, out)
    elif config.interpolate:
        _interpolate(generators[0], config, out)
    else:
        _images(generators, config, out)


main = partial(cli.run, "generate", generate)


def _check(config: DictConfig) -> None:
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    if config.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={config.checkpoint}: choose last or best")
    for key in ("num", "batch_size", "devices", "frames", "fps", "steps"):
        if config[key] < 1:
            raise ValueError(f"{key}={config[key]}: give at least 1")
    if config.truncation is not None and config.truncation <= 0:
        raise ValueError(f"truncation={config.truncation}: give a number above 0, or null for none")


def _images(generators: Sequence["PretrainedGenerator"], config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import image_folder, image_zip, write_images

    options: dict[str, Any] = {"classes": list(config.classes), "truncation": config.truncation}
    zipped = out.suffix == ".zip"
    folder, images = (out.parent, out) if zipped else (out, out / "images")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(config.seed, config.seed + config.num)
    with artefacts.claim(out, "out"), image_zip(images) if zipped else image_folder(images) as target:
        if not zipped:
            _keep_settings(folder, options | {"seed": config.seed, "generator": generators[0].metadata["sha256"]})
        generators[0].grid(seeds[:64], **options).save(folder / artefacts.GRID)
        track = lambda rounds: cli.track(rounds, "generating")  # noqa: E731
        write_images(generators, target, seeds, batch_size=config.batch_size, track=track, **options)
    print(f"{config.num:,} images: {images}, the first of them in {folder / artefacts.GRID}")


def _keep_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of the images in a folder.

    Raises:
        ValueError: it holds images of other or unknown settings, which would stay among the new ones.
    """
    path = folder / SETTINGS
    try:
        saved = json.loads(path.read_text()) if path.exists() else settings
        different = [key for key in settings if saved.get(key) != settings[key]]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"out={folder}: {path.name} is damaged; choose another folder, or empty it") from error
    if different:
        raise ValueError(
            f"out={folder}: holds images of another {', '.join(different)}; choose another folder, or empty it"
        )
    artefacts.write_json(path, settings)


def _interpolate(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import write_gif, write_mp4

    seeds: Any = OmegaConf.to_container(config.interpolate)
    label = config.classes[0] if config.classes else 0
    pixels = generator.interpolate(seeds, frames=config.frames, label=label, truncation=config.truncation)
    out.mkdir(parents=True, exist_ok=True)
    gif, mp4 = out / "interpolation.gif", out / "interpolation.mp4"
    write_gif(gif, pixels, fps=config.fps)
    write_mp4(mp4, pixels, fps=config.fps)
    print(f"{len(pixels)} frames: {gif}, {mp4}")


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
    track = lambda steps: cli.track(steps, "searching")  # noqa: E731
    z, squared = invert(generator.network, picture, steps=config.steps, seed=config.seed, labels=labels, track=track)
    with torch.no_grad():
        image = generator.network(z, labels)
    out.mkdir(parents=True, exist_ok=True)
    sheet = out / "inversion.png"
    to_grid(torch.cat([pixels[None], to_uint8(image).cpu()]), columns=2).save(sheet)
    save_file({"z": z.cpu()}, out / "latent.safetensors")
    print(f"the picture, and the image nearest to it: {sheet} (mean squared error {float(squared):.4f})")
