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
from condmix.perspectives import parse


@dataclass
class Packed:
    """One split: `vectors` {perspective: (N, d_p) float16} and `present` (N, P) bool, P in the variant's order.

    A perspective that is drawn has the vectors (N, K, d_p) of all K captions; `choices` (N, K) says which a row has,
    as 1, or how likely each is.
    """

    variant: dict
    vectors: dict[str, Tensor]
    present: Tensor
    sha256: str  # of the file
    prompt: tuple[Tensor, Tensor] | None = None  # text vectors (N, D) for the image's place, present (N,)
    choices: dict[str, Tensor] = field(default_factory=dict)

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
        vectors, choices, having = {}, {}, []
        for one in map(parse, names):
            stored = one.name if one.name in tensors else one.drawn_before[0]  # a random set is stored once
            vectors[one.name], present = tensors[stored], tensors[f"{stored}.present"]
            if present.dim() == 2:
                choices[one.name] = tensors.get(f"{stored}.odds", present.float())
                present = present.sum(1) >= one.place
            having.append(present)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        prompt = (tensors["prompt"], tensors["prompt.present"]) if "prompt" in tensors else None
        return cls(variant, vectors, torch.stack(having, dim=1), sha256, prompt, choices)

    def __len__(self) -> int:
        return len(self.present)

    def batch(
        self, index: Tensor, device: torch.device | str = "cpu", draws: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Rows `index` as ({perspective: (B, d_p) float32}, mask (B, P)) on `device`.

        Where there is a choice, `draws` (B, J) in [0, 1), on the CPU, makes it, one column for each of the J
        perspectives that are drawn, in the order of their names. None of a random set is drawn twice.
        """
        drawn = self._drawn(index, draws) if self.choices else {}
        vectors = {
            name: (rows[index, drawn[name]] if name in drawn else rows[index]).to(device, non_blocking=True).float()
            for name, rows in self.vectors.items()
        }
        return vectors, self.present[index].to(device, non_blocking=True)

    def _drawn(self, index: Tensor, draws: Tensor) -> dict[str, Tensor]:
        """Which caption (B,) each drawn perspective has; 0 where a row has none left, which `present` tells."""
        columns, left, rows = {}, {}, torch.arange(len(index))
        order = sorted(map(parse, self.choices), key=lambda one: (one.mixed, one.place))
        for one, draw in zip(order, draws.T, strict=True):
            weights = left.setdefault(one.mixed, self.choices[one.name][index].clone())
            reached = weights.cumsum(1)
            columns[one.name] = (reached > (draw * reached[:, -1])[:, None]).int().argmax(1)
            weights[rows, columns[one.name]] = 0
        return columns

    def prompted(self, words: Tensor | None = None) -> Packed:
        """The same split with text vectors in the image's place, or with `words` (N, D) that were made of them."""
        texts, present = self.prompt
        words = texts if words is None else words
        mask = self.present.clone()
        mask[:, list(self.vectors).index("image")] = present
        return replace(self, vectors={**self.vectors, "image": words}, present=mask)
