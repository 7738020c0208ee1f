"""`transfergen export`: a trained generator for other programs."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from transfergen.commands import cli
from transfergen.commands.explore_page import DIRECTIONS
from transfergen.commands.places import check_out
from transfergen.runs import artefacts

OUTPUTS = {"onnx": "generator.onnx", "torch_export": "generator.pt2", "bf16": "bf16", "web": "generator.html"}


def export(config: DictConfig) -> None:
    """Convert a generator, and compare the images of the result with its own.

    Raises:
        ValueError: a setting is wrong, the generator cannot be loaded, or the result makes other images.
    """
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    if config.format not in OUTPUTS:
        raise ValueError(f"format={config.format}: choose one of {', '.join(OUTPUTS)}")
    if config.web_runtime is not None and config.format != "web":
        raise ValueError(f"web_runtime={config.web_runtime}: is for format=web")
    out = Path(config.out or OUTPUTS[config.format]).expanduser()
    kinds = {suffix: kind for kind, name in OUTPUTS.items() if (suffix := Path(name).suffix)}
    kind = kinds.get(out.suffix, config.format)
    if kind != config.format:
        raise ValueError(f"out={out}: the name is for format={kind}, and this is format={config.format}; change one")
    if config.format == "torch_export" and out.suffix != ".pt2":
        raise ValueError(f"out={out}: torch.export.load asks for a name that ends in .pt2; give one")
    if config.format == "bf16":
        artefacts.refuse_run(out)
    check_out(out, folder=config.format == "bf16")
    from transfergen.runs.kept_generators import choose_generator
    from transfergen.sampling.export import TOLERANCE, to_bf16, to_onnx, to_torch_export
    from transfergen.sampling.pretrained import PretrainedGenerator
    from transfergen.sampling.web_page import ONE_LEVEL, to_web

    page = partial(to_web, runtime=config.web_runtime, directions=DIRECTIONS)
    writers: dict[str, Callable[[PretrainedGenerator, Path], float]] = {
        "onnx": to_onnx,
        "torch_export": to_torch_export,
        "bf16": to_bf16,
        "web": page,
    }
    generator = PretrainedGenerator.from_pretrained(
        choose_generator(str(config.run), config.checkpoint), override="run"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    difference = writers[config.format](generator, out)
    limit = {"bf16": math.inf, "web": ONE_LEVEL}.get(config.format, TOLERANCE)
    if not difference <= limit:  # it may be NaN
        raise ValueError(f"format={config.format}: {out} differs by {difference:.1e} from the generator; do not use it")
    print(f"{out}: differs by {difference:.1e} at most from the generator, in [-1, 1]")


main = partial(cli.run, "export", export)
