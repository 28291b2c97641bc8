"""What can be read off embeddings: zero-shot accuracy, a linear probe's accuracy, retrieval.

Axes: N images or captions, D width, C classes (values of an attribute).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 1e-3  # of the linear probe


def zero_shot(images: Tensor, prompts: Tensor, labels: Tensor) -> float:
    """Share of images (N, D) whose nearest prompt (C, D) by cosine is the right one, labels (N,) in 0..C-1."""
    nearest = (F.normalize(images, dim=-1) @ F.normalize(prompts, dim=-1).T).argmax(dim=-1)
    return (nearest == labels).double().mean().item()


def linear_probe(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Accuracy on test (M, D) of ridge regression from train (N, D) to one-hot labels, in closed form.

    The penalty is relative to the features' mean variance, so that their scale does not matter. It is not fitted to
    what has the label -1, unknown.
    """
    known = labels >= 0
    x, y = train[known].double(), F.one_hot(labels[known]).double()
    centre, share = x.mean(dim=0), y.mean(dim=0)
    weights = ridge(x - centre, y - share, PENALTY)
    guesses = (test.double() - centre) @ weights + share
    return (guesses.argmax(dim=-1) == truth).double().mean().item()


def ridge(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """W minimising |xW - y|^2 + penalty * (mean of the diagonal of x'x) * |W|^2."""
    gram = x.T @ x
    return torch.linalg.solve(gram + penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=x.dtype), x.T @ y)


def recall_at(ks: Sequence[int], queries: Tensor, targets: Tensor, fits: Tensor) -> dict[str, float]:
    """For each k, as text, the share of queries (N, D) of whose k nearest targets (M, D) by cosine one fits.

    fits (N, M) says which do; each query has one that does.
    """
    cosines = F.normalize(queries, dim=-1) @ F.normalize(targets, dim=-1).T
    best = cosines.masked_fill(~fits, -torch.inf).amax(dim=1, keepdim=True)
    before = ((cosines >= best) & ~fits).sum(dim=1)  # of a tie the wrong one counts as nearer
    return {str(k): (before < k).double().mean().item() for k in ks}
