"""How many CPU cores there are to use."""

import os


def cores() -> int:
    """CPU cores that this process may run on: fewer than the machine has under taskset, Slurm or a container's cpuset.

    More threads than these wait for one another, at a tenth of the speed.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
