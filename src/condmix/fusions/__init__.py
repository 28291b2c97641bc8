"""Fusions turn an image's views and the time embedding into what conditions the U-Net.

Axes: B batch, P perspectives, D embedding width, T width of the time embedding.
One strategy is one file; its class is named like the file and implements `fuse`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """time (B, T) + views (B, P, D) + mask (B, P) -> conditioning (B, T).

    What every strategy shares stands here, so that strategies differ in `fuse` alone: views get unit norm
    times sqrt(D), or the source with the larger norm would drown the others; an absent view (mask False)
    becomes the source's learned null, since zeros would look like a real embedding. With no view present
    the result is the unconditional model's conditioning.
    """

    def __init__(self, perspectives: int, dim: int, time_width: int):
        super().__init__()
        self.perspectives, self.dim, self.time_width = perspectives, dim, time_width
        self.null = nn.Parameter(torch.randn(perspectives, dim))

    @classmethod
    def time_width_for(cls, dim: int, default: int) -> int:
        """Width of the time embedding that this strategy needs; `default` is the U-Net's own choice."""
        return default

    def forward(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        if views.shape[1:] != (self.perspectives, self.dim):
            expected = f"(B, {self.perspectives}, {self.dim})"
            raise ValueError(f"views have shape {tuple(views.shape)}, the model was built for {expected}")
        views = F.normalize(views, dim=-1) * self.dim**0.5
        views = torch.where(mask[..., None], views, self.null.to(views.dtype))
        return self.fuse(time, views, mask)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        """Merge normalised views (nulls filled in) into the time embedding."""
        raise NotImplementedError
