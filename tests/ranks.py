"""Two ranks, each a process of its own, over gloo."""

import gc
import importlib.util
import inspect
import os
import socket
import traceback

import torch
import torch.distributed as dist
from forks import FORKS


def on_two_ranks(folder, work, *arguments, joined=True):
    """Run `work(rank, *arguments)` on two ranks, and return both results.

    Args:
        folder: for the results.
        work: a function of a test's module.
        joined: the ranks are in a process group; otherwise they find in the environment what torchrun puts there.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = (folder, port, joined, inspect.getfile(work), work.__name__, arguments)
    ranks = [FORKS.Process(target=_run, args=(rank, *given)) for rank in (0, 1)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(300)
        rank.kill()
    found = [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]
    for _, error in found:
        assert error is None, error
    return [result for result, _ in found]


def _run(rank, folder, port, joined, file, name, arguments):
    gc.freeze()  # what was imported before the fork
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "tests"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    result = error = None
    try:
        if joined:
            dist.init_process_group("gloo")
        spec = importlib.util.spec_from_file_location("work", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        result = getattr(module, name)(rank, *arguments)
    except BaseException:
        error = traceback.format_exc()
    torch.save((result, error), folder / f"rank{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()  # a process must not end with its threads running
