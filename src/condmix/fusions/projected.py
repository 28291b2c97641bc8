"""Projected fusion: c = t + sum_p (v_p + R_p v_p), where the R_p are zero at first: `additive` until it learns better.

`additive` has no weight by which to turn a source down, so one that misleads stands in the same sum as one that is
right. Here each source has a dense layer of its own, as in `concat`, that begins as the identity (the residual form of
He et al. 2016, arXiv:1512.03385, section 3.1), so weight decay draws it to `additive` and not to silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from condmix.fusions import Fusion


class Projected(Fusion):
    """The time embedding takes the encoder's width. Each slot has weights of its own, so the order matters."""

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.residual = nn.Parameter(torch.zeros(len(kinds), time_width, dim))  # R_p

    @classmethod
    def time_width_for(cls, dim: int, default: int) -> int:
        return dim

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        return time + views.sum(dim=1) + torch.einsum("bpd,ptd->bt", views, self.residual.to(views.dtype))
