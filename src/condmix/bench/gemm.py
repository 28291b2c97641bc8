"""The machine's own rate of matrix products, the yardstick for achieved FLOP/s."""

from __future__ import annotations

from collections.abc import Callable

import torch

# so large that a product is bound by arithmetic, so few that a round stays short
SIDE = {"cpu": 1024, "cuda": 8192}
PRODUCTS = {"cpu": 4, "cuda": 10}


def arithmetic(device: str, dtype: str) -> str:
    """What convolutions of this dtype are computed in: cuDNN takes TF32 for fp32 unless that is turned off."""
    return "tf32" if device == "cuda" and dtype == "fp32" and torch.backends.cudnn.allow_tf32 else dtype


def gemm_work(device: str, kinds: set[str]) -> dict[str, Callable[[object], None]]:
    """{kind: work to time} for kinds among fp32, tf32 and bf16; one call computes `flops(device)`."""
    return {kind: _products(device, kind) for kind in sorted(kinds)}


def flops(device: str) -> int:
    """Multiplications and additions in one call of a `gemm_work`."""
    return PRODUCTS[device] * 2 * SIDE[device] ** 3


def _products(device: str, kind: str) -> Callable[[object], None]:
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    a, b = (torch.randn(SIDE[device], SIDE[device], device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def work(_: object) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        for _ in range(PRODUCTS[device]):
            torch.mm(a, b, out=out)
        torch.set_float32_matmul_precision(before)

    return work
