"""`transfergen generate`: images from a trained generator."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from omegaconf import DictConfig, OmegaConf

from transfergen.commands import cli
from transfergen.commands.overrides import refuse_ignored
from transfergen.commands.places import check_out
from transfergen.errors import counted
from transfergen.runs import artefacts

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator

STEPS = 3
"""Images to each side of a seed's own that are shown along a direction, a standard deviation of the latents apart."""
KINDS = (("invert",), ("interpolate",), ("directions",), ("coarse", "fine", "block"))
"""Settings that ask for another output than single images: a tuple for each kind of output."""
USES = {
    "": ("num", "seed", "seeds", "truncation", "batch_size", "devices"),
    "invert": ("seed", "steps", "perceptual"),
    "interpolate": ("truncation", "frames", "fps"),
    "directions": ("seed", "truncation", "latent"),
    "coarse": ("truncation",),
}
"""Further settings that some kinds of output have and others have not; "": single images."""
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".tbz", ".tbz2", ".bz2", ".txz", ".xz", ".zst", ".7z", ".rar"}
"""Suffixes of archives. Of these only .zip can be written."""
SETTINGS = "generate.json"
"""File beside the images with the settings that they were made with; an archive has them as its comment."""


def generate(config: DictConfig) -> None:
    """Write images, an interpolation, images along directions, mixed styles, or the image nearest to a picture.

    Raises:
        ValueError: a setting is missing or out of range, or the generator cannot be loaded.
    """
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    out = Path(config.out or ".").expanduser()
    if out.suffix != ".zip" and out.suffix.lower() in ARCHIVES and not out.is_dir():
        raise ValueError(f"out={out}: an archive is written as .zip only; give a name that ends so, or a folder")
    artefacts.refuse_run(out.parent if out.suffix == ".zip" else out)
    kinds = [keys[0] for keys in KINDS if any(config[key] for key in keys)]
    if len(kinds) > 1:
        raise ValueError(f"{kinds[0]}= and {kinds[1]}= ask for two kinds of output; leave one out")
    if kinds and out.suffix == ".zip":
        raise ValueError(f"out={out}: an archive is for images; give a folder for {kinds[0]}=")
    chosen = dict.fromkeys(("num", "seed"), "images without seeds=") if config.seeds else {}
    if config.latent is not None:
        chosen |= dict.fromkeys(("seed", "truncation"), "directions= without latent=")
    refuse_ignored(cli.overrides(), _purposes(kinds[0] if kinds else "") | chosen)
    if (config.invert is not None or config.latent is not None) and len(config.classes) > 1:
        raise ValueError(f"classes={config.classes}: a picture is of one class; leave the others out")
    check_out(out, folder=out.suffix != ".zip")
    from transfergen.devices import choose_devices
    from transfergen.runs.kept_generators import choose_generator
    from transfergen.sampling.pretrained import PretrainedGenerator

    source = choose_generator(str(config.run), config.checkpoint)
    devices = choose_devices(config.device, config.devices)
    generators = [PretrainedGenerator.from_pretrained(source, override="run").to(device) for device in devices]
    # classes that the generator does not have are refused before any work
    generators[0].labels(config.classes)
    if config.invert is not None:
        _invert(generators[0], config, out)
    elif config.interpolate:
        _interpolate(generators[0], config, out)
    elif config.directions:
        _directions(generators[0], config, out)
    elif kinds:
        _mix_styles(generators[0], config, out)
    else:
        _images(generators, config, out)


main = partial(cli.run, "generate", generate)


def _purposes(kind: str) -> dict[str, str]:
    """The settings that a kind of output would ignore, each with the kinds that it is for."""
    settings = {setting for each in USES.values() for setting in each} - {*USES[kind]}
    users = {setting: [each for each in USES if setting in USES[each]] for setting in settings}
    return {
        setting: ", ".join(f"{each}=" if each else "single images" for each in kinds)
        for setting, kinds in users.items()
    }


def _options(generator: "PretrainedGenerator", config: DictConfig) -> dict[str, Any]:
    """The settings that images of all kinds have, classes by number."""
    from transfergen.networks.class_mixtures import numbered

    classes: Any = OmegaConf.to_container(config.classes)
    return {"classes": numbered(classes, generator.classes), "truncation": config.truncation}


def _images(generators: Sequence["PretrainedGenerator"], config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import image_folder, image_zip, write_images

    options = _options(generators[0], config)
    seeds = list(config.seeds) or range(config.seed, config.seed + config.num)
    first = {"seeds": seeds} if config.seeds else {"seed": config.seed}
    settings = options | first | {"generator": generators[0].metadata["sha256"]}
    zipped = out.suffix == ".zip"
    images, grid = (out, out.with_suffix(".png")) if zipped else (out / "images", out / artefacts.GRID)
    grid.parent.mkdir(parents=True, exist_ok=True)
    target = image_zip(images, json.dumps(settings)) if zipped else image_folder(images)
    with artefacts.claim(out, "out"), target as files:
        _refuse_others(out, settings)
        if not zipped:
            artefacts.write_json(out / SETTINGS, settings)
        artefacts.write_picture(grid, generators[0].grid(seeds[:64], **options))
        track = lambda rounds: cli.track(rounds, "generating")  # noqa: E731
        write_images(generators, files, seeds, batch_size=config.batch_size, track=track, **options)
    held = 0 if zipped else sum(1 for _ in images.glob("*.png"))
    more = f"; of earlier commands it holds {held - len(seeds):,} more" if held > len(seeds) else ""
    print(f"{counted(len(seeds), 'image')}: {images}, the first of them in {grid}{more}")


def _refuse_others(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder or an archive that holds images of other or of unknown settings.

    Raises:
        ValueError: names the settings that differ.
    """
    path = out if out.suffix == ".zip" else out / SETTINGS
    if not path.exists():
        return
    try:
        saved = json.loads(ZipFile(out).comment if path == out else path.read_text())
        wanted = json.loads(json.dumps(settings))  # whose keys are text, those of a mixture, too
        different = [key for key in wanted if saved.get(key) != wanted[key]]
    except (ValueError, AttributeError, BadZipFile) as error:
        what = "is none of this command's" if path == out else f"{path.name} is damaged"
        raise ValueError(f"out={out}: {what}; choose another place, or remove it") from error
    if different:
        raise ValueError(
            f"out={out}: holds images of another {', '.join(different)}; choose another place, or remove it"
        )


def _interpolate(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    from transfergen.sampling.image_files import write_gif, write_mp4

    given: Any = OmegaConf.to_container(config.interpolate)
    if len(config.classes) > len(given):
        raise ValueError(f"classes={config.classes}: more than the seeds interpolate={given}; leave some out")
    seeds = [generator.read_latent(each, "interpolate") if isinstance(each, str) else each for each in given]
    pixels = generator.interpolate(seeds, frames=config.frames, **_options(generator, config))
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
    start = config.seed if config.latent is None else generator.read_latent(config.latent)
    pixels = generator.vary(start, offsets.flatten(0, 1), **_options(generator, config))
    sheet = out / "directions.png"
    artefacts.write_picture(sheet, to_grid(pixels, columns=offsets.shape[1]))
    name = f"seed {config.seed}" if config.latent is None else config.latent
    print(f"{name} from {-STEPS} to {STEPS} standard deviations along each direction: {sheet}")


def _mix_styles(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    import torch

    from transfergen.images import to_grid

    coarse: Any = OmegaConf.to_container(config.coarse)
    fine: Any = OmegaConf.to_container(config.fine)
    options = _options(generator, config)
    block = config.block or (generator.latent_blocks + 1) // 2
    mixed = generator.mix_styles(coarse, fine, block=block, **options)
    top, left = generator.pixels(fine, **options), generator.pixels(coarse, **options)
    header = torch.cat([torch.zeros_like(top[:1]), top])
    cells = torch.cat([header[None], torch.cat([left[:, None], mixed], dim=1)])
    sheet = out / "styles.png"
    artefacts.write_picture(sheet, to_grid(cells.flatten(0, 1), columns=1 + len(fine)))
    blocks = f"from block {block} of {generator.latent_blocks} on"
    print(f"a row for each coarse seed, a column for each fine one, {blocks}: {sheet}")


def _invert(generator: "PretrainedGenerator", config: DictConfig, out: Path) -> None:
    import torch
    from torchvision.transforms.functional import pil_to_tensor

    from transfergen.images import to_grid
    from transfergen.sampling.inversion import read_picture
    from transfergen.sampling.latents import LATENT

    picture = read_picture(config.invert, generator.image_shape, "invert")
    label = next(iter(_options(generator, config)["classes"]), None)
    track = lambda steps: cli.track(steps, "searching")  # noqa: E731
    search = {"steps": config.steps, "seed": config.seed, "perceptual": config.perceptual, "track": track}
    latent, squared = generator.invert(picture, label=label, **search)
    image = generator.vary(latent, torch.zeros(generator.z_dim))
    sheet = out / "inversion.png"
    artefacts.write_picture(sheet, to_grid(torch.cat([pil_to_tensor(picture)[None], image]), columns=2))
    latent.save(out / LATENT)
    print(f"the picture, and the image nearest to it: {sheet} (mean squared error {squared:.4f})")
