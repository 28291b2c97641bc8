"""A picture -> its vector from CLIP's image tower (Radford et al. 2021)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condmix.clip.folder import Clip, load_clip
from condmix.encoders import Encoder


class ClipImage(Encoder):
    """Pictures go through the model's own preprocessing (resize, crop, normalise), whatever their size."""

    perspective = "image"
    reads = "images"

    def __init__(self, clip: Clip):
        self.clip = clip
        self.id = clip.id
        self.preprocessing = json.dumps(clip.model.visual.preprocess_cfg, sort_keys=True)
        self.dim = clip.dim

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> ClipImage:
        return cls(load_clip(clip, device))

    def use_bf16(self) -> None:
        self.clip.model.bfloat16()
        self.preprocessing += ", bf16"

    def features(self, batch: Iterable[np.ndarray]) -> Tensor:
        return self.network([self.prepare(image) for image in batch])

    def prepare(self, item: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, S, S) float32."""
        return self.clip.preprocess(Image.fromarray(item))

    @torch.no_grad()
    def network(self, batch: Sequence[Tensor]) -> Tensor:
        pixels = torch.stack(list(batch)).to(self.clip.device, self.clip.dtype)
        return self.clip.model.encode_image(pixels).float()
