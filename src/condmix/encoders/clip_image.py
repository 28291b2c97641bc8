"""A picture -> its vector from CLIP's image tower (Radford et al. 2021)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condmix.encoders import Clip, Encoder, load_clip


class ClipImage(Encoder):
    """Pictures go through the model's own preprocessing (resize, crop, normalise), whatever their size."""

    perspective = "image"
    reads = "images"

    def __init__(self, clip: Clip):
        self.clip = clip
        self.id = clip.id
        self.preprocessing = json.dumps(clip.model.visual.preprocess_cfg, sort_keys=True)
        self.dim = clip.model.visual.output_dim

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> ClipImage:
        return cls(load_clip(clip, device))

    @torch.no_grad()
    def features(self, batch: Iterable[np.ndarray]) -> Tensor:
        pixels = torch.stack([self.clip.preprocess(Image.fromarray(image)) for image in batch])
        return self.clip.model.encode_image(pixels.to(self.clip.device)).float()
