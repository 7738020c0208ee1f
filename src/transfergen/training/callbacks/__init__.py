"""Callbacks: sample grids, evaluation, checkpoints, progress, warnings."""

from transfergen.training.callbacks.checkpointing import Checkpointing, Snapshots
from transfergen.training.callbacks.collapse_warning import CollapseWarning
from transfergen.training.callbacks.distillation_report import DistillationReport
from transfergen.training.callbacks.evaluation import Evaluation
from transfergen.training.callbacks.learning_rate import LinearLRDecay
from transfergen.training.callbacks.memory_report import MemoryReport
from transfergen.training.callbacks.progress import ProgressBar, StatusLine
from transfergen.training.callbacks.reconstructions import Reconstructions
from transfergen.training.callbacks.samples import SampleGrid
from transfergen.training.callbacks.signals import Signals
from transfergen.training.callbacks.stop_at_images import StopAtImages
from transfergen.training.callbacks.threads import Threads

__all__ = [
    "Checkpointing",
    "CollapseWarning",
    "DistillationReport",
    "Evaluation",
    "LinearLRDecay",
    "MemoryReport",
    "ProgressBar",
    "Reconstructions",
    "SampleGrid",
    "Signals",
    "Snapshots",
    "StatusLine",
    "StopAtImages",
    "Threads",
]
