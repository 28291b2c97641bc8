"""Muon: for weights that are matrices, steps of gradient momentum whose singular values are all made about 1.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon), scaled as by Liu et al. 2025 (arXiv:2502.16982, eq. 4)
so that learning rates of AdamW fit. A convolution's weights (out, in, h, w) count as the matrix (out, in * h * w). The
steps are those of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, which refuses convolutions and computes in bf16:
many CPUs only emulate that, and are ten times as slow at it as in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # maps singular values from 0.002 to 1 to about 1 in five turns; Jordan et al.
TURNS = 5
SMALLEST = 16  # rows and columns of a weight that Muon takes: smaller ones have hardly any directions to balance


class Muon(torch.optim.Optimizer):
    """AdamW's companion for matrices; after a step, each has the state `momentum`, of its shape and layout."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        """Update the weights that have a gradient, all of one shape at once."""
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            weights = [weight for weight in group["params"] if weight.grad is not None]
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for weight in weights:
                by_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, gradients)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for shape, alike in by_shape.items():
                # Nesterov's look ahead
                ahead = [_matrix(w.grad + group["momentum"] * self.state[w]["momentum"]) for w in alike]
                scale = group["lr"] * 0.2 * math.sqrt(max(shape))
                for weight, step in zip(alike, orthogonalised(torch.stack(ahead)), strict=True):
                    _matrix(weight).sub_(step, alpha=scale)


def takes(weight: Tensor) -> bool:
    """Whether a weight is for Muon: a matrix, or a convolution's, of some size."""
    return weight.dim() in (2, 4) and min(len(weight), weight[0].numel()) >= SMALLEST


def orthogonalised(matrices: Tensor) -> Tensor:
    """(N, m, n) -> (N, m, n): their singular vectors, with singular values about 1.

    Each turn is X <- a X + b (X X') X + c (X X')^2 X = P X with P = a + b A + c A^2, A = X X'. All these P are
    polynomials of the first A and so commute: A <- P^2 A, and the product of the P, both of the smaller side alone,
    is applied to X once. That is 2 products with X instead of 10.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    a, b, c = QUINTIC
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram, identity = x @ x.mT, torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    product = identity
    for turn in range(TURNS):
        polynomial = a * identity + gram @ (b * identity + c * gram)
        product = polynomial if turn == 0 else polynomial @ product
        if turn < TURNS - 1:
            gram = polynomial @ polynomial @ gram
    return product @ x


def _matrix(weight: Tensor) -> Tensor:
    """(out, in, h, w) or (out, in) as a matrix (out, in * h * w): a view of a channels_last or contiguous tensor."""
    if weight.dim() == 2:
        return weight
    channels_last = weight.is_contiguous(memory_format=torch.channels_last)
    return (weight.permute(0, 2, 3, 1) if channels_last else weight).view(len(weight), -1)
