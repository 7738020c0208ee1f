"""The memory of a step against the networks' sizes, and against what torch allocates in a step."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ANY_MODEL, SMALL_MODELS, train
from torch.profiler import ProfilerActivity, profile

from transfergen.config import CONF_DIR
from transfergen.data.store import Batch
from transfergen.networks.layers.reparametrization import class_tables, train_mixtures
from transfergen.training import step_report
from transfergen.training.build import build_module, set_num_classes
from transfergen.training.callbacks import MemoryReport, memory_report
from transfergen.training.finite_updates import FiniteUpdates
from transfergen.training.memory import StepMemory, measure_step
from transfergen.training.randomness import RankRandomness
from transfergen.training.real_features import RealFeatures
from transfergen.training.step_report import settings_for_less

CPU = torch.device("cpu")


def module(*overrides, small=(*ANY_MODEL, *SMALL_MODELS["dcgan"])):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=[*small, "hydra.run.dir=x", *overrides])
    set_num_classes(config, 10)
    return build_module(config)


def measured(*overrides, batch_size=8, **options):
    return measure_step(module(*overrides), batch_size=batch_size, device=CPU, **options)


def size_of(network):
    return sum(t.numel() * t.element_size() for t in [*network.parameters(), *network.buffers()])


@pytest.mark.parametrize(("optimizer", "moments"), [("adam", 2), ("muon_batch32", 1)])
def test_weights_gradients_and_state_have_the_sizes_that_follow_from_the_parameters(optimizer, moments):
    gan = module(f"optimizer={optimizer}")
    memory = measure_step(gan, batch_size=8, device=CPU)
    sizes = [sum(p.nbytes for p in network.parameters()) for network in (gan.generator, gan.discriminator)]
    everything = size_of(gan.generator) + size_of(gan.ema) + size_of(gan.discriminator)
    assert memory.weights == pytest.approx(everything, rel=1e-3)
    updates = (1 + moments) * sizes[0] + 3 * sizes[1]  # the gradient, and moments: two of Adam, one of Muon
    assert memory.updates == pytest.approx(updates, rel=0.02)
    assert all(p.grad is None and p.isfinite().all() for p in gan.parameters())  # nothing was computed


def test_cuda_devices_are_asked_for_once_in_a_step_and_not_at_each_of_its_operations(monkeypatch):
    gan, asked = module(), []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(1))
    ours = torch.cuda.is_available
    measure_step(gan, batch_size=8, device=CPU)
    assert len(asked) <= 3
    assert torch.cuda.is_available is ours


def allocated(step):
    """The most bytes that torch's allocator gives out during a step, and has not got back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes))


@pytest.mark.parametrize("settings", [[], ["generator_checkpointing=true", "optimizer.accumulate=2"]])
def test_the_figure_is_what_torch_allocates_to_within_a_fifth(settings):
    gan, size = module("generator.width=16", *settings), 32
    networks = (gan.generator, gan.discriminator)
    held = size_of(gan.generator) + size_of(gan.ema) + size_of(gan.discriminator)
    held += 3 * sum(p.nbytes for network in networks for p in network.parameters())  # gradients, Adam's two moments
    figure = measure_step(gan, batch_size=size, device=CPU).total
    gan._randomness = RankRandomness(CPU, seed=0, images_seen=0, rank=0)
    reals = RealFeatures(range(size), gan.generator.image_shape.size, gan.discriminator, gan.augment, cache_mib=0)
    step = gan.adversarial_step(gan.configure_optimizers(), reals, FiniteUpdates(CPU))
    pixels = torch.zeros(size, *gan.generator.image_shape, dtype=torch.uint8)
    batch = Batch(pixels, torch.zeros(size, dtype=torch.long), np.arange(size))

    def take_step():
        step(batch, 0, backward=torch.Tensor.backward)

    take_step()  # which makes gradients and state
    assert figure == pytest.approx(held + allocated(take_step), rel=0.2)


def test_the_step_that_is_measured_updates_both_networks():
    assert measured("optimizer.d_steps=3") == measured()


def test_activations_grow_with_the_batch_and_shrink_by_each_setting_that_is_recommended():
    whole = measured(batch_size=16).activations
    assert measured(batch_size=32).activations > 1.7 * whole
    smaller = [
        measured("optimizer.accumulate=4", batch_size=16),
        measured("generator_checkpointing=true", batch_size=16),
        measured(batch_size=16, dtype=torch.bfloat16),
    ]
    assert all(memory.activations < whole for memory in smaller)


@pytest.mark.parametrize("model", ["biggan", "projected", "vae", "vae_gan"])
def test_the_step_of_each_model_can_be_measured(model):
    networks = module(small=(*ANY_MODEL, *SMALL_MODELS[model]))
    assert measure_step(networks, batch_size=8, device=CPU).activations > 0


def test_the_step_of_new_classes_that_are_mixtures_can_be_measured():
    gan = module(small=(*ANY_MODEL, *SMALL_MODELS["biggan"]))
    for table in class_tables(gan.generator).values():
        train_mixtures(table, torch.randn(4, table.embedding_dim), torch.full((table.num_embeddings, 4), 0.25))
    everything = size_of(gan.generator) + size_of(gan.ema) + size_of(gan.discriminator)
    assert measure_step(gan, batch_size=8, device=CPU).weights == pytest.approx(everything, rel=1e-3)


def test_a_step_is_measured_for_a_gpu_that_the_networks_are_not_on_yet():
    gpu = torch.device("cuda")
    report = step_report.report_step(module(), batch_size=8, ranks=1, device=gpu, precision="32-true")
    # Without a GPU torch computes no gradients for it, not even of tensors that have no values.
    assert (report.memory is not None) == torch.cuda.is_available()


def test_settings_that_are_on_or_do_not_fit_are_not_recommended():
    assert settings_for_less(module(), 8, 16, bf16=True) == [
        "trainer.precision=bf16-mixed", "optimizer.accumulate=2", "generator_checkpointing=true", "data.batch_size=8"
    ]  # fmt: skip
    gan = module("generator_checkpointing=true", "optimizer.accumulate=2")
    assert settings_for_less(gan, 6, 6, bf16=False) == ["data.batch_size=3"]


@pytest.mark.parametrize("has_bf16", [False, True])
def test_bfloat16_is_recommended_on_a_cpu_that_has_instructions_for_it(monkeypatch, has_bf16):
    monkeypatch.setattr(step_report, "has_kernels", lambda dtype: dtype != torch.bfloat16 or has_bf16)
    report = step_report.report_step(module(), batch_size=8, ranks=1, device=CPU, precision="32-true")
    assert ("trainer.precision=bf16-mixed" in report.less_with) == has_bf16


def test_a_training_tells_it_before_its_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(step_report, "has_kernels", lambda dtype: True)
    code, _, err = train(tmp_path, "memory_report=true", "max_images=8")
    assert code == 0, err
    (line,) = [line for line in (tmp_path / "train.log").read_text().splitlines() if "a step takes about" in line]
    assert "generator 0." in line
    assert "frozen); a step takes about 0." in line
    assert "less with trainer.precision=bf16-mixed or optimizer.accumulate=2" in line
    code, _, err = train(None, f"resume={tmp_path}", "max_images=16", small=False)
    assert code == 0, err
    assert (tmp_path / "train.log").read_text().count(line.partition(" - ")[2]) == 2


@pytest.mark.parametrize(("free", "warned"), [(4, True), (12, False)])
def test_a_cuda_device_with_less_free_memory_gets_a_warning(monkeypatch, free, warned):
    needed = StepMemory(weights=2 * 2**30, updates=2**30, activations=5 * 2**30)
    monkeypatch.setattr(step_report, "measure_step", lambda *args, **options: needed)
    warnings: list[str] = []
    monkeypatch.setattr(memory_report.log, "warning", warnings.append)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 2**30, 80 * 2**30))
    strategy = SimpleNamespace(root_device=torch.device("cuda:0"))
    trainer = SimpleNamespace(strategy=strategy, world_size=1, precision="bf16-mixed")
    MemoryReport(batch_size=8).on_fit_start(trainer, module())
    line = "cuda:0 has 4 GiB free, and a step takes 8; set optimizer.accumulate=2 or generator_checkpointing=true"
    assert [line in warning for warning in warnings] == [True] * warned
