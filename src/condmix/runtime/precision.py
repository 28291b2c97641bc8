"""Which arithmetic `precision: fp32 | bf16 | auto` means on this machine."""

from typing import Literal

import torch


def resolved(precision: str) -> Literal["bf16", "fp32"]:
    """The arithmetic that is used here, by its name: what a figure's conditions hold in place of "auto"."""
    return "bf16" if bf16(precision) else "fp32"


def bf16(precision: str) -> bool:
    """Whether to compute in bf16; "auto" does where the hardware computes in it."""
    return in_hardware() if precision == "auto" else precision == "bf16"


def in_hardware() -> bool:
    """Whether this machine computes in bf16 and does not only emulate it: newer GPUs, CPUs with AMX or AVX512_BF16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
