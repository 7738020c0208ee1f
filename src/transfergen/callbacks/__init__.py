"""What happens beside the training steps: sample grids, evaluation, checkpoints, progress, alarms."""

from transfergen.callbacks.collapse import CollapseWatch
from transfergen.callbacks.distillation import StudentReport
from transfergen.callbacks.evaluation import Evaluation
from transfergen.callbacks.files import RunFiles, StopAtImages
from transfergen.callbacks.progress import ProgressBar, StatusLine
from transfergen.callbacks.rates import RateDecay
from transfergen.callbacks.reconstructions import Reconstructions
from transfergen.callbacks.samples import SampleGrid
from transfergen.callbacks.signals import Signals

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
