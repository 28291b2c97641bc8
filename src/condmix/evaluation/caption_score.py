"""Pictures and captions that did not condition them -> how well the two agree, by a CLIP that conditioned nothing.

A model that is conditioned on more captions fits those captions better, which proves little. So a picture is scored
against the held-out picture's other captions: did it gain what did not condition it? And by another CLIP than the one
whose vectors it was drawn from, which knows its own weaknesses too well. n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.encoders.clip_text import ClipText
from condmix.evaluation.features import ClipFeatures
from condmix.settings.perspectives import another


@dataclass(frozen=True)
class CaptionFit:
    """How well n drawn pictures fit captions; cosines (m,) are means over a picture's held-out captions, if any."""

    scorer: str  # id of the CLIP
    ranks: np.ndarray  # (n, K) of `CaptionScore.ranks`, of all captions
    conditioned: np.ndarray  # (n, K) bool: which captions conditioned the picture
    held_out: int = 0  # captions that did not; without any there are no cosines
    drawn: Tensor | None = None
    real: Tensor | None = None  # of the real pictures to their own held-out captions
    others: Tensor | None = None  # of the drawn pictures to other pictures' held-out captions


class CaptionScore:
    """How well captions fit pictures under the CLIP in a folder (open_clip's format)."""

    def __init__(self, folder: Path, conditioned_by: str, batch_size: int, device: str = "cpu"):
        """CondmixError if the CLIP is `conditioned_by`, the id of the encoder that made the conditions."""
        self.images = ClipFeatures(folder, device)
        self.texts = ClipText.open(folder, (), device)
        self.id, self.batch_size = self.texts.id, batch_size
        if self.id == conditioned_by:
            raise CondmixError(
                f"evaluate.scorer {folder} is the CLIP that conditioned the pictures, so it can't judge them; "
                "name another one, or write `scorer: null`"
            )

    def see(self, pictures: np.ndarray) -> Tensor:
        """Unit vectors (n, D) of pictures (n, S, S, 3) uint8, which the scores are taken of."""
        parts = [self.images(torch.from_numpy(np.array(part))).cpu() for part in self._parts(pictures)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def read(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (N, D) of captions."""
        return torch.cat([self.texts.encode(part).cpu() for part in self._parts(captions)])

    def fit(
        self, pictures: np.ndarray, real: np.ndarray, captions: Sequence[Sequence[str]], used: Sequence[Sequence[str]]
    ) -> CaptionFit:
        """Of drawn and real pictures (n, S, S, 3) uint8; `used` are the texts that conditioned each of them."""
        seen = self.see(pictures)
        ranks = self.ranks(seen, captions)
        conditioned = np.zeros(ranks.shape, bool)
        for row, (texts, chosen) in enumerate(zip(captions, used, strict=True)):
            conditioned[row, : len(texts)] = [text in chosen for text in texts]
        held_out = [[text for text in texts if text not in own] for texts, own in zip(captions, used, strict=True)]
        if not any(held_out):
            return CaptionFit(self.id, ranks, conditioned)
        others = [held_out[i] for i in another(len(held_out))]
        cosines = [self.cosines(*pair) for pair in ((seen, held_out), (self.see(real), held_out), (seen, others))]
        return CaptionFit(self.id, ranks, conditioned, sum(map(len, held_out)), *cosines)

    def cosines(self, seen: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
        """For each picture (n, D) that has captions, the mean cosine to them, in -1..1."""
        read = self.read([text for texts in captions for text in texts]).split([len(texts) for texts in captions])
        return torch.stack([(vectors @ x).mean() for vectors, x in zip(read, seen, strict=True) if len(vectors)])

    def ranks(self, seen: Tensor, captions: Sequence[Sequence[str]]) -> np.ndarray:
        """(n, K): of all other pictures' k-th captions, the share that fits the picture less well than its own k-th.

        1 is the best and 1/2 is chance; NaN where there is no such caption. It is the retrieval behind R-precision
        (Xu et al. 2018, arXiv:1711.10485), with the whole rank in place of "first of 100 or not". n >= 2.
        """
        ranks = np.full((len(captions), max(map(len, captions))), np.nan, np.float32)
        for k in range(ranks.shape[1]):
            having = [i for i, texts in enumerate(captions) if len(texts) > k]
            if len(having) > 1:
                texts = self.read([captions[i][k] for i in having])
                for row, i in enumerate(having):
                    fits = texts @ seen[i]
                    ranks[i, k] = (fits < fits[row]).sum().item() / (len(having) - 1)
        return ranks

    def _parts(self, items: Any) -> list[Any]:
        return [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]
