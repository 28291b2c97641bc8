"""FiLM fusion: c = t + s(v) * LayerNorm(t) + b(v), where [s; b] = W [v_1; ...; v_P] + w.

Feature-wise linear modulation of the time embedding by the views (Perez et al. 2018, arXiv:1709.07871, equation 2), as
a residual: where `concat` says the same at every time, here the views also decide how much the time matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from condmix.fusions import Fusion


class Film(Fusion):
    """Each slot has weights of its own, so the order of the perspectives matters."""

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.dense = nn.Linear(len(kinds) * dim, 2 * time_width)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        scale, shift = self.dense(views.flatten(1)).chunk(2, dim=1)
        return time + scale * F.layer_norm(time, time.shape[1:]) + shift
