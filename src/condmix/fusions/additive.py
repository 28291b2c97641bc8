"""Additive fusion (class_v2): c = t + sum_p v_p, with no dense layer that could lose information."""

from __future__ import annotations

from torch import Tensor

from condmix.fusions import Fusion


class Additive(Fusion):
    """The time embedding takes the encoder's width, so that views are added to it as they are."""

    @classmethod
    def time_width_for(cls, dim: int, default: int) -> int:
        return dim

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        return time + views.sum(dim=1)
