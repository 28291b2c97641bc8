"""The benchmarks by the name that a setting gives them, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from condmix.bench.sampling import SamplingBenchmark
from condmix.bench.setting import Setting
from condmix.bench.training import TrainingBenchmark


class Benchmark(Protocol):
    """Contenders that do the same work; what `draw` makes, the `step` of each of them takes."""

    @property
    def baseline(self) -> str: ...
    @property
    def about(self) -> Mapping[str, str]: ...
    def choose(self, names: Sequence[str]) -> list[str]: ...
    def check(self, names: Sequence[str]) -> None: ...
    def conditions(self) -> dict[str, Any]: ...
    def build(self, name: str) -> Any: ...
    def draw(self, number: int, count: int | None = None) -> Any: ...


KINDS: dict[str, Callable[[Setting], Benchmark]] = {"train": TrainingBenchmark, "sample": SamplingBenchmark}


def benchmark(setting: Setting) -> Benchmark:
    """The contenders of a setting."""
    return KINDS[setting.what](setting)
