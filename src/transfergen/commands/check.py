"""`transfergen check`: read every picture before a training does, and tell the memory that its steps will take."""

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from transfergen.commands import cli
from transfergen.commands.overrides import check_used
from transfergen.commands.train import follow_sources, trained_config_shown
from transfergen.errors import counted, printable

if TYPE_CHECKING:
    from transfergen.training.step_report import StepReport

SHOWN = 10
"""Damaged pictures and groups of duplicates that are printed by name; format=json prints all."""
PRESETS = {"few_shot": (50, 1_000), "small": (1_000, 20_000), "large": (20_000, sys.maxsize)}
"""For each experiment for pictures of one's own: the fewest and the most that it is for."""


def check(config: DictConfig) -> None:
    """Print what the pictures are like, what a training does with them, what it would refuse, and what a step takes.

    Raises:
        ValueError: a setting is wrong, settings do not go together, or the source cannot be read.
        SystemExit: a training would refuse the pictures.
    """
    if config.format not in ("table", "json"):
        raise ValueError(f"format={config.format}: choose table or json")
    if config.resume is not None:
        raise ValueError(f"resume={config.resume}: this command is for new trainings; leave it out")
    from transfergen.config import instantiate
    from transfergen.data.inspection import find_leaks, inspect_pictures, list_warnings, summarize
    from transfergen.data.pictures import Split

    config = cli.plain(config)
    check_used(config, cli.overrides())
    follow_sources(config)
    data = instantiate(config.data)
    names: tuple[Split, ...] = ("train", "test")
    pictures = {name: data.pictures(name) for name in names}
    step = _report_step(config, data.class_count)  # refuses what a training would, before all pictures are read
    findings = {
        name: inspect_pictures(
            pictures[name],
            shape=data.image_shape,
            max_megapixels=data.max_megapixels,
            description=f"reading {name} pictures",
        )
        for name in names
    }
    leaks = find_leaks(findings["train"], findings["test"])
    splits: dict[Split, dict[str, Any]] = {
        name: summarize(pictures[name], findings[name], data.image_shape) for name in names
    }
    result: dict[str, Any] = {
        "path": config.data.path,
        "notes": data.notes() + preset_hint(config, cli.overrides(), sum(map(len, findings.values()))),
        "splits": splits,
        "in_both_splits": [pictures["test"].name(i) for i in leaks],
        "step": step.to_json(),
        "warnings": [
            *list_warnings(splits, len(leaks), shape=data.image_shape),
            *preset_warnings(str(cli.choices()["experiment"]), sum(map(len, findings.values()))),
        ],
        "errors": _errors(splits, data),
    }
    if config.format == "json":
        print(json.dumps(result))
    else:
        _print(result, data, step)
    if result["errors"]:
        sys.exit(cli.USER_ERROR)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on a folder of pictures, unless an override chooses another source."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen = any(argument.startswith(("data=", "experiment=")) for argument in given)
    settings = [place for place, argument in enumerate(given) if re.match(r"[^-].*=", argument)]
    place = settings[0] if settings else len(given)  # beside the others, since options may not stand between settings
    with trained_config_shown():
        cli.run("check", check, [*given[:place], *([] if chosen else ["data=image_folder"]), *given[place:]])


def preset_warnings(experiment: str, pictures: int) -> list[str]:
    """A line if these are less than half of the fewest pictures in `PRESETS`, or more than twice the most; or none."""
    fewest, most = PRESETS.get(experiment, (0, sys.maxsize))
    if fewest <= 2 * pictures and pictures <= 2 * most:
        return []
    better = next((name for name, (_, most) in PRESETS.items() if pictures <= most), experiment)
    advice = "have more" if better == experiment else f"set experiment={better}"
    limit = f"{fewest:,} pictures or more" if pictures < fewest else f"{most:,} pictures or fewer"
    return [f"experiment={experiment}: is for {limit}, and these are {pictures:,}; {advice}"]


def preset_hint(config: DictConfig, given: Sequence[str], pictures: int) -> list[str]:
    """A line that names the preset for so many pictures of one's own; none if `given` chooses a model or experiment."""
    if any(override.startswith(("model=", "experiment=")) for override in given):
        return []
    if not config.data.source._target_.endswith(".image_folder"):
        return []
    name, (fewest, most) = next(item for item in PRESETS.items() if pictures <= max(item[1]))
    number = f"{fewest:,} pictures or more" if most == sys.maxsize else f"{fewest:,} to {most:,} pictures"
    return [f"experiment={name} is the preset for {number}; without it, this is about the default model"]


def _report_step(config: DictConfig, class_count: int) -> "StepReport":
    """Report the size of the networks and the memory of a training step, without reading files of weights.

    Raises:
        ValueError: settings that do not go together.
    """
    import torch

    from transfergen.training.build import build_module, set_num_classes
    from transfergen.training.step_report import report_step
    from transfergen.training.trainer import choose_hardware

    set_num_classes(config, class_count)
    trainer: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    hardware = choose_hardware(**trainer)
    for trunk in (config.backbone, *(config.discriminator.get("backbones") or {}).values()):
        if trunk:
            trunk.weights = "random"
    return report_step(
        build_module(config, fresh=False),
        batch_size=config.data.batch_size,
        ranks=hardware.device_count * trainer["num_nodes"],
        device=torch.device(hardware.accelerator),
        precision=hardware.precision,
    )


def _errors(splits: dict[Any, dict[str, Any]], data: Any) -> list[str]:
    """A line for each reason why a training would refuse the pictures."""
    from transfergen.data.datamodule import too_few

    lines = []
    for name, split in splits.items():
        damaged, total = len(split["damaged"]), split["pictures"]
        unreadable = f"{damaged:,} of {counted(total, f'{name} picture')} cannot be read"
        if damaged and data.damaged == "error":
            lines.append(f"{unreadable}: remove {'it' if damaged == 1 else 'them'}, or set data.damaged=skip")
        elif damaged > data.max_damaged * total:
            lines.append(f"{unreadable}, a larger part than data.max_damaged={data.max_damaged:g}")
    train, test = (splits[name]["pictures"] - len(splits[name]["damaged"]) for name in ("train", "test"))
    if refusal := too_few(train, data.batch_size):
        lines.append(refusal)
    if test < 2:
        there = "there is 1" if test else "there are none"
        lines.append(f"metrics need 2 test pictures, and {there}: have more, as by a larger data.source.holdout")
    return lines


def _print(result: dict[str, Any], data: Any, step: "StepReport") -> None:
    screen = Console()
    for name, split in result["splits"].items():
        screen.print(_table(name, split, data))
        ranges = (
            f"{side} {{min:,}} to {{max:,}} px, median {{median:,}}".format(**split[side])
            for side in ("width", "height")
        )
        screen.print("; ".join(ranges) + f"; all become {data.image_shape}", highlight=False, soft_wrap=True)
        lists = {"damaged": split["damaged"], "the same": [" = ".join(group) for group in split["duplicates"]]}
        for what, lines in lists.items():
            for line in lines[:SHOWN]:
                screen.print(f"{what}: {escape(printable(line))}", highlight=False, soft_wrap=True)
            if len(lines) > SHOWN:
                screen.print(f"{what}: {len(lines) - SHOWN:,} more (format=json lists all)")
    screen.print(str(step), highlight=False, soft_wrap=True)
    for kind in ("notes", "warnings", "errors"):
        for line in result[kind]:
            screen.print(f"{kind[:-1]}: {escape(printable(line))}", highlight=False, soft_wrap=True)
    if not result["errors"]:
        screen.print("training will use all pictures that can be read", highlight=False)


def _table(name: str, split: dict[str, Any], data: Any) -> Table:
    from transfergen.data.inspection import describe_conversion

    table = Table("what", "pictures", "what training does", title=f"{name}: {counted(split['pictures'], 'picture')}")
    for mode, count in split["modes"].items():
        table.add_row(mode, f"{count:,}", describe_conversion(mode, data.image_shape))
    others = split["pictures"] - len(split["damaged"]) - split["proportional"]
    if others:
        shape = data.image_shape
        what = "not square" if shape.is_square else "not {}:{}".format(*shape.aspect)
        table.add_row(what, f"{others:,}", f"data.fit={data.fit}")
    if split["damaged"]:
        table.add_row("damaged", f"{len(split['damaged']):,}", f"data.damaged={data.damaged}")
    for label, count in split["classes"].items():
        table.add_row(f"class {escape(printable(label))}", f"{count:,}", "")
    return table
