"""Compares a distilled generator with its teacher."""

import copy
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.markdown import Markdown

from transfergen.networks.generators.base import Generator
from transfergen.runs import artefacts
from transfergen.training.callbacks.evaluation import Evaluation
from transfergen.training.gan_module import GAN
from transfergen.training.loggers import log_text
from transfergen.transfer.distillation import Distillation

BATCH_SIZES, REPEATS = (1, 64), 15


class DistillationReport(Callback):
    """Reports parameters, CPU latency and metrics of student and teacher at the end of the training.

    As distillation.json, as a table on the screen, and as a text in the loggers.

    Args:
        run_dir: gets distillation.json.
        evaluation: has measured the student when the training ends, and measures the teacher in the same way.
    """

    def __init__(self, run_dir: Path, evaluation: Evaluation) -> None:
        self.run_dir, self.evaluation = run_dir, evaluation

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and report. All ranks share the work of measuring."""
        module = cast(GAN, pl_module)
        teacher = cast(Distillation, module.transfer).teacher
        networks = {"student": module.ema_generator, "teacher": teacher}
        metrics = {
            "student": {record["name"]: record["value"] for record in self.evaluation.records},
            "teacher": self.evaluation.measure_generator(
                trainer, teacher, module.device, seed=self.evaluation.last_seed
            ),
        }
        if trainer.is_global_zero:
            latencies = latency_ms(networks)
            report: dict[str, Any] = {
                name: {
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "latency_ms": latencies[name],
                    "metrics": metrics[name],
                }
                for name, network in networks.items()
            }
            conditions = {"extractor": self.evaluation.extractor.name, "threads": torch.get_num_threads()}
            artefacts.write_json(self.run_dir / artefacts.DISTILLATION, report | conditions)
            _show(trainer, report, module.images_seen)


def _show(trainer: Trainer, report: dict[str, Any], images_seen: int) -> None:
    student, teacher = (_rows(report[name]) for name in ("student", "teacher"))
    table = "| | student | teacher | ratio |\n|---|---|---|---|"
    for name, ours in student.items():
        theirs = teacher[name]
        table += f"\n| {name} | {ours:.5g} | {theirs:.5g} | {f'{ours / theirs:.3f}' if theirs else '-'} |"
    Console().print(Markdown(table))
    for logger in trainer.loggers:
        log_text(logger, "distillation", table, images_seen)


def _rows(network: dict[str, Any]) -> dict[str, float]:
    """The numbers of a network by the names of the table's rows."""
    latencies = {f"CPU latency of {batch_size}, ms": ms for batch_size, ms in network["latency_ms"].items()}
    return {"parameters": network["parameters"], **latencies, **network["metrics"]}


@torch.no_grad()
def latency_ms(networks: dict[str, Generator]) -> dict[str, dict[int, float]]:
    """Median milliseconds of a forward pass on the CPU in float32, by network and batch size.

    The networks take turns, so that whatever else the machine does slows all of them.
    """
    copies = {name: copy.deepcopy(network).cpu().float().eval() for name, network in networks.items()}
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in BATCH_SIZES} for name in copies}
    for repeat in range(REPEATS + 1):
        for name, network in copies.items():
            for size in BATCH_SIZES:
                z = torch.randn(size, network.z_dim)
                y = torch.zeros(size, dtype=torch.long) if network.num_classes else None
                start = time.perf_counter()
                network(z, y)
                if repeat:  # the first pass warms up
                    times[name][size].append(1000 * (time.perf_counter() - start))
    return {name: {size: round(median(ms), 3) for size, ms in by_size.items()} for name, by_size in times.items()}
