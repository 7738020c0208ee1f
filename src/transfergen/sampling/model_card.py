"""The card of a generator on the Hugging Face hub: its README, with samples and metrics."""

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from transfergen.errors import counted
from transfergen.networks.generators.base import Generator

_CARD = """---
library_name: transfergen
pipeline_tag: unconditional-image-generation
tags: [gan, image-generation]
---

# {title}

Images of {shape}{classes}, from {network} with {parameters:,} parameters, {origin}.

![Samples of seeds 0 to 63](grid.png)

```python
from transfergen import Generator

pictures = Generator.from_pretrained("PATH_OR_NAME")(seeds=[1, 2])
```

{metrics}"""

_NAMES = 20
"""Classes that a card names."""
_ROW = "| {name} | {value:.4g} | {extractor} | {generated:,} | {real:,} {split} |\n"

_LICENCE = re.compile(r"\(licence: ([\w.-]+)\)")
"""One licence for all, as `PublicSource.origin` names it. The hub's identifiers are SPDX's in lower case."""

log = logging.getLogger(__name__)


def model_card(
    network: Generator,
    metrics: list[dict[str, Any]],
    *,
    origin: str,
    classes: Sequence[str] = (),
    title: str = "A generator made with transfergen",
    license: str | None = None,
) -> ModelCard:
    """The card of a network, with a grid of samples, and each metric with how it was measured.

    Args:
        network: that the card is of.
        metrics: what `read_metrics` gives.
        origin: how it was trained, or where it comes from, in words.
        classes: names of its classes; none: they have no names.
        title: the card's first line.
        license: the hub's identifier, such as mit; None: that of the generator that it is or started from, if `origin`
            names one.
    """
    rows = "".join(_ROW.format(**record) for record in metrics)
    head = "| metric | value | features | samples | reals |\n|---|---|---|---|---|\n"
    card = ModelCard(
        _CARD.format(
            title=title,
            shape=network.image_shape,
            classes=_classes(network.num_classes, classes),
            network=type(network).__name__,
            parameters=sum(p.numel() for p in network.parameters()),
            origin=origin,
            metrics=head + rows if rows else "",
        )
    )
    named = _LICENCE.search(origin)
    card.data["license"] = license or (named and named[1].lower())  # None is not written
    return card


def _classes(count: int, names: Sequence[str]) -> str:
    """The number of classes and the first names, in words; nothing if there are no classes."""
    shown = ", ".join([*names[:_NAMES], "..."] if len(names) > _NAMES else names)
    return f" of {counted(count, 'class', 'classes')}" * (count > 0) + f" ({shown})" * (shown != "")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.json; none if there is none, or it is damaged."""
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text())["metrics"] if path.is_file() else []
        _ = [_ROW.format(**record) for record in records]
    except (OSError, ValueError, LookupError, TypeError) as error:
        log.warning(f"{path} is damaged, and left out ({type(error).__name__})")
        return []
    return records
