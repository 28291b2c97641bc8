"""A variant's packed perspectives (what the pack stage wrote) -> batches of vectors and presence masks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from condmix import CondmixError


@dataclass
class Packed:
    """One split: `vectors` {perspective: (N, d_p) float16} and `present` (N, P) bool, P in the variant's order.

    A perspective whose vectors are (N, K, d_p) has K to choose from, those that `choices` (N, K) says,
    each as likely as the others or with the probability that `odds` (N, K) says.
    """

    variant: dict
    vectors: dict[str, Tensor]
    present: Tensor
    sha256: str  # of the file
    prompt: tuple[Tensor, Tensor] | None = None  # text vectors (N, D) for the image's place, present (N,)
    choices: dict[str, Tensor] = field(default_factory=dict)
    odds: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, split: str) -> Packed:
        """Read data/<profile>/packed/<variant>/<split>.safetensors."""
        path = folder / f"{split}.safetensors"
        try:
            variant = json.loads((folder / "variant.json").read_text())
            tensors = load_file(path)
        except FileNotFoundError as error:
            raise CondmixError(f"no {error.filename or path}: run dvc repro pack@{folder.name}") from None
        except (SafetensorError, json.JSONDecodeError) as error:
            raise CondmixError(f"{path} is damaged ({error}); run dvc repro -f pack@{folder.name}") from None
        names = [perspective["name"] for perspective in variant["perspectives"]]
        vectors = {name: tensors[name] for name in names}
        choices = {name: tensors[f"{name}.present"] for name in names if vectors[name].dim() == 3}
        odds = {name: tensors[f"{name}.odds"] for name in choices if f"{name}.odds" in tensors}
        having = [choices[name].any(1) if name in choices else tensors[f"{name}.present"] for name in names]
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        prompt = (tensors["prompt"], tensors["prompt.present"]) if "prompt" in tensors else None
        return cls(variant, vectors, torch.stack(having, dim=1), sha256, prompt, choices, odds)

    def __len__(self) -> int:
        return len(self.present)

    def batch(
        self, index: Tensor, device: torch.device | str = "cpu", draws: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Rows `index` as ({perspective: (B, d_p) float32}, mask (B, P)) on `device`.

        Where there is a choice, `draws` (B,) in [0, 1) makes it among the captions that a row has.
        """
        vectors = {
            name: (self._chosen(name, index, draws) if name in self.choices else rows[index]).to(device).float()
            for name, rows in self.vectors.items()
        }
        return vectors, self.present[index].to(device)

    def _chosen(self, name: str, index: Tensor, draws: Tensor) -> Tensor:
        having = self.choices[name][index]
        if name in self.odds:
            column = _inverse(self.odds[name][index].double(), draws.to(having.device))
            return self.vectors[name][index, column]
        nth = (draws.to(having.device) * having.sum(1)).long()  # of those that the row has
        column = having.int().argsort(dim=1, descending=True, stable=True)[torch.arange(len(index)), nth]
        return self.vectors[name][index, column]

    def prompted(self) -> Packed:
        """The same split with the text vectors in the image's place."""
        words, present = self.prompt
        mask = self.present.clone()
        mask[:, list(self.vectors).index("image")] = present
        return replace(self, vectors={**self.vectors, "image": words}, present=mask)


def _inverse(odds: Tensor, draws: Tensor) -> Tensor:
    """Columns (B,) of odds (B, K) drawn by inverting their cumulative sums at draws (B,) in [0, 1)."""
    reached = odds.cumsum(dim=1)
    reached = reached / reached[:, -1:]  # exactly 1 in the end, or a draw could lie beyond it; nan in an empty row
    return (draws[:, None] >= reached).sum(dim=1)
