"""Several processes for one function: those of `accelerate launch` or `torchrun`, or CPU processes of our own.

On a CPU a few processes of one thread may train small networks faster than one process of as many threads: it depends
on machine and batch (docs/scaling.md). Those meet under torch.distributed (gloo) by a file. GPUs and several machines
need a launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue

import torch
import torch.distributed
from accelerate import PartialState
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException
from torch.multiprocessing.spawn import spawn as start_processes
from torch.nn.parallel import DistributedDataParallel

from condmix import CondmixError
from condmix.runtime.cores import cores
from condmix.runtime.interrupts import held_back, interruptible
from condmix.runtime.oserrors import sentence

GRACE = 20  # seconds that an interrupted process has for tidying up


def is_main() -> bool:
    """Whether this process is the one that writes results."""
    return int(os.environ.get("RANK", 0)) == 0


def join_group() -> PartialState:
    """This process's place among those that work together, and its device: a GPU where there is one.

    Accelerate's `Accelerator` would do, but it has one precision for as long as a process lives, and refuses to train
    in another than something else in the process (an earlier training, a notebook's own code) has asked it for.
    """
    # Without cpu=True, Accelerate takes each of several CPU processes for the only one.
    return PartialState(cpu=not torch.cuda.is_available())


def averaging(network: nn.Module, group: PartialState) -> nn.Module:
    """The network, whose gradients its backward pass averages over the group; itself where there is one process."""
    if group.num_processes == 1:
        return network
    return DistributedDataParallel(network, device_ids=[group.device] if group.device.type == "cuda" else None)


def together(processes: int, function: Callable[..., None], *arguments: object) -> int:
    """Call function(*arguments) in each process of a group and return, when all are done, how many they are.

    The group is the launcher's, all of whose processes must make this call. Without a launcher it is `processes`
    new ones, or on a GPU this process alone.
    """
    if _starts(processes):
        spawn(processes, function, *arguments)
        return processes
    keep_memory()
    group = join_group()
    function(*arguments)
    group.wait_for_everyone()
    return int(group.num_processes)


def spawn(processes: int, function: Callable[..., None], *arguments: object) -> None:
    """Call function(*arguments) in `processes` new processes, a group of their own, on equal shares of the cores.

    `function` must be importable. The first CondmixError that one of them raises is raised here; an error of the
    operating system becomes one.
    """
    sentences: SimpleQueue[str] = torch.multiprocessing.get_context(
        "spawn"
    ).SimpleQueue()  # a pipe: the disk may be what is full
    with tempfile.TemporaryDirectory(prefix="condmix-") as folder:
        try:
            with held_back():
                members = start_processes(
                    _member, (processes, folder, sentences, function, arguments), nprocs=processes, join=False
                )
            while not members.join():
                pass
        except KeyboardInterrupt:
            _end_children()
            raise
        except ProcessExitedException as error:
            if not sentences.empty():
                raise CondmixError(sentences.get()) from None
            raise CondmixError(
                f"a process of {function.__module__} ended with {error.signal_name or error.exit_code}; "
                "run it again: it goes on from its last checkpoint"
            ) from None


def _end_children() -> None:
    """Interrupt the processes that this one has started, with time to tidy up, then end them.

    They are asked for, since an interrupt may come while some have not been started yet.
    """
    deadline = time.monotonic() + GRACE
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    for child in children:
        child.join(max(0, deadline - time.monotonic()))
        child.kill()


def threads(processes: int) -> int:
    """CPU threads that each process of `together(processes, ...)` computes with."""
    return _share(processes) if _starts(processes) else torch.get_num_threads()


def _starts(processes: int) -> bool:
    """Whether `together` starts processes of its own."""
    return "WORLD_SIZE" not in os.environ and processes > 1 and not torch.cuda.is_available()


def _share(processes: int) -> int:
    return max(1, cores() // processes)


def keep_memory() -> None:
    """Let glibc keep what is freed: it hands large blocks back to the kernel and faults them in again at every step.

    That is 8% of a small training step. Other C libraries are left as they are.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 1 << 30)


def _member(
    rank: int, processes: int, folder: str, sentences: SimpleQueue[str], function: Callable[..., None], arguments: tuple
) -> None:
    with interruptible() as interruption:
        try:
            _take_part(rank, processes, folder, function, arguments)
        except KeyboardInterrupt:
            raise SystemExit(interruption.exit_code) from None  # torch would pass it off as success
        except Exception as error:
            text = str(error) if isinstance(error, CondmixError) else sentence(error)
            if text is None:
                raise
            sentences.put(text)
            raise SystemExit(1) from None


def _take_part(rank: int, processes: int, folder: str, function: Callable[..., None], arguments: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    keep_memory()
    threads = _share(processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # or Accelerate sets a number of its own, and warns
    torch.set_num_threads(threads)
    with held_back():  # it starts threads
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/rendezvous",
            rank=rank,
            world_size=processes,
            timeout=datetime.timedelta(days=1),  # a queued run may wait that long for one that trains the same thing
        )
    try:
        function(*arguments)
    finally:
        torch.distributed.destroy_process_group()
