"""Processes of our own that start at once: forks of one that has imported the stages, which takes seconds."""

import gc
import multiprocessing
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch.multiprocessing

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([f"condmix.stages.{stage}" for stage in ("embed", "encode", "evaluate", "train")])


def start(function, *arguments, streams=(), **environment):
    """A process that calls the function, in the environment of this one with these changes.

    `streams` are files in the place of its standard output and its standard error.
    """
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    process = context.Process(target=_call, args=(variables, streams, function, arguments))
    process.start()
    return process


def completed(function, *arguments, **environment):
    """Such a process at its end: `code`, `stdout` and `stderr`."""
    with tempfile.TemporaryDirectory() as folder:
        streams = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(function, *arguments, streams=streams, **environment)
        process.join()
        stdout, stderr = (stream.read_text() for stream in streams)
    return SimpleNamespace(code=process.exitcode, stdout=stdout, stderr=stderr)


def start_processes(function, arguments, nprocs, join):
    """What takes the place of `start_processes` in condmix.runtime.processes."""
    given = (dict(os.environ), function, arguments)
    return torch.multiprocessing.start_processes(_call_member, given, nprocs, join, start_method="forkserver")


def _call(environment, streams, function, arguments):
    gc.freeze()  # see conftest.py
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    function(*arguments)


def _call_member(rank, environment, function, arguments):
    _call(environment, (), function, (rank, *arguments))
