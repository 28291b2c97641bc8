"""A variant's packed perspectives (what the pack stage wrote) -> batches of vectors and presence masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, NotRequired

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from condmix.files.artifacts import damaged, read_checked_json, read_tensors, require
from condmix.settings.perspectives import is_perspective, parse

Width = Annotated[int, Field(ge=1)]


class PerspectiveCard(TypedDict):
    """A perspective in variant.json: the width of its vectors and, where its name does not say it, their origin."""

    name: str
    dim: Width
    of: NotRequired[Literal["image", "caption", "class"]]


class FileSums(TypedDict):
    """The sha256 of each split's file."""

    train: str
    test: str


class VariantCard(TypedDict):
    """What is read of variant.json."""

    variant: str
    fusion: str
    perspectives: Annotated[list[PerspectiveCard], Field(min_length=1)]
    centres: NotRequired[dict[str, Width]]
    dim: Width
    encoder: str
    sha256: FileSums


@dataclass
class Packed:
    """One split: `vectors` {perspective: (N, d_p) float16} and `present` (N, P) bool, P in the variant's order.

    A perspective that is drawn has the vectors (N, K, d_p) of all K captions; `choices` (N, K) says which a row has,
    as 1, or how likely each is.
    """

    variant: dict  # variant.json without its checksums
    vectors: dict[str, Tensor]
    present: Tensor
    sha256: str  # of the file
    prompt: tuple[Tensor, Tensor] | None = None  # text vectors (N, D) for the image's place, present (N,)
    choices: dict[str, Tensor] = field(default_factory=dict)
    centres: dict[str, Tensor] = field(default_factory=dict)  # {cache: what was subtracted there (d,) float32}

    @classmethod
    def load(cls, folder: Path, split: str) -> Packed:
        """Read data/<profile>/packed/<variant>/<split>.safetensors; CondmixError where it is damaged."""
        path, remedy = folder / f"{split}.safetensors", f"dvc repro pack@{folder.name}"
        variant = read_checked_json(folder / "variant.json", VariantCard, remedy)
        sha256 = variant.pop("sha256")[split]
        tensors, _ = read_tensors(path, remedy, sha256)
        names = [perspective["name"] for perspective in variant["perspectives"]]
        for name in names:
            if not is_perspective(name):
                raise damaged(folder / "variant.json", f'"{name}" is no perspective', remedy)
        dims = {perspective["name"]: perspective["dim"] for perspective in variant["perspectives"]}
        vectors, choices, having = {}, {}, []
        for perspective in map(parse, names):
            # a random set is stored once
            once = perspective.drawn_before if perspective.name not in tensors else []
            stored = once[0] if once else perspective.name
            vectors[perspective.name], present = _rows(tensors, stored, dims[perspective.name], path, remedy)
            if present.dim() == 2:
                odds = present.float()
                if f"{stored}.odds" in tensors:
                    odds = require(tensors, f"{stored}.odds", torch.float32, present.shape, path, remedy)
                choices[perspective.name] = odds
                present = present.sum(1) >= (perspective.place or 1)
            having.append(present)
        prompt = _rows(tensors, "prompt", variant["dim"], path, remedy) if "prompt" in tensors else None
        counts = {len(present) for present in having} | ({len(prompt[1])} if prompt else set())
        if len(counts) > 1:
            raise damaged(path, f"its perspectives have {' and '.join(map(str, sorted(counts)))} rows", remedy)
        centres = {
            source: require(tensors, f"{source}.centre", torch.float32, (dim,), path, remedy)
            for source, dim in variant.get("centres", {}).items()
        }
        return cls(variant, vectors, torch.stack(having, dim=1), sha256, prompt, choices, centres)

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

    def _drawn(self, index: Tensor, draws: Tensor | None) -> dict[str, Tensor]:
        """Which caption (B,) each drawn perspective has; 0 where a row has none left, which `present` tells."""
        if draws is None:
            raise ValueError(f"{', '.join(self.choices)}: a batch of what is drawn at random needs `draws`")
        left: dict[bool, Tensor] = {}
        columns, rows = {}, torch.arange(len(index))
        order = sorted(map(parse, self.choices), key=lambda perspective: (perspective.mixed, perspective.place))
        for perspective, draw in zip(order, draws.T, strict=True):
            weights = left.setdefault(perspective.mixed, self.choices[perspective.name][index].clone())
            reached = weights.cumsum(1)
            columns[perspective.name] = (reached > (draw * reached[:, -1])[:, None]).int().argmax(1)
            weights[rows, columns[perspective.name]] = 0
        return columns

    def prompted(self, words: Tensor | None = None) -> Packed:
        """The same split with text vectors in the image's place, or with `words` (N, D) that were made of them."""
        if self.prompt is None:
            raise ValueError("no text vectors were packed for the image's place")
        texts, present = self.prompt
        words = texts if words is None else words
        mask = self.present.clone()
        mask[:, list(self.vectors).index("image")] = present
        return replace(self, vectors={**self.vectors, "image": words}, present=mask)


def _rows(tensors: Mapping[str, Tensor], name: str, dim: int, path: Path, remedy: str) -> tuple[Tensor, Tensor]:
    """Vectors (N, dim) and present (N,), or (N, K, dim) and (N, K) of a perspective that is drawn from K captions."""
    drawn = name in tensors and tensors[name].dim() == 3 and parse(name).place is not None
    shape = (None, None, dim) if drawn else (None, dim)
    vectors = require(tensors, name, torch.float16, shape, path, remedy)
    return vectors, require(tensors, f"{name}.present", torch.bool, vectors.shape[:-1], path, remedy)
