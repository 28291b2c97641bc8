"""Cross-attention fusion: c = t, and the views are tokens that every place of a feature map looks at for itself.

As in latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.3): after each self-attention of the U-Net a
cross-attention layer, `condmix.diffusion.unet.CrossAttentionLayer`, takes its queries from the places and its keys and
values from the views. All other strategies say the same to all places.
"""

from __future__ import annotations

from torch import Tensor

from condmix.fusions import Fusion


class CrossAttention(Fusion):
    """The U-Net needs attention at one resolution at least; its middle block always has it."""

    shares_weights = True
    has_tokens = True

    def fuse(self, time: Tensor, views: Tensor, mask: Tensor) -> Tensor:
        return time

    def tokens(self, views: Tensor) -> Tensor:
        return views
