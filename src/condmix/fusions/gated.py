"""Gated fusion: c = t + sum_p z_p * tanh(W_p v_p + b_p), where gates z_p in (0, 1) see all views.

The gated multimodal unit of Arevalo et al. 2017 (arXiv:1702.01992, section 3.1) for any number of sources: for each
feature, the views together decide how much of which source passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from condmix.fusions import Fusion


class Gated(Fusion):
    """Sources have weights of their own, so the order of the perspectives matters."""

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.dense = nn.ModuleList(nn.Linear(dim, time_width) for _ in kinds)
        self.gate = nn.Linear(len(kinds) * dim, len(kinds) * time_width)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        features = torch.stack([layer(view) for layer, view in zip(self.dense, views.unbind(1), strict=True)], dim=1)
        gates = torch.sigmoid(self.gate(views.flatten(1))).unflatten(1, features.shape[1:])  # (B, P, T)
        return time + (gates * torch.tanh(features)).sum(dim=1)
