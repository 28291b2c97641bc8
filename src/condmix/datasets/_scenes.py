"""The demo world's scenes: a number -> five attributes -> a 32x32 picture of them.

Every choice comes from Philox's raw integers, whose stream is fixed for good (numpy's distributions may change
between versions), and all drawing is integer arithmetic, so a scene has the same pixels on every machine.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

SIDE = 32
OBJECT_COLOURS = {
    "red": (222, 32, 38),
    "green": (60, 205, 62),
    "blue": (44, 92, 244),
    "yellow": (255, 222, 40),
    "purple": (168, 48, 214),
}
BACKGROUND_COLOURS = {
    "grey": (124, 124, 124),
    "navy": (26, 34, 84),
    "brown": (104, 68, 36),
    "pink": (222, 158, 170),
}
ATTRIBUTES = {
    "shape": ["square", "triangle", "ring", "hourglass"],
    "colour": list(OBJECT_COLOURS),
    "size": ["small", "large"],
    "position": ["upper left", "upper right", "lower left", "lower right", "centre"],
    "background": list(BACKGROUND_COLOURS),
}
COUNTS = tuple(map(len, ATTRIBUTES.values()))
COMBINATIONS = int(np.prod(COUNTS))
TEST_SHARE = 10  # per cent of the combinations that only the test split draws

DIAMETER = {"small": 14, "large": 22}
# The object's first row or column at each end and in the middle of the picture. All are even and no two places are
# nearer than 4, so that places stay apart and edges crisp when the picture is halved to 16x16.
STARTS = {
    "small": {"low": (2,), "middle": (8, 10), "high": (16,)},
    "large": {"low": (0,), "middle": (4, 6), "high": (10,)},
}
COLOUR_JITTER = 4  # grey levels, either way, per channel
FINE = 8  # sub-pixels per pixel and axis, for smooth edges


class Dice:
    """Reproducible choices; every (seed, split, number) has a stream of its own."""

    def __init__(self, seed: int, split: int, number: int):
        self._bits = np.random.Philox(key=np.array([seed, (split << 32) + number], np.uint64))
        self._raw: list[int] = []

    def below(self, bound: int) -> int:
        """0 .. bound-1; the bias of the remainder is below 2^-50."""
        if not self._raw:
            self._raw = self._bits.random_raw(64).tolist()
        return self._raw.pop() % bound

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]

    def shuffled(self, options: Sequence) -> list:
        """Fisher and Yates."""
        options = list(options)
        for last in range(len(options) - 1, 0, -1):
            other = self.below(last + 1)
            options[last], options[other] = options[other], options[last]
        return options


def divide(seed: int) -> dict[str, list[int]]:
    """The combinations of attributes, shared out so that none of the test split's occurs in train."""
    order = Dice(seed, split=2, number=0).shuffled(range(COMBINATIONS))
    held_out = COMBINATIONS * TEST_SHARE // 100
    return {"train": order[held_out:], "test": order[:held_out]}


def values_of(combination: int) -> tuple[int, ...]:
    """A combination's number as one value per attribute (mixed radix, the last attribute fastest)."""
    return tuple(int(value) for value in np.unravel_index(combination, COUNTS))


def picture(values: Sequence[int], dice: Dice) -> np.ndarray:
    """(32, 32, 3) uint8 of a scene; `dice` chooses what the attributes leave open: jitter of place and colours."""
    names = [options[value] for options, value in zip(ATTRIBUTES.values(), values, strict=True)]
    shape, colour, size, position, background = names
    scene = np.tile(_tint(BACKGROUND_COLOURS[background], dice), (SIDE, SIDE, 1))

    vertical, horizontal = ends(position)
    top, left = dice.pick(STARTS[size][vertical]), dice.pick(STARTS[size][horizontal])
    coverage = silhouette(shape, DIAMETER[size])[:, :, None]
    inside = scene[top : top + DIAMETER[size], left : left + DIAMETER[size]]
    whole = FINE * FINE
    inside[:] = (coverage * _tint(OBJECT_COLOURS[colour], dice) + (whole - coverage) * inside + whole // 2) // whole
    return np.asarray(np.clip(scene, 0, 255), np.uint8)


def _tint(colour: tuple[int, int, int], dice: Dice) -> np.ndarray:
    return np.array([channel + dice.below(2 * COLOUR_JITTER + 1) - COLOUR_JITTER for channel in colour], np.int64)


def ends(position: str) -> tuple[str, str]:
    if position == "centre":
        return "middle", "middle"
    vertical, horizontal = position.split()
    return {"upper": "low", "lower": "high"}[vertical], {"left": "low", "right": "high"}[horizontal]


@cache
def silhouette(shape: str, diameter: int) -> np.ndarray:
    """(diameter, diameter) int64: how many of a pixel's FINE * FINE sub-pixels the shape covers."""
    half = diameter * FINE  # in half sub-pixels, so that centres of sub-pixels are odd whole numbers
    centres = 2 * np.arange(diameter * FINE) + 1 - half
    x, y = np.meshgrid(centres, centres)
    radius = x * x + y * y
    filled = {
        "square": np.ones(x.shape, bool),
        "triangle": 2 * abs(x) < y + half,
        "ring": (radius < half * half) & (4 * radius > half * half),
        "hourglass": abs(x) < np.maximum(abs(y), half // 6),
    }[shape]
    return np.asarray(filled.reshape(diameter, FINE, diameter, FINE).sum(axis=(1, 3)))
