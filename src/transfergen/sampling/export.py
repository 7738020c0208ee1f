"""Export: a trained generator as ONNX, as a program of torch.export, or in bfloat16."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import parametrize

from transfergen.networks.generators.base import Generator, latents
from transfergen.runs.artefacts import partial, write
from transfergen.runs.generator_files import build_generator, load_generator, save_copy
from transfergen.sampling.pretrained import PretrainedGenerator

TOLERANCE = 1e-4
"""Largest difference between images in [-1, 1] that rounding explains."""


def to_onnx(generator: PretrainedGenerator, path: Path) -> float:
    """Write ONNX with inputs z (B, Z) float32 and, for a conditional generator, y (B,) int64, and the output images.

    Returns:
        The largest difference between onnxruntime's images and PyTorch's.

    Raises:
        ValueError: its packages are not installed.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  (torch.onnx.export needs it)
    except ImportError as error:
        raise ValueError("ONNX needs more packages: pip install 'transfergen[export]'") from error
    names = ["z", "y"] if generator.num_classes else ["z"]
    with partial(path) as part:
        torch.onnx.export(
            exported(generator),
            f=part,
            input_names=names,
            output_names=["images"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return onnx_difference(path, generator)


def onnx_difference(model: Path | bytes, generator: PretrainedGenerator) -> float:
    """The largest difference between onnxruntime's images and PyTorch's, of an ONNX file or its content."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*given: Any) -> Any:
        feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return _largest_difference(run, generator.network)


def to_torch_export(generator: PretrainedGenerator, path: Path) -> float:
    """Write a program that `torch.export.load` reads. Returns the largest difference between its images and ours."""
    program = io.BytesIO()
    torch.export.save(exported(generator), program)
    write(path, program.getvalue())
    return _largest_difference(torch.export.load(path).module(), generator.network)


def to_bf16(generator: PretrainedGenerator, folder: Path) -> float:
    """Write a folder of half the size that is read like a run's. Returns the largest difference between the images."""
    half = build_generator(generator.metadata["generator"])
    half.load_state_dict(generator.network.state_dict())
    save_copy(folder, half.to(torch.bfloat16), generator.metadata)
    return _largest_difference(load_generator(folder), generator.network)


def exported(generator: PretrainedGenerator) -> torch.export.ExportedProgram:
    """The network as a graph, for batches of any size."""
    network = plain_network(generator)
    inputs = example_inputs(network, 2)
    batch = torch.export.Dim("batch")
    return torch.export.export(network, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))


def plain_network(generator: PretrainedGenerator) -> Generator:
    """A copy of the network with its spectral norms multiplied into the weights."""
    network = build_generator(generator.metadata["generator"])  # a deep copy would share the classes changed below
    network.load_state_dict(generator.network.state_dict())
    for module in network.eval().modules():
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network


def example_inputs(network: Generator, batch: int) -> tuple[Any, ...]:
    """Latents (batch, Z), and classes (batch,) for a conditional generator."""
    z = latents(range(batch), network.z_dim)
    return (z, torch.arange(batch) % network.num_classes) if network.num_classes else (z,)


@torch.no_grad()
def _largest_difference(run: Callable[..., Any], network: Generator) -> float:
    batches = [example_inputs(network, size) for size in (1, 5)]
    return max(float((run(*inputs) - network(*inputs)).abs().max()) for inputs in batches)
