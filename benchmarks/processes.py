"""How training scales over CPU processes: the current profile's step in groups of processes, by turns.

    PYTHONPATH=src python benchmarks/processes.py --variant caption --batch-sizes 32,64

Needs the packed perspectives (dvc repro). Each group trains the same batches for a few steps; nothing is kept.
Efficiency is the group's rate over that of one process of one thread times the number of cores it uses.
"""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import torch
from accelerate import PartialState

from condmix.runtime.processes import spawn
from condmix.settings.load import Params, load
from condmix.training.trainer import Trainer

GROUPS = {"1 process x 1 thread": (1, 1), "1 process x 2 threads": (1, 2), "2 processes x 1 thread": (2, 1)}
WARMUP = 3


def member(params: Params, variant: str, threads: int, steps: int, out: Path) -> None:
    """In each process: time `steps` steps; the first process writes their median."""
    torch.set_num_threads(threads)
    trainer = Trainer(params, variant, PartialState(cpu=True))
    trainer.network.train()
    seconds = []
    for step in range(WARMUP + steps):
        before = time.perf_counter()
        trainer.advance(step)
        seconds.append(time.perf_counter() - before)
    if trainer.group.is_main_process:
        out.write_text(str(median(seconds[WARMUP:])))


@click.command()
@click.option("--variant", default="caption", show_default=True)
@click.option("--batch-sizes", default="32,64", show_default=True, help="Pictures per step, over all processes.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=15, show_default=True, help="Timed steps of each group in each round.")
def main(variant: str, batch_sizes: str, rounds: int, steps: int) -> None:
    os.environ["CONDMIX_TRACKING"] = "off"
    params = load()
    print(f"profile {params.profile}, {variant}; median over {rounds} rounds of the median of {steps} steps; "
          f"torch {torch.__version__}, load before {os.getloadavg()[0]:.2f}\n")  # fmt: skip
    print("| batch | group | ms / step | pictures / s | efficiency |\n|---|---|---|---|---|")
    for size in map(int, batch_sizes.split(",")):
        at = params.model_copy(update={"train": params.train.model_copy(update={"batch_size": size})})
        taken = {name: [] for name in GROUPS}
        for _ in range(rounds):
            for name, (processes, threads) in GROUPS.items():
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder, "seconds")
                    spawn(processes, member, at, variant, threads, steps, out)
                    taken[name].append(float(out.read_text()))
        alone = taken["1 process x 1 thread"]
        for name, (processes, threads) in GROUPS.items():
            second = median(taken[name])
            efficiency = median(a / s for a, s in zip(alone, taken[name], strict=True)) / (processes * threads)
            print(f"| {size} | {name} | {1e3 * second:.0f} | {size / second:.0f} | {efficiency:.0%} |", flush=True)


if __name__ == "__main__":
    main()
