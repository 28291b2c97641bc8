"""Contenders by turns, A B C A B C ...: what a shared machine does to one round, it does to all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

import torch

Input = TypeVar("Input")


@dataclass(frozen=True)
class Rounds:
    """`count` timed rounds after `warmup` others; the timed ones end early when `budget` seconds are spent."""

    count: int
    warmup: int = 1
    budget: float = float("inf")


def interleave(
    work: Mapping[str, Callable[[Input], object]],
    draw: Callable[[int], Input],
    rounds: Rounds,
    clock: Callable[[], float] = time.perf_counter,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, list[float]]:
    """Seconds of every piece of work in every round.

    draw(number) makes the input of round `number`, the same for all and not timed. The budget counts from the end of
    the warm-up, which may compile for minutes; it ends no round inside, and not before the first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds.warmup + rounds.count):
        if number == rounds.warmup:
            started = clock()
        given = draw(number)
        for name, step in work.items():
            _wait()
            before = clock()
            step(given)
            _wait()
            if number >= rounds.warmup:
                seconds[name].append(clock() - before)
        done = number + 1 - rounds.warmup
        say(f"round {done} of {rounds.count}" if done > 0 else f"warm-up {number + 1} of {rounds.warmup}")
        if done > 0 and clock() - started >= rounds.budget:
            break
    return seconds


def spread(seconds: Sequence[float]) -> float:
    """The interquartile range as a share of the median; 0 for a single round."""
    if len(seconds) < 2:
        return 0.0
    low, _, high = quantiles(seconds, n=4, method="inclusive")
    return (high - low) / median(seconds)


def ratio(seconds: Sequence[float], baseline: Sequence[float]) -> float:
    """The median over rounds of this contender's time over the baseline's in the same round."""
    return median(mine / other for mine, other in zip(seconds, baseline, strict=True))


def _wait() -> None:
    """A GPU works on after a call returns."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
