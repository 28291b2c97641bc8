"""Several processes for one function: those of `accelerate launch` or `torchrun`, or CPU processes of our own.

On a CPU a few processes of one thread may train small networks faster than one process of as many threads: it depends
on machine and batch (docs/scaling.md). Those meet under torch.distributed (gloo) by a file. GPUs and several machines
need a launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import PartialState
from torch import nn
from torch.multiprocessing import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

from condmix import CondmixError


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


def together(processes: int, function: Callable[..., None], *arguments: Any) -> int:
    """Call function(*arguments) in each process of a group and return, when all are done, how many they are.

    The group is the launcher's, all of whose processes must make this call. Without a launcher it is `processes`
    new ones, or on a GPU this process alone.
    """
    if "WORLD_SIZE" not in os.environ and processes > 1 and not torch.cuda.is_available():
        spawn(processes, function, *arguments)
        return processes
    keep_memory()
    group = join_group()
    function(*arguments)
    group.wait_for_everyone()
    return group.num_processes


def spawn(processes: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call function(*arguments) in `processes` new processes, a group of their own, on equal shares of the cores.

    `function` must be importable. The first CondmixError that one of them raises is raised here.
    """
    with tempfile.TemporaryDirectory(prefix="condmix-") as folder:
        try:
            torch.multiprocessing.spawn(_member, (processes, folder, function, arguments), nprocs=processes)
        except ProcessExitedException as error:
            said = sorted(Path(folder).glob("error-*"))
            if said:
                raise CondmixError(said[0].read_text()) from None
            raise CondmixError(
                f"a process of {function.__module__} ended with {error.signal_name or error.exit_code}; "
                "run it again: it goes on from its last checkpoint"
            ) from None


def keep_memory() -> None:
    """Let glibc keep what is freed: it hands large blocks back to the kernel and faults them in again at every step.

    That is 8% of a small training step. Other C libraries are left as they are.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 1 << 30)


def _member(rank: int, processes: int, folder: str, function: Callable[..., None], arguments: tuple) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), LOCAL_WORLD_SIZE=str(processes))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    keep_memory()
    threads = max(1, (os.cpu_count() or 1) // processes)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # or Accelerate sets a number of its own, and warns
    torch.set_num_threads(threads)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=processes,
        timeout=datetime.timedelta(days=1),  # a queued run may wait that long for one that trains the same thing
    )
    try:
        function(*arguments)
    except CondmixError as error:
        Path(folder, f"error-{rank}").write_text(str(error))
        raise SystemExit(1) from None
    finally:
        torch.distributed.destroy_process_group()
