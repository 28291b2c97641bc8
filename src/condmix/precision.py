"""Which arithmetic `precision: fp32 | bf16 | auto` means on this machine."""

import torch


def bf16(asked: str) -> bool:
    """Whether to compute in bf16; "auto" does where the hardware computes in it: newer GPUs, CPUs with AMX."""
    return in_hardware() if asked == "auto" else asked == "bf16"


def in_hardware() -> bool:
    """Whether this machine computes in bf16 and does not only emulate it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()
