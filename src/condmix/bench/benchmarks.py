"""The benchmarks by the name that a setting gives them."""

from __future__ import annotations

from condmix.bench.sampling import Sampling
from condmix.bench.setting import Setting
from condmix.bench.training import Training

KINDS: dict[str, type[Training] | type[Sampling]] = {"train": Training, "sample": Sampling}


def benchmark(setting: Setting) -> Training | Sampling:
    """The contenders of a setting."""
    return KINDS[setting.what](setting)
