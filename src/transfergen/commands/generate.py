"""`transfergen generate`: images from a trained generator."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.runs import artefacts

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator

STEPS = 3
"""Images to each side of a seed's own that are shown along a direction, a standard deviation of the latents apart."""
SETTINGS = "generate.json"
"""In the folder of images: the settings that they were made with. An archive has them as its comment."""


def generate(config: DictConfig) -> None:
    """Write images, an interpolation between images, images along directions, or the image nearest to a picture.

    Raises:
        ValueError: a setting is missing or out of range, or the generator cannot be loaded.
    """
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    out = Path(config.out or ".").expanduser()
    artefacts.refuse_run(out.parent if out.suffix == ".zip" else out)
    from transfergen.devices import choose_devices
    from transfergen.sampling.pretrained import PretrainedGenerator

    source: str | Path = str(config.run)
    if config.checkpoint == "best":
        if not Path(source).expanduser().is_dir():
            raise ValueError(f"checkpoint=best: run={source} is no folder of a run; leave checkpoint= out")
        source = Path(source).expanduser() / artefacts.BEST
    devices = choose_devices(config.device, config.devices)
    generators = [PretrainedGenerator.from_pretrained(source).to(device) for device in devices]
    unknown = [y for y in config.classes if y not in range(generators[0].num_classes)]
    if unknown:
        raise ValueError(f"classes={config.classes}: this generator has {generators[0].num_classes}, counted from 0")
    if config.invert is not None:
        _invert(generators[0], config, out)
    elif config.interpolate:
        _interpolate(generators[0], config, out)
    elif config.directions:
        _directions(generators[0], config, out)
    else:
        _images(generators, config, out)


main = partial(cli.run, "generate", generate)


def _images(generators: Sequence["PretrainedGenerator"], config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import image_folder, image_zip, write_images

    options: dict[str, Any] = {"classes": list(config.classes), "truncation": config.truncation}
    settings = options | {"seed": config.seed, "generator": generators[0].metadata["sha256"]}
    zipped = out.suffix == ".zip"
    folder, images = (out.parent, out) if zipped else (out, out / "images")
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(config.seed, config.seed + config.num)
    target = image_zip(images, json.dumps(settings)) if zipped else image_folder(images)
    with artefacts.claim(out, "out"), target as files:
        _refuse_others(out, settings)
        if not zipped:
            artefacts.write_json(folder / SETTINGS, settings)
        artefacts.write_picture(folder / artefacts.GRID, generators[0].grid(seeds[:64], **options))
        track = lambda rounds: cli.track(rounds, "generating")  # noqa: E731
        write_images(generators, files, seeds, batch_size=config.batch_size, track=track, **options)
    print(f"{config.num:,} images: {images}, the first of them in {folder / artefacts.GRID}")


def _refuse_others(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder or an archive that holds images of other settings, or of nobody knows which.

    Raises:
        ValueError: names the settings that differ.
    """
    path = out if out.suffix == ".zip" else out / SETTINGS
    if not path.exists():
        return
    try:
        saved = json.loads(ZipFile(out).comment if path == out else path.read_text())
        different = [key for key in settings if saved.get(key) != settings[key]]
    except (ValueError, AttributeError, BadZipFile) as error:
        what = "is none of this command's" if path == out else f"{path.name} is damaged"
        raise ValueError(f"out={out}: {what}; choose another place, or remove it") from error
    if different:
        raise ValueError(
            f"out={out}: holds images of another {', '.join(different)}; choose another place, or remove it"
        )


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


def _directions(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    import torch

    from transfergen.images import to_grid

    found = generator.directions(config.directions)
    offsets = STEPS * torch.linspace(-1, 1, 2 * STEPS + 1)[:, None] * found[:, None]
    label = config.classes[0] if config.classes else 0
    pixels = generator.vary(config.seed, offsets.flatten(0, 1), label=label, truncation=config.truncation)
    sheet = out / "directions.png"
    artefacts.write_picture(sheet, to_grid(pixels, columns=offsets.shape[1]))
    print(f"seed {config.seed} from {-STEPS} to {STEPS} standard deviations along each direction: {sheet}")


def _invert(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    import torch
    from safetensors.torch import save
    from torchvision.transforms.functional import pil_to_tensor

    from transfergen.data.formats import open_image
    from transfergen.data.pictures import to_shape
    from transfergen.images import to_float, to_grid, to_uint8
    from transfergen.sampling.inversion import invert

    path = Path(config.invert).expanduser()
    try:
        with open_image(path) as file:
            pixels = pil_to_tensor(to_shape(file, generator.image_shape, "crop"))
    except Exception as error:  # whatever a decoder raises
        raise ValueError(f"invert={path}: cannot read it ({error})") from error
    picture = to_float(pixels[None]).to(generator.device)
    labels = torch.tensor(config.classes[:1] or [0], device=generator.device) if generator.num_classes else None
    track = lambda steps: cli.track(steps, "searching")  # noqa: E731
    z, squared = invert(generator.network, picture, steps=config.steps, seed=config.seed, labels=labels, track=track)
    with torch.no_grad():
        image = generator.network(z, labels)
    sheet = out / "inversion.png"
    artefacts.write_picture(sheet, to_grid(torch.cat([pixels[None], to_uint8(image).cpu()]), columns=2))
    artefacts.write(out / "latent.safetensors", save({"z": z.cpu()}))
    print(f"the picture, and the image nearest to it: {sheet} (mean squared error {float(squared):.4f})")
