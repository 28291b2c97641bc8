"""A label -> its one-hot vector; the model that is conditioned on it learns what each class means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from condmix.encoders import Encoder


class ClassLabel(Encoder):
    """One-hot over the data set's classes: times a linear map without bias, it is a learned class table."""

    perspective = "class"
    reads = "labels"
    id = "one-hot"

    def __init__(self, class_names: Sequence[str]):
        self.preprocessing = json.dumps(list(class_names))
        self.dim = len(class_names)

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> ClassLabel:
        return cls(class_names)

    def features(self, batch: Sequence[int]) -> Tensor:
        return F.one_hot(torch.as_tensor(batch), self.dim).float()
