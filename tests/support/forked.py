"""Processes of our own that start at once: forks of one that has imported the stages, which takes seconds."""

import multiprocessing
import os

import torch.multiprocessing

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload([f"condmix.stages.{stage}" for stage in ("embed", "encode", "evaluate", "train")])


def start(function, *arguments, **environment):
    """A process that calls the function, in the environment of this one with these changes."""
    process = context.Process(target=_call, args=(os.environ | environment, function, arguments))
    process.start()
    return process


def start_processes(function, arguments, nprocs, join):
    """What takes the place of `start_processes` in condmix.runtime.processes."""
    given = (dict(os.environ), function, arguments)
    return torch.multiprocessing.start_processes(_call_member, given, nprocs, join, start_method="forkserver")


def _call(environment, function, arguments):
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)


def _call_member(rank, environment, function, arguments):
    _call(environment, function, (rank, *arguments))
