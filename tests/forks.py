"""Processes that begin with torch, Lightning and Hydra imported: forks of one that has done only that."""

import gc
import multiprocessing
import os
import runpy
import sys

import torch

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "transfergen.training.fit", "transfergen.commands.train", "datasets", "timm"])


def start_python(*arguments, folder=".", stdout=os.devnull, stderr=os.devnull):
    """Start `python ARGUMENTS` in a session of its own, as a shell does.

    Args:
        arguments: a script or `-m` and a module, and what it is given.
        folder: where it works.
        stdout: name of a file or a terminal. A terminal becomes that of the session.
        stderr: as for `stdout`.

    Returns:
        The process, started: a `multiprocessing.Process`.
    """
    process = FORKS.Process(target=_run, args=(arguments, folder, stdout, stderr), daemon=True)
    process.start()
    return process


def _run(arguments, folder, *streams):
    gc.freeze()  # what was imported before the fork
    os.setsid()
    os.chdir(folder)
    for number, name in enumerate(streams, 1):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)  # a terminal is the session's if it can be read
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")
