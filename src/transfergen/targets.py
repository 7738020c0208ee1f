"""The functions and classes that a `_target_` may name: exactly those that the shipped configs name.

A config can be somebody else's file, and a function of a library that is harmless in itself may call another one by
name, read a pickle or write anywhere. So neither a package nor a module is trusted, only each name of this list.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGED = Path(__file__).parent / "conf"
CONF_DIR = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"

_trusted: set[str] = set()


@cache
def shipped_targets() -> frozenset[str]:
    """The names that the files of `CONF_DIR` give as `_target_`."""
    return frozenset(re.findall(r"_target_: (\S+)", "".join(file.read_text() for file in CONF_DIR.rglob("*.yaml"))))


def trust(names: Iterable[str]) -> None:
    """Let a `_target_` name these, besides the shipped ones, from now on. Names that were trusted before no longer are.

    They are the user's own word, from the command line, and never that of a file.
    """
    _trusted.clear()
    _trusted.update(names)


def get_target(name: Any) -> Any:
    """The function or class of a `_target_`.

    Raises:
        ValueError: it is not on the list, or there is no such object.
    """
    if name not in shipped_targets() | _trusted:
        raise ValueError(
            f"_target_={name}: refused, since it may come from somebody else's file; if it is your own choice, add "
            f"trust=[{name}] to the command"
        )
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # whatever importing the module raises
        raise ValueError(f"_target_={name}: there is no such object ({error})") from error
