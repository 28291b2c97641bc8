"""Mean fusion: c = t + W mean_p(v_p) + b over the views that are present.

The control for "several captions": it sees all of them, but only their average. Views that are absent do
not dilute it; when all are, their nulls are averaged instead, which makes the unconditional model.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from condmix.fusions import Fusion


class Mean(Fusion):
    """One dense layer is shared by all sources: the result does not depend on their order."""

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.dense = nn.Linear(dim, time_width)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        nothing = ~mask.any(dim=1, keepdim=True)
        weight = (mask | nothing).to(views.dtype)[..., None]
        return time + self.dense((views * weight).sum(dim=1) / weight.sum(dim=1))
