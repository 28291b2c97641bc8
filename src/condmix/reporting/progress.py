"""Where a run of the pipeline stands: which of its stages begins, and how long it and those after it took last time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from condmix import CondmixError, pipeline
from condmix.files.artifacts import read_json
from condmix.files.atomic import write_json
from condmix.settings.schema import Params

SIDE_BY_SIDE = "CONDMIX_SIDE_BY_SIDE"  # the environment's variable that says so: the Makefile sets it


def stages(content: Mapping[str, Any], variants: Sequence[str]) -> list[str]:
    """The stages of dvc.yaml in its order, those of variants once for each, as in "train@caption"."""
    found = []
    for name, stage in content["stages"].items():
        found += [f"{name}@{variant}" for variant in variants] if "matrix" in stage else [name]
    return found


def line(every: Sequence[str], name: str, seconds: Mapping[str, float], in_order: bool = True) -> str:
    """As in "condmix: train caption, stage 16 of 22; it took 2:43 here last time, and those after it 4:10".

    What comes after is left out where stages do not run in dvc.yaml's order, one after the other.
    """
    place = every.index(name)
    later = [seconds[stage] for stage in every[place + 1 :] if stage in seconds]
    said = f"condmix: {name.replace('@', ' ')}, stage {place + 1} of {len(every)}"
    if name in seconds:
        said += f"; it took {clock(seconds[name])} here last time"
        if later and in_order:
            missing = len(every) - place - 1 - len(later)
            said += f", and those after it {clock(sum(later))}"
            said += f" without {missing} that have not run yet" if missing else ""
    return said


def clock(seconds: float) -> str:
    """As in 0:07, 12:30 or 3:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def timed(params: Params, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Around a stage: says the line, and keeps how long it took in .checkpoints/seconds/, for the next time."""
    path = params.root / ".checkpoints" / "seconds" / f"{params.profile}.json"
    every = stages(pipeline.read(params.root), params.variants)
    if name in every:
        say(line(every, name, kept(path), in_order=SIDE_BY_SIDE not in os.environ))
    started = time.monotonic()
    yield
    took = round(time.monotonic() - started, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # stages may run side by side
        write_json(path, {**kept(path), name: took})


def kept(path: Path) -> dict[str, float]:
    """Seconds by stage; none where the file can't be read, as it only serves the line."""
    try:
        seconds: dict[str, float] = read_json(path, dict[str, float], "")
    except CondmixError:
        return {}
    return seconds
