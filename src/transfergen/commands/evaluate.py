"""`transfergen evaluate`: the metrics of a run, or of a folder of images."""

import json
import logging
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from transfergen.commands import cli
from transfergen.runs import artefacts

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> None:
    """Print the metrics, and write them as JSON with a picture of samples beside their nearest training images.

    Raises:
        ValueError: a setting is wrong, or the images cannot be had.
    """
    if (config.run is None) == (config.fake is None) or (config.fake is None) != (config.real is None):
        raise ValueError("give either run=RUN_DIR, the folder of a training run, or fake=FOLDER and real=FOLDER")
    if config.format not in ("table", "json"):
        raise ValueError(f"format={config.format}: choose one of table, json")
    from transfergen.config import instantiate
    from transfergen.devices import choose_device
    from transfergen.evaluation.compare_folders import compare_folders
    from transfergen.evaluation.compare_run import compare_run
    from transfergen.evaluation.comparison import Comparison
    from transfergen.evaluation.measure import to_table

    device = choose_device(config.device)
    extractor = instantiate(config.metrics).to(device)
    out = Path(config.out or (Path(config.run or ".") / artefacts.EVALUATION)).expanduser()
    cli.check_file(out)
    compare = compare_run if config.run else compare_folders
    comparison: Comparison = compare(config, extractor, device, cli.track)
    result = {"transfergen": version("transfergen"), **comparison.subject, "metrics": comparison.metrics()}
    for warning in dict.fromkeys(record["warning"] for record in result["metrics"] if "warning" in record):
        log.warning(warning)
    earlier = _earlier(out, result)
    artefacts.write_json(out, result | earlier)  # now, in case the search for neighbours fails
    sheet = out.parent / artefacts.NEIGHBOURS
    if config.neighbours:
        result |= comparison.neighbours(config.neighbours, sheet)
        result["metrics"] += comparison.novelty()
        artefacts.write_json(out, result | earlier)
    if config.format == "json":
        print(json.dumps(result))
        return
    Console().print(to_table(result["metrics"]))
    if config.neighbours:
        print(f"the samples nearest to {comparison.searched} images, beside them: {sheet}")
    print(f"all results: {out}")


main = partial(cli.run, "evaluate", evaluate)


def _earlier(out: Path, result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results in the file to keep beside the new one, as `earlier`: of another extractor, count or split, say.

    Left out are those that the new one repeats, and those of a generator that was trained further since.
    """
    try:
        previous = json.loads(artefacts.read(out.parent, out.name))
        listed = [previous, *previous.pop("earlier", [])]
        kept = [r for r in listed if _settings(r) != _settings(result) and not _outdated(r, result)]
    except Exception:  # no file, or not one of this command, which may hold anything
        return {}
    return {"earlier": kept} if kept else {}


def _settings(result: dict[str, Any]) -> list[Any]:
    """The settings that two results must share to be comparable."""
    ours, metric = ("checkpoint", "fake", "real", "fit", "resolution"), result["metrics"][0]
    theirs = ("extractor", "generated", "real", "split", "seed")
    return [*(result.get(key) for key in ours), *(metric[key] for key in theirs)]


def _outdated(result: dict[str, Any], new: dict[str, Any]) -> bool:
    same_checkpoint = "checkpoint" in new and result.get("checkpoint") == new["checkpoint"]
    return same_checkpoint and result["images_seen"] != new["images_seen"]
