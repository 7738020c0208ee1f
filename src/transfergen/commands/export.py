"""`transfergen export`: a trained generator for other programs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from transfergen.commands import cli
from transfergen.sampling.export import TOLERANCE, to_bf16, to_onnx, to_torch_export

if TYPE_CHECKING:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("export", _task, arguments)


def _task(config: DictConfig) -> None:
    if config.run is None:
        raise ValueError("run=RUN_DIR is missing: the folder of a training run, or a model of the hub")
    formats: dict[str, tuple[Callable[..., float], str]] = {
        "onnx": (to_onnx, "generator.onnx"),
        "torch_export": (to_torch_export, "generator.pt2"),
        "bf16": (to_bf16, "bf16"),
    }
    if config.format not in formats:
        raise ValueError(f"format={config.format}: choose one of {', '.join(formats)}")
    from transfergen.sampling.pretrained import PretrainedGenerator

    write, name = formats[config.format]
    run = Path(str(config.run)).expanduser()
    generator = PretrainedGenerator.from_pretrained(run if run.exists() else str(config.run))
    out = Path(config.out or name).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    difference = write(generator, out)
    if config.format != "bf16" and difference > TOLERANCE:
        raise ValueError(f"format={config.format}: {out} differs by {difference:.1e} from the generator; do not use it")
    print(f"{out}: differs by {difference:.1e} at most from the generator, in [-1, 1]")
