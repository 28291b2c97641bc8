"""The benchmarks by the name that a setting gives them."""

from __future__ import annotations

from condmix.bench.sampling import SamplingBenchmark
from condmix.bench.setting import Setting
from condmix.bench.training import TrainingBenchmark

KINDS: dict[str, type[TrainingBenchmark] | type[SamplingBenchmark]] = {
    "train": TrainingBenchmark,
    "sample": SamplingBenchmark,
}


def benchmark(setting: Setting) -> TrainingBenchmark | SamplingBenchmark:
    """The contenders of a setting."""
    return KINDS[setting.what](setting)
