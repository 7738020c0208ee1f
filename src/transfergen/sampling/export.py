"""A trained generator for other programs: ONNX, torch.export, bfloat16."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfergen.networks.generators.base import Generator as Network
    from transfergen.sampling.pretrained import PretrainedGenerator


TOLERANCE = 1e-4
"""Largest difference of images in [-1, 1] that is rounding and nothing else."""


def to_onnx(generator: "PretrainedGenerator", path: Path) -> float:
    """ONNX with inputs z (batch, Z) float32 and, of a conditional generator, y (batch,) int64; output images.

    Returns:
        The largest difference from torch's images, as onnxruntime computes them.

    Raises:
        ValueError: its packages are not installed.
    """
    import torch

    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch writes by it)
    except ImportError as error:
        raise ValueError("format=onnx needs packages more: pip install 'transfergen[export]'") from error
    network = plain(generator)
    inputs = example(network, 2)
    names = ["z", "y"][: len(inputs)]
    torch.onnx.export(
        network,
        inputs,
        path,
        input_names=names,
        output_names=["images"],
        dynamic_shapes=_any_batch(inputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*given: Any) -> Any:
        feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return _difference(run, generator.network)


def to_torch_export(generator: "PretrainedGenerator", path: Path) -> float:
    """A program of torch.export, for `torch.export.load`. Returns its largest difference."""
    import torch

    network = plain(generator)
    inputs = example(network, 2)
    program = torch.export.export(network, inputs, dynamic_shapes=_any_batch(inputs))
    torch.export.save(program, path)
    return _difference(torch.export.load(path).module(), generator.network)


def to_bf16(generator: "PretrainedGenerator", folder: Path) -> float:
    """A folder that everything here reads, half the size. Returns the largest difference."""
    import copy

    import torch

    from transfergen.runs.artefacts import load_generator, save_generator

    half = copy.deepcopy(generator.network).to(torch.bfloat16)
    about = generator.about
    save_generator(folder, half, about["generator"], ema=about["ema"], images_seen=about["images_seen"])
    return _difference(load_generator(folder), generator.network)


def plain(generator: "PretrainedGenerator") -> "Network":
    """A network of its own whose spectral norms are worked into the weights."""
    from torch.nn.utils import parametrize

    from transfergen.runs.artefacts import build

    network = build(generator.about["generator"])  # a deep copy would share the classes that are changed below
    network.load_state_dict(generator.network.state_dict())
    for module in network.eval().modules():
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return network


def example(network: "Network", batch: int) -> tuple[Any, ...]:
    """Inputs of a generator."""
    import torch

    from transfergen.networks.generators.base import latents

    z = latents(range(batch), network.z_dim)
    return (z, torch.arange(batch) % network.num_classes) if network.num_classes else (z,)


def _any_batch(inputs: tuple[Any, ...]) -> tuple[dict[int, Any], ...]:
    import torch

    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in inputs)


def _difference(run: Any, network: "Network") -> float:
    import torch

    with torch.no_grad():
        given = [example(network, batch) for batch in (1, 5)]
        return max(float((run(*inputs) - network(*inputs)).abs().max()) for inputs in given)
