"""The choice of a pretrained generator's weights that train."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from transfergen.errors import counted
from transfergen.networks.class_mixtures import Label
from transfergen.networks.generators.base import Generator
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d
from transfergen.networks.layers.reparametrization import (
    class_tables,
    singular_values,
    train_mixtures,
    train_singular_values,
)
from transfergen.transfer.copying import start_weights

Selection = Literal["all", "norms", "singular_values", "last_k", "gradual"]


def select_weights(generator: Generator, selection: Selection, blocks: int) -> None:
    """Let only some of the generator's weights train, for the whole training. Embeddings of classes always do.

    Args:
        generator: with the weights that it starts from.
        selection: `norms`, the gains and biases of batch normalisation, or what computes them from classes and latents
            (Noguchi 2019, arXiv:1904.01774); `singular_values`, those of each matrix and kernel (Robb 2020,
            arXiv:2010.11943); `last_k`, the blocks next to the pixels; `all` and `gradual`, everything, of which
            `release_blocks` then freezes a part.
        blocks: how many, for `last_k`.

    Raises:
        ValueError: the generator has nothing of the kind, or fewer blocks.
    """
    if selection == "norms":
        _train_only(generator, selection, _norms(generator))
    elif selection == "singular_values":
        train_singular_values(generator)
        _train_only(generator, selection, singular_values(generator))
    elif selection == "last_k":
        most = len(generator.stages())
        if blocks > most:
            fewer = f"transfer.generator_last_k={most} or " if most else ""
            raise ValueError(
                f"transfer.generator_last_k={blocks}: this generator has {counted(most, 'block')}; set {fewer}"
                "transfer.generator=all"
            )
        _train_only(generator, selection, _last_blocks(generator, blocks))


def release_blocks(generator: Generator, blocks: int) -> None:
    """Let `norms` and this many blocks train, those next to the pixels; everything, if there are not as many."""
    if blocks > len(generator.stages()):
        generator.requires_grad_(True)
    else:
        _train_only(generator, "gradual", [*_norms(generator), *_last_blocks(generator, blocks)])


def mix_classes(generator: Generator, source: Mapping[str, Tensor] | None, classes: Sequence[Label] = ()) -> None:
    """Make each class of the generator a learnt mixture of a source's classes.

    Args:
        generator: its embeddings of classes are replaced.
        source: the source's tensors by name; None where a checkpoint follows, which has them.
        classes: those of the source that new ones start from, see `start_weights`.

    Raises:
        ValueError: the generator or the source has no classes, or the `classes` do not fit.
    """
    tables = class_tables(generator)
    for name, table in tables.items():
        rows = table.weight.detach()[:1] if source is None else source.get(f"{name}.weight")
        if rows is None or rows.shape[1:] != table.weight.shape[1:]:
            raise ValueError(
                f"transfer.new_classes=mixture: init_from.generator has no {name}.weight of {table.weight.shape[1]} "
                "columns; set transfer.new_classes=mean"
            )
        train_mixtures(table, rows, start_weights(classes, len(table.weight), len(rows)))
    if not tables:
        raise ValueError(
            "transfer.new_classes=mixture: this generator has no classes; set generator=biggan, say, or "
            "transfer.new_classes=mean"
        )


def _norms(generator: Generator) -> list[nn.Module]:
    return [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d | ConditionalBatchNorm2d)]


def _last_blocks(generator: Generator, blocks: int) -> list[nn.Module]:
    stages = generator.stages()
    return [module for stage in stages[len(stages) - blocks :] for module in stage]


def _train_only(generator: Generator, selection: Selection, modules: Iterable[nn.Module]) -> None:
    """Freeze all but these modules and the embeddings of classes."""
    generator.requires_grad_(False)
    for module in (*modules, *class_tables(generator).values()):
        module.requires_grad_(True)
    if not any(p.requires_grad for p in generator.parameters()):
        raise ValueError(f"transfer.generator={selection}: this generator has none; set transfer.generator=all")
