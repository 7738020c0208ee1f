"""What a distillation has come to: student and teacher side by side."""

import copy
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from transfergen.networks.generators.base import Generator
from transfergen.runs import artefacts
from transfergen.training.callbacks.evaluation import Evaluation
from transfergen.training.gan_module import GAN
from transfergen.transfer.distillation import Distillation

BATCHES, REPEATS = (1, 64), 15


class DistillationReport(Callback):
    """At the end, parameters, latency on the CPU and metrics of both: a file, a table, and a text in TensorBoard.

    Args:
        run_dir: gets distillation.json.
        evaluation: has measured the student, and here the teacher in the same way.
    """

    def __init__(self, run_dir: Path, evaluation: Evaluation) -> None:
        self.run_dir, self.evaluation = run_dir, evaluation

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures; all ranks share the work."""
        module = cast(GAN, pl_module)
        teacher = cast(Distillation, module.transfer).teacher
        networks = {"student": module.ema_generator, "teacher": teacher}
        values = {
            "student": {entry["name"]: entry["value"] for entry in self.evaluation.entries},
            "teacher": self.evaluation.values_of(trainer, teacher, module.device),
        }
        if trainer.is_global_zero:
            latencies = latency_ms(networks)
            report: dict[str, Any] = {
                name: {
                    "parameters": sum(p.numel() for p in network.parameters()),
                    "latency_ms": latencies[name],
                    "metrics": values[name],
                }
                for name, network in networks.items()
            }
            about = {"extractor": self.evaluation.extractor.name, "threads": torch.get_num_threads()}
            artefacts.write_json(self.run_dir / artefacts.DISTILLATION, report | about)
            self._show(trainer, report, module.images_seen)

    @staticmethod
    def _show(trainer: Trainer, report: dict[str, Any], images_seen: int) -> None:
        student, teacher = (_numbers(report[name]) for name in ("student", "teacher"))
        table = Table("", "student", "teacher", "ratio")
        lines = ["| | student | teacher | ratio |", "|---|---|---|---|"]
        for name, ours in student.items():
            theirs = teacher[name]
            cells = [name, f"{ours:.5g}", f"{theirs:.5g}", f"{ours / theirs:.3f}" if theirs else "-"]
            table.add_row(*cells)
            lines.append(f"| {' | '.join(cells)} |")
        Console().print(table)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("distillation", "\n".join(lines), images_seen)


def _numbers(network: dict[str, Any]) -> dict[str, float]:
    """All of a network's numbers, by what the table calls them."""
    latencies = {f"CPU latency of {batch}, ms": ms for batch, ms in network["latency_ms"].items()}
    return {"parameters": network["parameters"], **latencies, **network["metrics"]}


@torch.no_grad()
def latency_ms(networks: dict[str, Generator]) -> dict[str, dict[int, float]]:
    """Milliseconds of a pass on the CPU in float32, by network and batch: medians, of turns that share the noise."""
    copies = {name: copy.deepcopy(network).cpu().float().eval() for name, network in networks.items()}
    times: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in copies}
    for repeat in range(REPEATS + 1):
        for name, network in copies.items():
            for batch in BATCHES:
                z = torch.randn(batch, network.z_dim)
                y = torch.zeros(batch, dtype=torch.long) if network.num_classes else None
                start = time.perf_counter()
                network(z, y)
                if repeat:  # the first warms up
                    times[name][batch].append(1000 * (time.perf_counter() - start))
    return {name: {batch: round(median(values), 3) for batch, values in own.items()} for name, own in times.items()}
