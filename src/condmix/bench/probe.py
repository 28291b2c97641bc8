"""One contender in a new process: its parameters, FLOPs per picture and peak memory.

A process's peak is for life, so contenders must not share one. Run by `measure` as
`python -m condmix.bench.probe <JSON>`; the answer is the last line that it prints.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from condmix import CondmixError
from condmix.bench.benchmarks import benchmark
from condmix.bench.setting import Setting

SMALLEST = "quick"
STATUS = Path("/proc/self/status")
COUNTED = 2  # pictures in the counted step: convolutions and matrix products are proportional to their number

# PyTorch counts attention by its kernels for GPUs, but not by that for CPUs.
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda dy, q, k, v, *_, **__: sdpa_backward_flop_count(dy, q, k, v)
    ),
}


def measure(setting: Setting, name: str, threads: int) -> dict[str, Any]:
    """What `probe` finds out about the contender, in a process of its own with that many threads."""
    question = json.dumps({"setting": asdict(setting), "name": name, "threads": threads})
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    answer = subprocess.run(
        [sys.executable, "-m", "condmix.bench.probe", question], env=environment, capture_output=True, text=True
    )
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or [f"status {answer.returncode}"]
        raise CondmixError(f"{name}: measuring its memory in a process of its own failed: {lines[-1]}")
    return json.loads(answer.stdout.splitlines()[-1])


def probe(setting: Setting, name: str) -> dict[str, Any]:
    """Parameters, FLOPs per picture, and MiB at the peak of two steps (the second has the optimiser's moments too).

    `peak_mib` is above `mib_before`, what the process had with all its libraries loaded.
    """
    flop_per_picture(replace(setting, size=SMALLEST), name)  # libraries load parts of themselves in the first step
    contenders = benchmark(setting)
    before = _memory(setting.device, peak=False)
    contender = contenders.build(name)
    for number in range(2):
        contender.step(contenders.draw(number))
    peak = _memory(setting.device, peak=True)
    parameters = contender.parameters
    del contender
    return {
        "parameters": parameters,
        "flop_per_picture": flop_per_picture(setting, name),
        "peak_mib": round(peak - before),
        "mib_before": round(before),
    }


def flop_per_picture(setting: Setting, name: str) -> int:
    """Multiplications and additions of convolutions and matrix products, forward and backward."""
    contenders = benchmark(setting)
    contender, batch = contenders.build(name), contenders.draw(0, COUNTED)
    # what is compiled can't be looked into; without torch.compile in the setting, `ours-compile` would not be there
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        contender.step(batch)
    return counter.get_total_flops() * contender.repeats // COUNTED


def _memory(device: str, peak: bool) -> float:
    """MiB, now or at the peak: of the GPU, what tensors take; of a process, what is resident."""
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    if STATUS.exists():
        return _status("VmHWM" if peak else "VmRSS")
    return _maximum()


def _status(key: str) -> float:
    """MiB from Linux, which knows better than getrusage: ru_maxrss begins with the peak of the parent process."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:")]
    return int(line.split()[1]) / 2**10


def _maximum() -> float:
    """MiB; ru_maxrss is in bytes on macOS and in KiB elsewhere."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main() -> None:
    question = json.loads(sys.argv[1])
    torch.set_num_threads(question["threads"])
    print(json.dumps(probe(Setting(**question["setting"]), question["name"])))


if __name__ == "__main__":
    _main()
