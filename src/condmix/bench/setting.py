"""What one run measures: the kind of work, the size of the networks, the batch, the machine's part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from condmix import CondmixError
from condmix.settings.load import unknown

BENCHMARKS = {
    "train": "one optimiser step",
    "sample": "one batch of pictures by DPM-Solver++(2M) in 12 steps, guidance s = 3",
}


@dataclass(frozen=True)
class NetworkSize:
    """The DDPM U-Net of a size, on 32x32 pictures.

    denoising-diffusion-pytorch's U-Net has more parameters at equal widths. Its first width is ours, `peer_dim` sets
    its others: a multiple of 8 (of 4 for `quick`) that comes near our count.
    """

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    dropout: float
    peer_dim: int
    image_size: int = 32


SIZES = {
    "quick": NetworkSize(32, (1, 2), 2, (16,), 0.1, peer_dim=36),  # 1.0 M parameters
    "9m": NetworkSize(64, (1, 2, 2, 2), 2, (16,), 0.1, peer_dim=72),
    "36m": NetworkSize(
        128, (1, 2, 2, 2), 2, (16,), 0.1, peer_dim=144
    ),  # Ho et al. 2020's for CIFAR-10: conf/cifar10.yaml
}


@dataclass(frozen=True)
class Setting:
    """Everything that a contender is built from; `asdict` is plain JSON, for the probe's process.

    bf16 and compile say what our recipe does here; a contender can be without.
    """

    what: str
    size: str
    batch_size: int
    device: str
    bf16: bool
    compile: bool
    seed: int = 0

    def __post_init__(self) -> None:
        if self.what not in BENCHMARKS:
            raise CondmixError(unknown("benchmark", self.what, list(BENCHMARKS)))
        if self.size not in SIZES:
            raise CondmixError(unknown("size", self.size, list(SIZES)))

    @property
    def network(self) -> NetworkSize:
        return SIZES[self.size]


def chosen(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The contenders asked for, each once and in that order, or all of them."""
    for name in names:
        if name not in known:
            raise CondmixError(unknown("contender", name, list(known)))
    return list(dict.fromkeys(names or known))


def setting_here(what: str, size: str, batch_size: int, compile: bool | None = None) -> Setting:
    """The setting on this machine: its GPU where there is one; precision as `precision: auto` of training chooses it.

    `compile` None is yes on a GPU and no on a CPU, as the profiles in conf/ have it.
    """
    from condmix.runtime.precision import bf16

    gpu = torch.cuda.is_available()
    return Setting(
        what,
        size,
        batch_size,
        device="cuda" if gpu else "cpu",
        bf16=bf16("auto"),
        compile=gpu if compile is None else compile,
    )
