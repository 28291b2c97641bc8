"""A variant's packed perspectives (what the pack stage wrote) -> batches of vectors and presence masks."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from condmix import CondmixError


@dataclass
class Packed:
    """One split: `vectors` {perspective: (N, d_p) float16} and `present` (N, P) bool, P in the variant's order."""

    variant: dict
    vectors: dict[str, Tensor]
    present: Tensor
    sha256: str  # of the file
    prompt: tuple[Tensor, Tensor] | None = None  # text vectors (N, D) for the image's place, present (N,)

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
        present = torch.stack([tensors[f"{name}.present"] for name in names], dim=1)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        prompt = (tensors["prompt"], tensors["prompt.present"]) if "prompt" in tensors else None
        return cls(variant, {name: tensors[name] for name in names}, present, sha256, prompt)

    def __len__(self) -> int:
        return len(self.present)

    def batch(self, index: Tensor, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], Tensor]:
        """Rows `index` as ({perspective: (B, d_p) float32}, mask (B, P)) on `device`."""
        vectors = {name: rows[index].to(device).float() for name, rows in self.vectors.items()}
        return vectors, self.present[index].to(device)

    def prompted(self) -> Packed:
        """The same split with the text vectors in the image's place."""
        words, present = self.prompt
        mask = self.present.clone()
        mask[:, list(self.vectors).index("image")] = present
        return replace(self, vectors={**self.vectors, "image": words}, present=mask)
