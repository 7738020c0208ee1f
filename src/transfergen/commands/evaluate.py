"""`transfergen evaluate`: the metrics of a run, or of a folder of images."""

import json
import logging
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from transfergen.commands import cli
from transfergen.commands.overrides import refuse_ignored
from transfergen.commands.places import check_out
from transfergen.errors import counted
from transfergen.runs import artefacts

if TYPE_CHECKING:
    from transfergen.evaluation.comparison import Comparison

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> None:
    """Print the metrics, and write them as JSON with a picture of samples beside their nearest training images.

    Raises:
        ValueError: a setting is wrong, or the images cannot be had.
    """
    _check(config)
    from transfergen.config import instantiate
    from transfergen.devices import choose_device
    from transfergen.evaluation.compare_folders import compare_folders, image_set, read_set
    from transfergen.evaluation.compare_run import compare_run
    from transfergen.evaluation.features_file import save_features

    device = choose_device(config.device)
    extractor = instantiate(config.metrics).to(device)
    run_dir = Path(config.run or ".").expanduser()
    out = Path(config.out or (run_dir if run_dir.is_dir() else Path()) / artefacts.EVALUATION).expanduser()
    check_out(out)
    comparison: Comparison | None = None
    if config.run is not None or config.fake is not None:
        compare = compare_folders if config.run is None else compare_run
        comparison = compare(config, extractor, device, cli.track)
    if config.save_stats is not None:
        if comparison:
            real = comparison.real
        else:
            real = image_set("real", read_set("real", config, extractor), config, extractor, device, cli.track)
        path = Path(config.save_stats).expanduser()
        save_features(path, real.features, extractor)
        if config.format == "table":
            print(f"features of {counted(len(real.features), 'real image')}, and their statistics: {path}")
    if comparison:
        _report(comparison, config, out)


main = partial(cli.run, "evaluate", evaluate)


def _check(config: DictConfig) -> None:
    """Check the settings that belong together.

    Raises:
        ValueError: names one of them.
    """
    missing = (config.run, config.fake).count(None)  # 2: nothing is compared
    unmeasured = missing == 2 and config.save_stats is None
    if missing == 0 or unmeasured or (config.run is None and config.real is None):
        raise ValueError(
            "give either run=RUN_DIR, the folder of a training run, or fake=FOLDER and real=FOLDER; or real=FOLDER and "
            "save_stats=FILE.npz, which keeps the features of real images"
        )
    if config.real is not None and config.split != "test":
        raise ValueError(f"split={config.split}: is of the run's data, and real={config.real} is not; leave one out")
    ignored = {} if config.run else dict.fromkeys(("checkpoint", "seed", "data.path"), "run=")
    if missing == 2:
        ignored |= dict.fromkeys(("extra", "neighbours", "references", "out"), "run= and fake=")
    elif config.real is not None:
        ignored["references"] = "run= without real="
    refuse_ignored(cli.overrides(), ignored)
    if config.format not in ("table", "json"):
        raise ValueError(f"format={config.format}: choose one of table, json")
    if config.save_stats is not None:
        path = Path(config.save_stats).expanduser()
        if path.suffix != ".npz":
            raise ValueError(f"save_stats={config.save_stats}: give a file that ends in .npz")
        check_out(path, "save_stats")
    from transfergen.evaluation.comparison import EXTRA

    unknown = [name for name in config.extra if name not in EXTRA]
    if unknown:
        raise ValueError(f"extra={unknown}: choose of {', '.join(EXTRA)}")
    if config.run is None and "path_length" in config.extra:
        raise ValueError("extra=[path_length]: needs run=RUN_DIR, since it goes through the generator's latents")
    if "class_frechet" in config.extra and (config.run is None or config.real is not None):
        raise ValueError(
            "extra=[class_frechet]: needs run=RUN_DIR without real=, since the classes are of the run's data"
        )


def _report(comparison: "Comparison", config: DictConfig, out: Path) -> None:
    """Measure, write the results, and print them."""
    from transfergen.evaluation.measure import listed_warnings, measurable, to_table

    measured = comparison.metrics()
    result = {"transfergen": version("transfergen"), **comparison.subject, "metrics": measured}
    earlier = _earlier(out, result)
    artefacts.write_json(out, result | earlier)  # now, in case one of the following fails
    for name in config.extra:
        result["metrics"].append(comparison.further(name))
        artefacts.write_json(out, result | earlier)
    if config.format == "json":  # or else the table has them
        for warning in listed_warnings(result["metrics"]):
            log.warning(warning)
    if comparison.real.count is None:
        generated = len(comparison.fake.features)
        possible = measurable(comparison.extractor, generated, generated)
        missing = ", ".join(name for name in possible if name not in {record["name"] for record in measured})
        log.warning(f"real={config.real} has no features of single images, so there is no {missing}")
    sheet = out.with_name(artefacts.NEIGHBOURS)
    if out.name != artefacts.EVALUATION:  # there may be several results in one folder
        sheet = out.with_name(f"{out.stem}-{artefacts.NEIGHBOURS}")
    if config.neighbours and comparison.has_images:
        result |= comparison.neighbours(config.neighbours, sheet)
        result["metrics"] += comparison.novelty()
        artefacts.write_json(out, result | earlier)
    if config.format == "json":
        print(json.dumps(result))
        return
    Console().print(to_table(result["metrics"]))
    if config.neighbours:
        shown = (
            f", beside them: {sheet}" if comparison.has_images else " cannot be shown: no pictures are given of them"
        )
        print(f"the samples nearest to {comparison.searched} images{shown}")
    print(f"all results: {out}")


def _earlier(out: Path, result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The results in the output file that are kept as `earlier`, such as those of another extractor or split.

    Results that the new one repeats are dropped, and those from before the generator was trained further.
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
    ours = ("sha256", "checkpoint", "fake", "real", "fit", "resolution", "aspect", "channels")
    metric = result["metrics"][0]
    theirs = ("extractor", "generated", "real", "split", "seed")
    return [*(result.get(key) for key in ours), *(metric[key] for key in theirs)]


def _outdated(result: dict[str, Any], new: dict[str, Any]) -> bool:
    same = "checkpoint" in new and all(result.get(key) == new.get(key) for key in ("checkpoint", "sha256"))
    return same and result["images_seen"] != new["images_seen"]
