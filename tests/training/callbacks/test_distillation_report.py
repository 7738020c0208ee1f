import json
from types import SimpleNamespace

import pytest
from torch import nn

from transfergen.networks.generators.dcgan import DCGAN
from transfergen.training.callbacks import distillation_report
from transfergen.training.callbacks.distillation_report import DistillationReport, latency_ms


class Evaluated:
    """An evaluation that has measured the student, and gives the teacher a number of its own."""

    last_seed = 7
    extractor = SimpleNamespace(name="pixels, 16x16")
    records = ({"name": "kernel_distance", "value": 0.5}, {"name": "recall", "value": 0.0})

    def measure_generator(self, trainer, generator, device, *, seed):
        assert seed == self.last_seed
        return {"kernel_distance": 0.25, "recall": 0.0}


class Clock:
    """Seconds that pass only while a `Slow` network works."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Slow(nn.Module):
    """Takes a number of milliseconds for each latent, and a second more for its first pass."""

    z_dim, num_classes = 2, 0

    def __init__(self, clock, milliseconds):
        super().__init__()
        self.clock, self.milliseconds, self.warm = [clock], milliseconds, False

    def __deepcopy__(self, memo):
        return Slow(self.clock[0], self.milliseconds)

    def forward(self, z, y):
        self.clock[0].now += (0 if self.warm else 1) + self.milliseconds * len(z) / 1000
        self.warm = True


def test_latencies_are_of_each_network_and_batch_size_without_the_first_pass(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(distillation_report, "time", clock)
    latencies = latency_ms({"small": Slow(clock, 1), "large": Slow(clock, 3)})
    assert latencies["small"] == {1: pytest.approx(1), 64: pytest.approx(64)}
    assert latencies["large"] == {1: pytest.approx(3), 64: pytest.approx(192)}


def test_student_and_teacher_are_reported_by_the_same_measures(trainer, module, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(distillation_report, "REPEATS", 1)
    teacher = DCGAN(resolution=32, width=8)
    module.transfer = SimpleNamespace(teacher=teacher)
    DistillationReport(tmp_path, Evaluated()).on_train_end(trainer, module)
    report = json.loads((tmp_path / "distillation.json").read_text())
    for name, network, kernel in (("student", module.generator, 0.5), ("teacher", teacher, 0.25)):
        assert report[name]["parameters"] == sum(p.numel() for p in network.parameters())
        assert report[name]["metrics"] == {"kernel_distance": kernel, "recall": 0.0}
        assert report[name]["latency_ms"].keys() == {"1", "64"}
    assert report["extractor"] == "pixels, 16x16"
    shown = [line.split() for line in capsys.readouterr().out.replace("│", " ").splitlines()]
    assert ["kernel_distance", "0.5", "0.25", "2.000"] in shown
    assert ["recall", "0", "0", "-"] in shown
