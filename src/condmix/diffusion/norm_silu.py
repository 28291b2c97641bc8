"""GroupNorm, the conditioning, SiLU and dropout of a feature map: what stands before each convolution of the U-Net.

As PyTorch's own operations these are five or more passes over the map, and on a CPU in bf16 a quarter of a training
step. There they are one operation of ours (norm_silu.cpp), which reads the map twice and keeps nothing for the backward
pass but its input. Elsewhere, and where it could not be compiled, they are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from condmix.runtime import native

Conditioning = Tensor | None


class NormSilu(nn.GroupNorm):
    """silu(norm(x + before) * (1 + scale) + shift), then dropout.

    Wu & He 2018 (arXiv:1803.08494) for the norm, Dhariwal & Nichol 2021 (arXiv:2105.05233) for scale and shift.
    """

    def forward(
        self,
        x: Tensor,
        before: Conditioning = None,
        scale: Conditioning = None,
        shift: Conditioning = None,
        dropout: float = 0.0,
    ) -> Tensor:
        """(B, C, H, W) and what is given of the conditioning, each (B, C), -> (B, C, H, W) of x's dtype.

        `dropout` is the share of values that become 0 where the module is in training mode.
        """
        p = dropout if self.training else 0.0
        if _fits(x) and native.available():
            return _Fused.apply(x, self.weight, self.bias, before, scale, shift, self.num_groups, self.eps, p)
        return self.plain(x, before, scale, shift, p)

    def plain(self, x: Tensor, before: Conditioning, scale: Conditioning, shift: Conditioning, p: float) -> Tensor:
        """The same by PyTorch's operations, whose dropout chooses other values."""
        if before is not None:
            x = x + before[:, :, None, None]
        h = super().forward(x)
        if scale is not None:
            h = h * (1 + scale[:, :, None, None])
        if shift is not None:
            h = h + shift[:, :, None, None]
        return F.dropout(F.silu(h), p)


def _fits(x: Tensor) -> bool:
    """Whether our operation takes it. torch.compile fuses PyTorch's operations itself."""
    return (
        x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.dtype in (torch.float32, torch.bfloat16)
        and not isinstance(x, FakeTensor)
        and not torch.compiler.is_compiling()
    )


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 (autograd sees only tensors that are parameters)
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, before: Conditioning, scale: Conditioning,
        shift: Conditioning, groups: int, eps: float, p: float,
    ) -> Tensor:  # fmt: skip
        given = [None if term is None else term.float().contiguous() for term in (before, scale, shift)]
        seed = int(torch.randint(2**62, ())) if p else 0
        y, mean, rstd = torch.ops.condmix.norm_silu(x, weight, bias, *given, groups, eps, p, seed)
        ctx.save_for_backward(x, mean, rstd, weight, bias, *given)
        ctx.p, ctx.seed = p, seed
        ctx.dtypes = [None if term is None else term.dtype for term in (before, scale, shift)]
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight, bias, before, scale, shift = ctx.saved_tensors
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, dz, dz_u = torch.ops.condmix.norm_silu_backward(
            dy, x, mean, rstd, weight, bias, before, scale, shift, ctx.p, ctx.seed
        )  # sums over places (B, C): of dz, of dz * (u - mean), with u = x + before
        dz_n = dz_u * rstd.repeat_interleave(x.shape[1] // mean.shape[1], dim=1)  # of dz * normalised u
        factor = 1.0 if scale is None else 1 + scale
        before_type, scale_type, shift_type = ctx.dtypes
        return (
            dx,
            (factor * dz_n).sum(0),
            (factor * dz).sum(0),
            None if before is None else dx.sum((2, 3), dtype=torch.float32).to(before_type),
            None if scale is None else (weight * dz_n + bias * dz).to(scale_type),
            None if shift is None else dz.to(shift_type),
            None,
            None,
            None,
        )
