"""Encoders turn pictures, captions or labels into the vectors of a perspective.

Axes: B batch, D width of the vectors. One encoder is one file; its class is named like the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor


class Encoder:
    """What makes one perspective's vectors. A subclass sets the attributes and implements `open` and `features`."""

    perspective: str  # "image"; "caption_{k}" where an image has several
    reads: ClassVar[Literal["images", "captions", "labels"]]
    id: str  # names the weights by their sha256: equal ids and preprocessing mean equal vectors
    preprocessing: str
    dim: int
    limit: int  # tokens of a caption that it reads, with those that begin and end it; of encoders of captions alone

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> Encoder:
        """The encoder for a data set, from the CLIP folder and the data set's class names.

        One with a section of its own in the profile's `embed` also takes `name` and `settings` of an entry there.
        """
        raise NotImplementedError

    def features(self, batch: Any) -> Tensor:
        """Vectors (B, D) float32 as the network gives them, before normalisation.

        A batch is, by `reads`: images (B, H, W, 3) uint8 or a sequence of (H, W, 3), a sequence of captions,
        or labels (B,) in 0..classes-1.
        """
        raise NotImplementedError

    def prepare(self, item: Any) -> Any:
        """What `network` takes of one item, made in threads: such as a resized picture. By default the item itself."""
        return item

    def network(self, batch: Sequence[Any]) -> Tensor:
        """`features` of items that went through `prepare`."""
        return self.features(batch)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each caption has, with those that begin and end it; of encoders of captions alone."""
        raise NotImplementedError

    def use_bf16(self) -> None:
        """Compute in bf16 from now on, which `preprocessing` then says; nothing where that does not apply."""

    def encode(self, batch: Any) -> Tensor:
        """Vectors (B, D) float32 of unit norm."""
        return F.normalize(self.features(batch), dim=-1)
