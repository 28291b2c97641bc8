"""Which sampler, spacing of times and last time draw best in few steps: the same conditions and seeds for each.

    PYTHONPATH=src python benchmarks/samplers.py --variant experiment --n 200

Needs a trained variant (dvc repro). A call is one pass of the guided network over the pictures; Heun makes two in each
step but the last.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from condmix.data.captions import read_captions
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.diffusion.model import ConditionalModel, load_model
from condmix.diffusion.schedule import Schedule
from condmix.evaluation.observers import Seen
from condmix.evaluation.reference import Reference
from condmix.evaluation.samples import picture_seed
from condmix.metrics import Pictures, computed
from condmix.metrics.grain import grain
from condmix.sampling.sample import Sampling, sample_batches
from condmix.settings.load import Params, load
from condmix.stages.evaluate import conditions

FEW = (5, 10, 20)  # steps
CONTENDERS = [  # sampler, spacing, last time, steps
    *(("dpmpp_2m", "uniform", last, steps) for steps in FEW for last in (None, 0.05, 0.1, 0.15) if last != 1 / steps),
    *(("dpmpp_2m", "karras", 0.1, steps) for steps in FEW),
    *(("ddim", "uniform", 0.1, steps) for steps in FEW),
    *(("dpmpp_2m_sde", spacing, 0.1, steps) for steps in FEW for spacing in ("uniform", "karras")),
    *(("heun", "karras", 0.1, steps) for steps in (3, 5, 10)),  # 5, 9 and 19 calls
    ("ddpm", "uniform", None, 100),
]
MEASURES = ("scene_accuracy", "residual", "grain", "fd_clip", "fd_judge")


@dataclass(frozen=True)
class Trial:
    """A trained variant, n held-out conditions of it, and what judges the pictures drawn for them."""

    params: Params
    variant: str
    n: int

    @cached_property
    def sampling(self) -> Sampling:
        """As evaluation draws."""
        settings, card = self.params.evaluate, self._loaded[1]
        return Sampling(
            Schedule(card["diffusion.schedule"], card["diffusion.steps"]),
            card["diffusion.prediction"],
            settings.sampler,
            settings.steps,
            self.params.guidance,
            composed=settings.composed,
            interval=settings.interval,
            threshold=settings.threshold,
            spacing=settings.spacing,
            last_time=settings.last_time,
        )

    def drawn(self, sampling: Sampling) -> tuple[Tensor, float]:
        """Pictures (n, S, S, 3) uint8, drawn like this, and the processor's seconds for it."""
        condition, seeds = (
            self._packed.batch(torch.arange(self.n)),
            [picture_seed(self.params.seed, i) for i in range(self.n)],
        )
        started = time.process_time()
        pictures = list(sample_batches(self._loaded[0], sampling, condition, seeds, self.params.evaluate.batch_size))
        return torch.cat(pictures), time.process_time() - started

    def measured(self, pictures: Tensor) -> dict[str, float]:
        """What the judges say of pictures (n, S, S, 3) uint8."""
        seen = Seen.join([self._reference.observer(batch) for batch in pictures.split(self.params.evaluate.batch_size)])
        found = computed(self._reference.observations(seen, self._named), Pictures.EVERY)
        return found | {"grain": grain(pictures.numpy())}

    def heading(self) -> str:
        """What all rows have in common."""
        return (
            f"{self.variant} of profile {self.params.profile}, n = {self.n}, seed {self.params.seed}; "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, load before {os.getloadavg()[0]:.2f}\n"
        )

    @cached_property
    def split(self) -> Split:
        return Split.load(self.params.paths.dataset, "test")

    @cached_property
    def _packed(self) -> Packed:
        return Packed.load(self.params.paths.packed(self.variant), "test")

    @cached_property
    def _named(self) -> np.ndarray | None:
        return conditions(self._packed, self.split, read_captions(self.params.paths.captions, "test"))[0].named

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self.params, self.split)

    @cached_property
    def _loaded(self) -> tuple[ConditionalModel, dict[str, Any]]:
        model, card = load_model(self.params.paths.model(self.variant))
        return model.eval().to(memory_format=torch.channels_last), card


def row(cells: Iterable[object], found: dict[str, float], measures: Sequence[str]) -> str:
    """A row of a Markdown table."""
    shown = [f"{found[key]:.1%}" if "accuracy" in key else f"{found[key]:.2f}" for key in measures if key in found]
    return f"| {' | '.join([*map(str, cells), *shown])} |"


def head(headings: Sequence[str]) -> str:
    return f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|"


@click.command()
@click.option("--variant", default="experiment", show_default=True)
@click.option("--n", default=200, show_default=True, help="Held-out conditions, one picture each.")
@click.option("--only", help="Only this sampler.")
def main(variant: str, n: int, only: str | None) -> None:
    trial = Trial(load(), variant, n)
    print(f"guidance {trial.sampling.guidance} at {trial.sampling.interval}; {trial.heading()}")
    print(head(("sampler", "spacing", "last time", "steps", "calls", "seconds", *MEASURES)), flush=True)
    for sampler, spacing, last, steps in CONTENDERS:
        if only not in (None, sampler):
            continue
        sampling = replace(trial.sampling, sampler=sampler, steps=steps, spacing=spacing, last_time=last)
        pictures, seconds = trial.drawn(sampling)
        found = trial.measured(pictures)
        calls = 2 * steps - 1 if sampler == "heun" else steps
        print(row((sampler, spacing, last or "1 / steps", steps, calls, f"{seconds:.1f}"), found, MEASURES), flush=True)


if __name__ == "__main__":
    main()
