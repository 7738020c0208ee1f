"""What happens beside the training steps: sample grids, evaluation, checkpoints, progress, alarms."""

from transfergen.training.callbacks.checkpointing import RunFiles, StopAtImages
from transfergen.training.callbacks.collapse_warning import CollapseWatch
from transfergen.training.callbacks.distillation_report import StudentReport
from transfergen.training.callbacks.evaluation import Evaluation
from transfergen.training.callbacks.learning_rate import RateDecay
from transfergen.training.callbacks.progress import ProgressBar, StatusLine
from transfergen.training.callbacks.reconstructions import Reconstructions
from transfergen.training.callbacks.samples import SampleGrid
from transfergen.training.callbacks.signals import Signals

__all__ = [
    "CollapseWatch",
    "Evaluation",
    "ProgressBar",
    "RateDecay",
    "Reconstructions",
    "RunFiles",
    "SampleGrid",
    "Signals",
    "StatusLine",
    "StopAtImages",
    "StudentReport",
]
