"""Vectors that stand for a text that nobody wrote: noise around a picture's vector (LAFITE, language-free training).

CLIP's two towers put a picture and what is said of it near to each other. A model that learns to draw a picture from
any vector near the picture's own can later be asked with the vector of a text.
"""

from torch import Tensor


def perturbed(vectors: Tensor, noise: Tensor, xi: float) -> Tensor:
    """h = f + xi |f| noise / |noise|, with unit norm: for f (B, D) and standard normal noise (B, D).

    Zhou et al. 2022 (arXiv:2111.13792), eq. 5. In D dimensions noise is nearly orthogonal to f, so that cos(h, f) is
    1 / sqrt(1 + xi^2) up to O(1 / sqrt(D)). An absent vector, which is zero, remains zero.
    """
    length = vectors.norm(dim=-1, keepdim=True)
    moved = vectors + xi * length * noise / noise.norm(dim=-1, keepdim=True)
    return moved / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
