"""Pictures for the held-out conditions, drawn by any number of processes and looked at as they are drawn.

What one process draws of a job it leaves in a folder: the pictures, and what the judge and the feature networks see
in them. Neither while drawing nor afterwards are all pictures in memory.
Axes: n pictures of a job, S image size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from condmix.clip.shifted_diffusion import Trained, load_prior
from condmix.data.packed import Packed
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.evaluation.conditions import Change, Condition, Kind
from condmix.evaluation.observers import Observer, Seen
from condmix.files.artifacts import read_array
from condmix.files.npy import write_pixels
from condmix.runtime.processes import join_group
from condmix.runtime.seeds import derive
from condmix.sampling.sample import Sampling, sample_batches
from condmix.settings.load import Params
from condmix.settings.perspectives import another

REPEATS = 4  # pictures of one condition, for the diversity
ROWS = 1000  # pictures in memory when those of several processes become one file


@dataclass(frozen=True)
class PictureSet:
    """A set of pictures to draw and measure: for n test conditions, from number `first` on, at one guidance scale.

    Where pictures are repeated, it is REPEATS of each of n / REPEATS conditions; published ones take all in turn.
    """

    condition: Condition
    guidance: float
    n: int
    change: Change = Change()
    first: int = 0

    @property
    def file(self) -> str:
        """Name of the files that hold what was drawn, without the process's number."""
        return f"{self.condition}-{self.guidance}-{self.change}-{self.first}"

    def rows(self, count: int) -> np.ndarray:
        """Which of `count` test pictures each of the n pictures is conditioned on (n,)."""
        if self.change.kind is Kind.REPEATED:
            return np.arange(self.n) // REPEATS
        if self.change.kind is Kind.PUBLISHED:
            return np.arange(self.n) % count
        rows = np.arange(self.first, self.first + self.n)
        return another(count)[rows] if self.change.kind is Kind.SHUFFLED else rows

    def seeds(self, seed: int) -> list[int]:
        """One seed per picture; those of `picture_seed` where a condition has one picture."""
        if self.change.kind in (Kind.REPEATED, Kind.PUBLISHED):
            return [derive(seed, self.change.kind.value, i) for i in range(self.n)]
        return [picture_seed(seed, row) for row in range(self.first, self.first + self.n)]


def draw(params: Params, variant: str, jobs: list[PictureSet], folder: Path) -> None:
    """In each process: draw every job's share of pictures, look at them, and leave both in `folder`."""
    state = join_group()
    rank, world, device = state.process_index, state.num_processes, state.device
    model, card = load_model(params.paths.model(variant))
    model.to(device)
    with state.local_main_process_first():  # it may have to download weights; all have met when this ends
        observer = Observer(params, device)
    packed = Packed.load(params.paths.packed(variant), "test")
    through_prior = any(job.condition is Condition.PRIOR for job in jobs)
    prior = load_prior(params.paths.prior, packed.variant["encoder"]) if through_prior else None
    settings = params.evaluate
    sampling = Sampling(
        Schedule(card["diffusion.schedule"], card["diffusion.steps"]),
        card["diffusion.prediction"],
        settings.sampler,
        settings.steps,
        params.guidance,
        composed=settings.composed,
        interval=settings.interval,
        threshold=settings.threshold,
        spacing=settings.spacing,
        last_time=settings.last_time,
    )
    size = model.architecture.image_size
    bar = tqdm(total=sum(job.n for job in jobs), desc=f"draw {variant}", unit="img", disable=rank > 0)
    for job in jobs:
        views = placed(packed, prior, job, params.seed)
        rows = torch.from_numpy(job.rows(len(views))[rank::world])
        if not len(rows):
            continue
        at = replace(sampling, guidance=job.guidance)
        seeds = job.seeds(params.seed)[rank::world]
        seen: list[Seen] = []

        def looked_at(batches: Iterator[Tensor], seen: list[Seen] = seen) -> Iterator[np.ndarray]:
            for batch in batches:
                seen.append(observer(batch))
                bar.update(len(batch) * world)
                yield batch.cpu().numpy()

        batches = sample_batches(model, at, changed(views, rows, job.change), seeds, settings.batch_size)
        write_pixels(folder / f"{job.file}.{rank}.npy", (len(rows), size, size, 3), looked_at(batches))
        Seen.join(seen).save(folder / f"{job.file}.{rank}.safetensors")
    bar.close()


def changed(views: Packed, rows: Tensor, change: Change) -> tuple[dict[str, Tensor], Tensor]:
    """Vectors and mask of these rows, with one perspective left out or another picture's."""
    vectors, mask = views.batch(rows)
    name = change.perspective
    if change.kind is Kind.WITHOUT:
        mask[:, list(views.vectors).index(name)] = False
    elif change.kind is Kind.WRONG:
        slot = list(views.vectors).index(name)
        others, present = views.batch(torch.from_numpy(another(len(views)))[rows])
        vectors[name], mask[:, slot] = others[name], present[:, slot]
    return vectors, mask


class Drawn:
    """What `world` processes left in a folder. A job finds what was drawn for one of the same name and a larger n."""

    def __init__(self, folder: Path, world: int):
        self._folder, self._world = folder, world

    def pictures(self, job: PictureSet) -> np.ndarray:
        """(n, S, S, 3) uint8, a read-only mapping of a file in the folder."""
        parts = [_read(path) for path in self._parts(job, "npy")]
        if len(parts) == 1:
            return parts[0][: job.n]
        path = self._folder / f"{job.file}.npy"
        if not path.exists():
            count = sum(map(len, parts))
            blocks = (_interleaved(parts, first, min(first + ROWS, count)) for first in range(0, count, ROWS))
            write_pixels(path, (count, *parts[0].shape[1:]), blocks)
        return _read(path)[: job.n]

    def seen(self, job: PictureSet) -> Seen:
        """What was seen in them."""
        return Seen.interleave([Seen.load(path) for path in self._parts(job, "safetensors")]).first(job.n)

    def _parts(self, job: PictureSet, kind: str) -> list[Path]:
        """The files of the processes that had anything to draw."""
        paths = (self._folder / f"{job.file}.{rank}.{kind}" for rank in range(self._world))
        return [path for path in paths if path.exists()]


def _read(path: Path) -> np.ndarray:
    return read_array(path, np.uint8, (None, None, None, 3), "the evaluation again")


def _interleaved(parts: list[np.ndarray], first: int, end: int) -> np.ndarray:
    """Pictures first to end - 1, where picture i is the next of parts[i % len(parts)]."""
    return np.stack([parts[i % len(parts)][i // len(parts)] for i in range(first, end)])


def placed(packed: Packed, prior: Trained | None, job: PictureSet, seed: int) -> Packed:
    """The split with what stands in the image's place; of the prior's vectors each of the n pictures has its own."""
    if job.condition is not Condition.PRIOR:
        return packed.prompted() if job.condition is Condition.PROMPT else packed
    if prior is None or packed.prompt is None:
        raise ValueError("a prior and text vectors are needed to condition on the prior")
    words = packed.prompt[0].float().clone()
    words[: job.n] = prior.sample(words[: job.n], [derive(seed, "prior", i) for i in range(job.n)])
    return packed.prompted(words)


def picture_seed(seed: int, row: int) -> int:
    """Seed of test picture number `row`: the same for every variant, so that they can be compared in pairs."""
    return derive(seed, "picture", row)
