import json

import pytest
from runs import ANY_MODEL, SMALL_MODELS, train

from transfergen.networks.generators.dcgan import DCGAN
from transfergen.runs.generator_files import load_generator
from transfergen.training.callbacks.distillation_report import latency_ms


def test_the_report_has_both_networks_by_the_same_measure(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["dcgan"]]
    code, _, err = train(tmp_path / "teacher", *small, "max_images=16", small=False)
    assert code == 0, err
    distill = ["transfer=distillation", f"transfer.teacher={tmp_path / 'teacher'}", "transfer.perceptual=0"]
    code, out, err = train(tmp_path / "student", *small, *distill, "generator.width=4", "max_images=16", small=False)
    assert code == 0, err
    report = json.loads((tmp_path / "student" / "distillation.json").read_text())
    for name in ("student", "teacher"):
        parameters = sum(p.numel() for p in load_generator(tmp_path / name).parameters())
        assert report[name]["parameters"] == parameters
        assert all(ms > 0 for ms in report[name]["latency_ms"].values())
        own = json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]
        measured = {entry["name"]: pytest.approx(entry["value"], rel=1e-4) for entry in own}
        assert report[name]["metrics"] == measured
    assert report["student"]["parameters"] < report["teacher"]["parameters"]
    assert "teacher" in out
    assert "kernel_distance" in out


def test_a_larger_network_takes_longer():
    networks = {"small": DCGAN(resolution=32, width=4), "large": DCGAN(resolution=32, width=64)}
    latencies = latency_ms(networks)
    assert latencies["large"][64] > latencies["small"][64]
