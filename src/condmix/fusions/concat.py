"""Concat fusion (class_v1): c = t + W [v_1; ...; v_P] + b, one dense layer over the concatenated views."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from condmix.fusions import Fusion


class Concat(Fusion):
    """Each slot has weights of its own, so the order of the perspectives matters."""

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.dense = nn.Linear(len(kinds) * dim, time_width)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        return time + self.dense(views.flatten(1))
