"""One run of the benchmark: settings -> measurements -> JSON file and table."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from condmix import CondmixError
from condmix.bench import gemm, record
from condmix.bench.benchmarks import benchmark
from condmix.bench.loss import held_out_loss, train_on
from condmix.bench.probe import measure
from condmix.bench.setting import BENCHMARKS, SIZES, Setting, setting_here
from condmix.bench.timing import Rounds, interleave
from condmix.files.atomic import write_json

WARMUP = {"cpu": 1, "cuda": 3}  # rounds: a GPU's first ones compile and choose kernels


@dataclass(frozen=True)
class BenchPlan:
    """What is measured: `rounds`, for no more than `seconds`; with `probes`, memory and FLOPs.

    With `loss`, training goes on to that many pictures, and losses are compared.
    """

    rounds: int
    seconds: float | None = None
    probes: bool = True
    loss: int | None = None


def main(
    setting: Setting,
    plan: BenchPlan,
    contenders: Sequence[str] = (),
    threads: int | None = None,
    out: Path | None = None,
) -> str:
    """Measure, write the JSON file, and return the table."""
    if threads:
        torch.set_num_threads(threads)
    if plan.loss is not None and setting.what != "train":
        raise CondmixError(f"--loss compares what training learns; it has no meaning with --what {setting.what}")
    kind = benchmark(setting)
    names = kind.choose(contenders)
    path = out or record.default_path(setting)
    _check_writable(path)
    content = measured(setting, names, plan)
    write_json(path, content)
    return f"{record.table(content, kind.baseline)}\n\nIn full: {path}"


def listing() -> str:
    """The benchmarks and their contenders on this machine, and the sizes."""
    lines = []
    for what, step in BENCHMARKS.items():
        lines += [f"--what {what}: {step}"]
        lines += [f"  {name:<24} {about}" for name, about in benchmark(setting_here(what, "9m", 64)).about.items()]
    return "\n".join([*lines, f"--size {', '.join(SIZES)}"])


def measured(setting: Setting, names: Sequence[str], plan: BenchPlan) -> dict[str, Any]:
    """The record of contenders that `choose` has passed."""
    contenders = benchmark(setting)
    contenders.check(names)
    conditions = record.conditions(setting) | contenders.conditions()
    probes = {}
    if plan.probes:  # before anything is built: two contenders at once might not fit
        for name in names:
            _say(f"memory and FLOPs of {name}")
            probes[name] = measure(setting, name, torch.get_num_threads())

    built = {name: contenders.build(name) for name in names}
    kinds = {gemm.arithmetic(setting.device, contender.dtype) for contender in built.values()} | {"fp32"}
    work = {name: contender.step for name, contender in built.items()}
    products = {f"gemm {kind}": product for kind, product in gemm.gemm_work(setting.device, kinds).items()}
    warmup = WARMUP[setting.device]
    rounds = Rounds(plan.rounds, warmup, plan.seconds or float("inf"))
    taken = interleave(work | products, contenders.draw, rounds, say=_say)
    done = len(taken[names[0]])

    losses, seen = {}, None
    if plan.loss is not None:
        batches = max(warmup + done, -(-plan.loss // setting.batch_size))
        train_on(built, contenders.draw, warmup + done, batches, _say)
        losses = {name: held_out_loss(contender, setting) for name, contender in built.items()}
        seen = batches * setting.batch_size
    return {
        "device": record.device_name(setting),
        "conditions": conditions,
        "rounds": done,
        "warmup": warmup,
        "pictures_seen": seen,
        "about": {name: contenders.about[name] for name in names},
        **record.evaluate(
            setting,
            contenders.baseline,
            {
                name: record.Measured(
                    contender.dtype,
                    [contender.repeats * second for second in taken[name]],
                    probes.get(name, {}),
                    losses.get(name),
                )
                for name, contender in built.items()
            },
            {name.removeprefix("gemm "): taken[name] for name in products},
        ),
    }


def _check_writable(path: Path) -> None:
    """Rather now than after an hour of measurements."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CondmixError(f"--out {path}: cannot make the folder {path.parent} ({error.strerror})") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise CondmixError(f"--out {path} is not a file that can be written")


def _say(sentence: str) -> None:
    print(f"condmix bench: {sentence}", file=sys.stderr, flush=True)
