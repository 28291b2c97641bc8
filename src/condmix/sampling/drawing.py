"""A request that was checked, ready to be drawn, with previews on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from condmix.clip.shifted_diffusion import Trained
from condmix.diffusion.model import ConditionalModel
from condmix.sampling.request import Request
from condmix.sampling.sample import Sampling, ViewsAndMask, rows_of, sample

Watch = Callable[[float, np.ndarray], None]  # share of the steps that are done, pictures (B, S, S, 3) as they look now


@dataclass(frozen=True)
class Drawing:
    """Calling it draws; before, nothing is drawn. `request` has every value that the model's defaults gave it."""

    model: ConditionalModel
    sampling: Sampling
    condition: ViewsAndMask
    seeds: Sequence[int]
    batch_size: int
    request: Request
    negative: ViewsAndMask | None = None
    prior: Trained | None = None  # gives each picture a vector of its own in the image's place

    def __call__(self, watch: Watch | None = None) -> np.ndarray:
        """Pictures (n, S, S, 3) uint8, one per seed. `watch` is called after each step; what it raises ends drawing."""
        vectors, mask = self.condition
        if self.prior is not None:
            vectors = {**vectors, "image": self.prior.sample(vectors["image"], self.seeds)}
        shown = None if watch is None else lambda share, pictures: watch(share, pictures.cpu().numpy())
        drawn = []
        for first in range(0, len(self.seeds), self.batch_size):
            rows = slice(first, first + self.batch_size)
            negative = None if self.negative is None else rows_of(self.negative, rows)
            condition, seeds = rows_of((vectors, mask), rows), self.seeds[rows]
            drawn.append(sample(self.model, self.sampling, condition, seeds, negative, shown).cpu().numpy())
        return np.concatenate(drawn)
