"""A caption -> its vector from CLIP's text tower (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from condmix.encoders import Clip, Encoder, load_clip


class ClipText(Encoder):
    """Captions longer than the tower's context are cut, as open_clip's tokenizer does."""

    perspective = "caption_{k}"
    reads = "captions"

    def __init__(self, clip: Clip):
        self.clip = clip
        self.id = clip.id
        self.preprocessing = f"{type(clip.tokenizer).__name__}, {clip.tokenizer.context_length} tokens"
        self.dim = clip.model.visual.output_dim  # both towers end in one space

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> ClipText:
        return cls(load_clip(clip, device))

    @torch.no_grad()
    def features(self, batch: Sequence[str]) -> Tensor:
        tokens = self.clip.tokenizer(list(batch))
        return self.clip.model.encode_text(tokens.to(self.clip.device)).float()
