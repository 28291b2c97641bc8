"""Attention fusion: c = t + W [heads] + b, where each head is an average of the present views that it weighs itself.

Pooling by multihead attention with one learned query (Lee et al. 2019, Set Transformer, arXiv:1810.00825, section
3.2): unlike `mean`, which weighs views alike, a head can look for the view that says what it needs. The result does
not depend on the views' order. When none is present, their nulls are pooled instead: the unconditional model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condmix.fusions import Fusion

MOST_HEADS = 8


class Attention(Fusion):
    """Keys and values are linear maps of the views, shared by all sources; the query is a parameter."""

    shares_weights = True

    def __init__(self, kinds: Sequence[str], dim: int, time_width: int):
        super().__init__(kinds, dim, time_width)
        self.heads = next(heads for heads in range(MOST_HEADS, 0, -1) if dim % heads == 0)
        self.query = nn.Parameter(torch.randn(dim))
        self.key_value = nn.Linear(dim, 2 * dim)
        self.dense = nn.Linear(dim, time_width)

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:  # (B, N, D) -> (B, heads, N, D / heads)
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        key, value = self.key_value(views).chunk(2, dim=-1)
        query = self.query.to(views.dtype).expand(len(views), 1, -1)
        attended = mask | ~mask.any(dim=1, keepdim=True)  # (B, P)
        pooled = F.scaled_dot_product_attention(
            split(query), split(key), split(value), attn_mask=attended[:, None, None, :]
        )
        return time + self.dense(pooled.transpose(1, 2).flatten(1))
