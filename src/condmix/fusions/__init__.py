"""Fusions turn an image's views and the time embedding into what conditions the U-Net.

Axes: B batch, P perspectives, D embedding width, T width of the time embedding, N tokens.
One strategy is one file; its class is named like the file and implements `fuse`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Fusion(nn.Module):
    """time (B, T) + views (B, P, D) + mask (B, P) -> conditioning (B, T), and maybe tokens (B, N, D).

    A strategy implements `fuse`, or, if the U-Net shall look at the views itself wherever it has attention, also
    `tokens`.

    What every strategy shares stands here, so that strategies differ in `fuse` alone: views get unit norm
    times sqrt(D), or the source with the larger norm would drown the others; an absent view (mask False)
    becomes the source's learned null, since zeros would look like a real embedding. With no view present
    the result is the unconditional model's conditioning. Strategies that treat all sources with the same weights
    (`shares_weights`) get a learned embedding of each source's kind added to its views, to tell a caption from an
    image; two captions are of one kind and may change places.

    kinds       what each of the P sources is, such as ("image", "caption", "caption")
    dim         D
    time_width  T
    """

    shares_weights = False
    has_tokens = False
    kind_of: Tensor  # (P,) int64, where weights are shared

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__()
        self.perspectives, self.dim, self.time_width = len(kinds), dim, time_width
        self.null = nn.Parameter(torch.randn(len(kinds), dim))
        if self.shares_weights:
            different = list(dict.fromkeys(kinds))
            self.kind = nn.Parameter(torch.zeros(len(different), dim))
            # a buffer and not a list, which every call would copy to the device anew
            kind_of = torch.tensor([different.index(kind) for kind in kinds])
            self.register_buffer("kind_of", kind_of, persistent=False)

    @classmethod
    def time_width_for(cls, dim: int, default: int) -> int:
        """Width of the time embedding that this strategy needs; `default` is the U-Net's own choice."""
        return default

    def forward(self, time: Tensor, views: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Conditioning (B, T), and the tokens (B, N, D) or None; ValueError for views of another shape."""
        if views.shape[1:] != (self.perspectives, self.dim):
            expected = f"(B, {self.perspectives}, {self.dim})"
            raise ValueError(f"views have shape {tuple(views.shape)}, the model was built for {expected}")
        views = F.normalize(views, dim=-1) * self.dim**0.5
        views = torch.where(mask[..., None], views, self.null.to(views.dtype))
        if self.shares_weights:
            views = views + self.kind[self.kind_of]
        return self.fuse(time, views, mask), self.tokens(views)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        """Merge normalised views (nulls filled in) into the time embedding."""
        raise NotImplementedError

    def tokens(self, views: Tensor) -> Tensor | None:
        """What the U-Net attends to (B, N, D), made of normalised views (nulls filled in); None: nothing."""
        return None
