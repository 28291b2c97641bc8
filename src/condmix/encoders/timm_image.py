"""A picture -> its features from an image network of timm: a ViT, DINO, EfficientNet, ..., whose weights are a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condmix.clip.backbone import open_backbone
from condmix.clip.huggingface import explained
from condmix.encoders import Encoder


class TimmImage(Encoder):
    """What the network hands to its classifier; pictures of any size are resized and cropped as for CLIP.

    The profile's embed.timm may name several networks; each is an encoder of its own, with its own perspective.
    """

    perspective = "image_{name}"  # of each encoder with its network's name
    reads = "images"
    section = "timm"  # of the profile's `embed`

    def __init__(self, name: str, settings: Any, device: str):
        from open_clip.transform import PreprocessCfg, image_transform_v2

        weights = settings.weights.verified(f"embed.timm.{name}.weights")
        self.perspective = f"image_{name}"
        self.id = f"timm {settings.model} sha256:{settings.weights.sha256}"
        shown = {"size": settings.image_size, "mean": settings.mean, "std": settings.std}
        self.preprocessing = json.dumps(shown)
        self.device, self.dtype = device, torch.float32
        self._model = open_backbone(settings.model, weights, device)
        self._preprocess = image_transform_v2(PreprocessCfg(**shown), is_train=False)
        size = settings.image_size
        with explained(weights, f"holds {settings.model}, which does not run on pictures of {size}x{size} pixels"):
            self.dim = self.features([np.zeros((1, 1, 3), np.uint8)]).shape[1]

    @classmethod
    def open(  # type: ignore[override]  # one for each entry of its section
        cls, clip: Path, class_names: Sequence[str], device: str = "cpu", *, name: str, settings: Any
    ) -> TimmImage:
        """`settings` are one of the profile's embed.timm: model, weights, image_size, mean, std."""
        return cls(name, settings, device)

    def use_bf16(self) -> None:
        self._model.bfloat16()
        self.dtype = torch.bfloat16
        self.preprocessing += ", bf16"

    def features(self, batch: Iterable[np.ndarray]) -> Tensor:
        return self.network([self.prepare(image) for image in batch])

    def prepare(self, item: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, S, S) float32."""
        return self._preprocess(Image.fromarray(item))

    @torch.no_grad()
    def network(self, batch: Sequence[Tensor]) -> Tensor:
        pixels = torch.stack(list(batch)).to(self.device, self.dtype, memory_format=torch.channels_last)
        return self._model(pixels).float()
