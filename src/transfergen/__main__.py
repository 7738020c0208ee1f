"""The command line: `transfergen COMMAND KEY=VALUE ...`, or `python -m transfergen COMMAND KEY=VALUE ...`."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

if __name__ == "__main__" and sys.path[0] == os.getcwd():  # noqa: PTH109  pathlib might come from there, too
    del sys.path[0]  # `python -m` adds the working folder, whose modules may be somebody else's

from transfergen.signal_handler import ended_by_signals

COMMANDS = ("train", "check", "generate", "evaluate", "export", "explore", "report")


def main(*given: str) -> None:
    """Run the command that the first argument names, on the arguments after it; `given` come before them."""
    name, *arguments = [*given, *sys.argv[1:]] or ["--help"]
    with ended_by_signals():  # from the first import on, which takes half a second
        if name in COMMANDS:
            import_module(f"transfergen.commands.{name}").main(arguments)
        elif name in ("-h", "--help"):
            print(_overview())
        elif name == "--version":
            print(f"transfergen {version('transfergen')}")
        else:
            from transfergen.commands import cli, overrides

            near = overrides.nearest(name, COMMANDS)
            print(f"transfergen: {name}: there is no such command{near} (--help lists all)", file=sys.stderr)
            sys.exit(cli.USER_ERROR)


def _overview() -> str:
    from omegaconf import OmegaConf

    from transfergen.config import CONF_DIR

    headers = {name: OmegaConf.load(CONF_DIR / "hydra" / "help" / f"{name}.yaml").header for name in COMMANDS}
    lines = "\n".join(f"  {name:10}{header}" for name, header in headers.items())
    return (
        f"Image generation by transfer learning.\n\ntransfergen COMMAND KEY=VALUE ...\n\n{lines}\n\n"
        "transfergen COMMAND --help shows examples and all keys, transfergen --version the installed version."
    )


if __name__ == "__main__":
    main()
