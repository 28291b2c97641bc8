"""Pictures and captions that did not condition them -> how well the two agree, by a CLIP that conditioned nothing.

A model that is told more captions fits those captions better, which proves little. So a picture is scored against
the held-out picture's other captions: did it gain what it was not told? And by another CLIP than the one whose
vectors it was drawn from, which knows its own weaknesses too well. n pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.encoders.clip_text import ClipText
from condmix.evaluation.features import ClipFeatures


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

    def score(self, seen: Tensor, captions: Sequence[Sequence[str]]) -> float:
        """Mean over the pictures (n, D) that have captions of the mean cosine to theirs, in -1..1."""
        read = self.read([text for texts in captions for text in texts]).split([len(texts) for texts in captions])
        cosines = [(vectors @ picture).mean() for vectors, picture in zip(read, seen, strict=True) if len(vectors)]
        return torch.stack(cosines).mean().item()

    def ranks(self, seen: Tensor, captions: Sequence[Sequence[str]]) -> np.ndarray:
        """(n, K): of all other pictures' k-th captions, the share that fits the picture less well than its own k-th.

        1 is the best and 1/2 is chance; NaN where there is no such caption. It is the retrieval behind R-precision
        (Xu et al. 2018, arXiv:1711.10485), with the whole rank in place of "first of 100 or not". n >= 2.
        """
        found = np.full((len(captions), max(map(len, captions))), np.nan, np.float32)
        for k in range(found.shape[1]):
            having = [i for i, texts in enumerate(captions) if len(texts) > k]
            if len(having) > 1:
                texts = self.read([captions[i][k] for i in having])
                for row, i in enumerate(having):
                    fits = texts @ seen[i]
                    found[i, k] = (fits < fits[row]).sum().item() / (len(having) - 1)
        return found

    def _parts(self, items: Sequence) -> list[Sequence]:
        return [items[i : i + self.batch_size] for i in range(0, len(items), self.batch_size)]


def not_told(captions: Sequence[Sequence[str]], told: Sequence[Sequence[str]]) -> list[list[str]]:
    """Each picture's captions but for those that it was drawn from."""
    return [[text for text in texts if text not in used] for texts, used in zip(captions, told, strict=True)]
