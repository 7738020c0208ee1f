"""Weights that are functions of fewer numbers, which train in their place, and how to save them as plain weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from transfergen.devices import full_float32


class SingularValues(nn.Module):
    """Singular values (K,) -> the weight (N, ...) that has them, with the singular vectors of another, given weight.

    A kernel counts as a matrix: its first dimension by all others. Robb 2020, arXiv:2010.11943, section 3.
    """

    u: Tensor
    vh: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = weight.shape
        u, _, vh = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
        self.register_buffer("u", u)
        self.register_buffer("vh", vh)

    def forward(self, values: Tensor) -> Tensor:
        """Singular values (K,) -> a weight, in their precision even under autocast."""
        with _in_full_precision(values):
            return ((self.u * values) @ self.vh).view(self.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A weight -> the values (K,) that come closest to it."""
        return ((self.u.mT @ weight.flatten(1)) * self.vh).sum(1)


class Mixtures(nn.Module):
    """Coefficients (N, M) -> N mixtures of M given rows: (N, D). Shahbazi 2021, arXiv:2102.06696, section 3.

    Args:
        rows: (M, D), which stay as they are.
        start: the first coefficients (N, M).
    """

    rows: Tensor
    _start: Tensor

    def __init__(self, rows: Tensor, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("_start", start.to(rows), persistent=False)

    def forward(self, coefficients: Tensor) -> Tensor:
        """Coefficients (N, M) -> rows (N, D), in their precision even under autocast."""
        with _in_full_precision(coefficients):
            return coefficients @ self.rows

    def right_inverse(self, table: Tensor) -> Tensor:
        """The first coefficients, whatever the table (N, D) in their place holds."""
        return self._start.clone()


@contextmanager
def _in_full_precision(numbers: Tensor) -> Iterator[None]:
    """A context for the products that make a weight, which is then as exact as one that trains itself."""
    with torch.autocast(numbers.device.type, enabled=False), full_float32():
        yield


def class_tables(network: nn.Module) -> dict[str, nn.Embedding]:
    """The embeddings of classes in a network, by name: shared ones, and those of conditional normalisations."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Embedding)}


def train_singular_values(network: nn.Module) -> None:
    """Let the singular values of all matrices and kernels train instead of these; embeddings of classes stay.

    With spectral normalisation, they are those of the weight before it.
    """
    tables = {id(p) for table in class_tables(network).values() for p in table.parameters()}
    for module in list(network.modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.ndim > 1 and id(weight) not in tables:
                parametrize.register_parametrization(module, name, SingularValues(weight))


def singular_values(network: nn.Module) -> list[nn.Module]:
    """The modules that hold the singular values which train in a network."""
    return [parts for _, parts in _reparametrizations(network) if isinstance(parts[0], SingularValues)]


def train_mixtures(table: nn.Embedding, rows: Tensor, coefficients: Tensor) -> None:
    """Make each row of a table (N, D) a mixture of the `rows` (M, D), at first with the `coefficients` (N, M)."""
    parametrize.register_parametrization(table, "weight", Mixtures(rows.to(table.weight), coefficients))


def resize_mixtures(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the network's mixtures the sizes that they have in its `state` dict, so that this can be loaded.

    Mixtures that it does not hold keep theirs.
    """
    for name, parts in _reparametrizations(network):
        if isinstance(parts[0], Mixtures) and f"{name}.0.rows" in state:
            parts[0].rows = parts[0].rows.new_empty(state[f"{name}.0.rows"].shape)
            parts.original.data = parts.original.new_empty(state[f"{name}.original"].shape)


@torch.no_grad()
def plain_state_dict(network: nn.Module) -> dict[str, Tensor]:
    """The state dict that the network would have if nothing trained in the place of its weights."""
    state = dict(network.state_dict())
    for name, parts in _reparametrizations(network):
        owner, _, weight = name.rpartition("parametrizations.")
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state[owner + weight] = parts()
    return state


def _reparametrizations(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], SingularValues | Mixtures):
            yield name, module
