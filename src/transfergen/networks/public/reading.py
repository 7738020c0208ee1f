"""The way from a file that another project has published, or from its name on the hub, to a network of ours."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from transfergen.digest import file_sha256
from transfergen.errors import counted
from transfergen.networks.public import biggan_deep, biggan_pytorch, studiogan
from transfergen.networks.public.layout import PublicNetwork
from transfergen.networks.shapes import shapes_only
from transfergen.networks.weights import WeightsError, download_from_hub, read_state_dict, rename
from transfergen.targets import get_target

LAYOUTS: dict[str, ModuleType] = {
    "studiogan": studiogan,
    "biggan_pytorch": biggan_pytorch,
    "biggan_deep": biggan_deep,
}
"""By name: modules with `LICENCE`, and functions `generator` and, where one was published, `discriminator` from tensors
by name to a `PublicNetwork`. Some have `PUBLISHED`, downloads by name, and `TRAINING`, the options of `generator` with
which the network can be trained."""

Kind = Literal["generator", "discriminator"]

CONVERSION_ERRORS = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError)
"""What the functions of a layout raise for tensors of another one."""

_HUB_FILE = re.compile(r"([\w.-]+/[\w.-]+)/(.+)")
"""OWNER/MODEL/FILE, a file on the Hugging Face hub."""


@dataclass(frozen=True)
class PublicSource:
    """A published network: its layout, and its place: a path, OWNER/MODEL/FILE on the hub, or a name in `PUBLISHED`."""

    layout: str
    place: str

    def read(self, kind: Kind, argument: str, **options: Any) -> PublicNetwork:
        """The network in the file.

        Args:
            kind: which network the file holds.
            argument: what the source was given as, which error messages begin with.
            options: of the layout's function.

        Raises:
            WeightsError: there is no such file or it is damaged, holds more than tensors or another network, or the
                project has not published such a network.
        """
        convert = getattr(LAYOUTS[self.layout], kind, None)
        if convert is None:
            raise WeightsError(
                f"{argument}={self.place}: no {kind} of {self.layout} was published; set {argument}=null"
            )
        state = rename(read_state_dict(self.file(argument), argument), [(r"module\.(.+)", r"\1")])
        try:
            network: PublicNetwork = convert(state, **options)
        except CONVERSION_ERRORS as error:
            found = _recognized(state, kind, argument, self.place) or (
                f" ({type(error).__name__}: {error}); it has {counted(len(state), 'tensor')}, "
                f"{next(iter(state), 'none')} first"
            )
            raise WeightsError(f"{argument}={self.place}: no {kind} as {self.layout} saves it{found}") from error
        counters = [
            name.replace("running_mean", "num_batches_tracked") for name in network.state if "running_mean" in name
        ]
        for name in counters:  # not all layouts have them
            network.state.setdefault(name, torch.tensor(0))
        return network

    def training_options(self, kind: Kind) -> dict[str, Any]:
        """The options with which `read` gives a network that can be trained, and their defaults."""
        return getattr(LAYOUTS[self.layout], "TRAINING", {}) if kind == "generator" else {}

    def file(self, argument: str) -> Path:
        """The file, downloaded unless it is on this machine.

        Raises:
            WeightsError: it cannot be downloaded.
        """
        published = getattr(LAYOUTS[self.layout], "PUBLISHED", {})
        setting, as_copy = f"{argument}={self.layout}:{self.place}", f" as {self.layout}:FILE"
        if self.place in published:
            path: Path = published[self.place].fetch(setting, advice=as_copy)
            return path
        path = Path(self.place).expanduser()
        on_hub = _HUB_FILE.fullmatch(self.place)
        if path.exists() or not on_hub:
            if published and not path.exists():
                names = ", ".join(published)
                raise WeightsError(f"{setting}: there is no such file, and published are {names}")
            return path
        return download_from_hub(on_hub[1], [on_hub[2]], setting, as_copy) / path.name

    def origin(self, argument: str) -> str:
        """The file's name, its project and the licence, in words."""
        return f"{self.file(argument).name} of {self.layout} (licence: {LAYOUTS[self.layout].LICENCE})"

    def digest(self, argument: str) -> str:
        """The file's SHA-256."""
        return file_sha256(self.file(argument))


def _recognized(state: Mapping[str, Tensor], wanted: Kind, argument: str, place: str) -> str:
    """What other network of which layout the tensors are, and what to set, in words; nothing if none is known here."""
    for kind, (layout, module) in product(sorted(get_args(Kind), key=wanted.__ne__), LAYOUTS.items()):
        with suppress(*CONVERSION_ERRORS, AttributeError):
            public = getattr(module, kind)(dict(state))
            with shapes_only():
                network = get_target(public.config["_target_"])
                names = network(**{k: v for k, v in public.config.items() if k != "_target_"}).state_dict().keys()
            if all(name in public.state or name.endswith("num_batches_tracked") for name in names):
                advice = f"set {argument}={layout}:{place}" if kind == wanted else f"give the file of a {wanted}"
                return f", but a {kind} as {layout} does; {advice}"
    return ""


def find_source(given: str, layout: str | None = None) -> PublicSource | None:
    """A source given as LAYOUT:PLACE, or as PLACE where the layout is known; None: it names no other project's file.

    Raises:
        ValueError: there is no such layout.
    """
    named, colon, place = given.partition(":")
    if colon and named in LAYOUTS:
        return PublicSource(named, place)
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout={layout}: choose one of {', '.join(LAYOUTS)}")
    return PublicSource(layout, given) if layout else None
