"""`transfergen explore`: a page on this machine to look at a trained generator's images."""

import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from transfergen.commands import cli
from transfergen.commands.explore_page import page
from transfergen.commands.explore_pictures import training_pictures
from transfergen.errors import SignalError

if TYPE_CHECKING:
    from PIL import Image

HOST = "127.0.0.1"
"""The page has no login, so it is for this machine alone."""


def explore(config: DictConfig) -> None:
    """Serve the page on 127.0.0.1 until it is interrupted.

    Raises:
        ValueError: Gradio is not installed, the port is taken, or the generator cannot be loaded.
    """
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    check_port(config.port)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("explore needs one more package: pip install 'transfergen[explore]'") from error
    from transfergen.devices import choose_device
    from transfergen.runs.kept_generators import choose_generator
    from transfergen.sampling.pretrained import PretrainedGenerator

    source = choose_generator(str(config.run), config.checkpoint)
    generator = PretrainedGenerator.from_pretrained(source, override="run").to(choose_device(config.device))
    try:
        run_dir, data = Path(str(config.run)).expanduser(), config.data
        search: Callable[[int], Image.Image] | str = training_pictures(generator, run_dir, data, config.references)
    except (ValueError, OSError) as error:
        search = f"The training pictures cannot be read: {error}"
    blocks = page(generator, search, str(source))
    print(f"http://{HOST}:{config.port} (Ctrl-C ends it)", flush=True)
    try:
        blocks.launch(
            server_name=HOST,
            server_port=config.port,
            share=False,
            inbrowser=config.browser,
            quiet=True,
            footer_links=["gradio", "settings"],
        )
    except SignalError as error:
        if error.number != signal.SIGINT:
            raise


main = partial(cli.run, "explore", explore)


def check_port(port: int) -> None:
    """Check that this process can listen on a port.

    Raises:
        ValueError: another process does, or only the system's administrator may.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        other = port + 1 if 1024 <= port < 65535 else 7861
        reason = os.strerror(error.errno or 0).lower()
        raise ValueError(f"port={port}: {reason}; choose another, such as port={other}") from error
