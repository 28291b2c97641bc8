"""Measures of drawn pictures. One measure, or a family of them, is one file: what it is called, needs and computes.

A plug-in is a `Metric` of the file's name. It computes entries of metrics/<variant>.json from `Observations`, and lists
the numbers among them as `Measure`s, by which tables, pages and rankings know them: nothing else names a metric.
Plug-ins import torch only where they compute, as tables don't need it. This layer lies above `evaluation`, whose
observations it reads, and below `results`, which reads what was written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar

from condmix.settings import plugins

if TYPE_CHECKING:
    from condmix.evaluation.observations import Observations, Space


FEWEST, MOST = 5, 8  # figures of a headline
ABSENT = object()  # in the place of a value, where null is one


class Pictures(Enum):
    """The sets of pictures that a metric is computed for."""

    EVERY = auto()  # each condition, guidance scale and change
    HEADLINE = auto()  # the headline condition's, which has the most pictures
    REPEATED = auto()  # several pictures of each of few conditions
    PUBLISHED = auto()  # as many pictures as published distances take, where a profile asks for them


class Place(Flag):
    """Where a measure is shown."""

    NOWHERE = 0
    COMPARISON = auto()  # a column of the tables of variants, and a chart against guidance
    UNNAMED = auto()  # a column of the report's table of what was not asked for
    SETS = auto()  # a column of a grid's table of numbers that exist once per run
    MATRIX = auto()  # a cell of a grid's table of attributes by caption


@dataclass(frozen=True)
class Measure:
    """One number of a set of pictures, as tables and pages know it."""

    key: str  # its dotted place in metrics/<variant>.json
    heading: str  # of a column
    higher_is_better: bool | None  # None: neither, as for a count
    explanation: str
    blind_to: str
    name: str = ""  # in a sentence; "": the heading
    share: bool = False  # in 0..1, shown in per cent
    places: Place = Place.COMPARISON | Place.SETS
    rank: int | None = None  # what all rows have ranks them, the lowest rank first; None: it never does
    features: str | None = None  # its feature space
    attribute: str | None = None  # it is of one attribute
    group: str | None = None  # of one group of pictures
    count: str | None = None  # key of the number of pictures counted
    judged_by: tuple[str, ...] = ()  # heads of the judge, whose own mean accuracy is its ceiling
    answers: str | None = None  # the question of a grid (condmix.experiments.findings) that it answers
    again: str | None = None  # the question that another judge answers with it
    unless: str | None = None  # it is part of the measure of this key, and not shown beside that
    interval: bool = False  # two numbers, the ends of an interval

    def of(self, facts: Mapping[str, Any]) -> Any:
        """Its value in a row of metrics, None where it was not measured."""
        return at(facts, self.key)

    def best(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """The best value among the rows, None where there is nothing to compare."""
        values = [value for row in rows if (value := self.of(row)) is not None]
        comparable = len(values) > 1 and self.higher_is_better is not None
        return (max if self.higher_is_better else min)(values) if comparable else None

    @property
    def better(self) -> str:
        words = {True: "higher is better", False: "lower is better", None: "neither way is better"}
        return words[self.higher_is_better]

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return self.name or self.heading

    @property
    def title(self) -> str:
        """Its name as the title of a chart; names of distances are keys, and stay as they are."""
        return self.words[0].upper() + self.words[1:] if self.share else self.words

    def text(self, value: float) -> str:
        """A share as "97.3%", three significant digits for anything else."""
        return f"{value:.1%}" if self.share else significant(value)

    def tick(self, value: float) -> str:
        """As `text`, without digits that a round number does not need."""
        return f"{100 * value:.4g}%" if self.share else f"{value:.4g}"


class Metric:
    """A plug-in. It implements `compute`, or `compute_in` for one number in each feature space of the profile."""

    key: ClassVar[str]  # of its only measure; families implement `measures`
    higher_is_better: ClassVar[bool | None]
    explanation: ClassVar[str]  # what it is; its source
    blind_to: ClassVar[str]  # what it does not notice
    share: ClassVar[bool] = False
    places: ClassVar[Place] = Place.COMPARISON | Place.SETS
    pictures: ClassVar[Pictures] = Pictures.EVERY
    needs: ClassVar[tuple[str, ...]] = ()  # fields of `Observations` without which it is left out
    order: ClassVar[int] = 1000  # its place among the metrics in files and tables

    def measures(self, files: Sequence[Mapping[str, Any]]) -> list[Measure]:
        """The numbers that these metrics (as in metrics/<variant>.json) may hold of it."""
        return [self.measure(self.key)]

    def compute(self, drawn: Observations) -> dict[str, Any]:
        """Entries of metrics/<variant>.json."""
        return {}

    def compute_in(self, space: Space, drawn: Observations) -> dict[str, Any]:
        """The entries of one feature space."""
        return {}

    def measure(self, key: str, heading: str = "", **others: Any) -> Measure:
        """A measure with what the plug-in says of all of its own."""
        shared = ("higher_is_better", "explanation", "blind_to", "share", "places")
        return Measure(key, heading or key, **{name: getattr(self, name) for name in shared} | others)


def metrics() -> list[Metric]:
    """All plug-ins, in their order."""
    found = [plugins.plugin("metrics", name)() for name in plugins.plugins("metrics")]
    return sorted(found, key=lambda metric: metric.order)


def computed(drawn: Observations, pictures: Pictures) -> dict[str, Any]:
    """What all metrics of such a set say of it: those in feature spaces first, space by space."""
    chosen = [metric for metric in metrics() if metric.pictures is pictures]
    chosen = [metric for metric in chosen if all(getattr(drawn, need) is not None for need in metric.needs)]
    found: dict[str, Any] = {}
    for space in drawn.spaces:
        for metric in chosen:
            found |= metric.compute_in(space, drawn)
    for metric in chosen:
        found |= metric.compute(drawn)
    return found


def measures(files: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]] | None = None) -> list[Measure]:
    """The measures that any of the rows has: `files` themselves, or rows that were taken out of them."""
    rows = files if rows is None else rows
    return [measure for measure in known(files) if any(measure.of(row) is not None for row in rows)]


def known(files: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """Every measure that such files may hold, whether they do or not."""
    return [measure for metric in metrics() for measure in metric.measures(files)]


def compared(files: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]] | None = None) -> list[Measure]:
    """Those that compare variants: shares, then anything else, and within both what ranks before what does not."""
    found = measures(files, rows)
    keys = {measure.key for measure in found}
    found = [m for m in found if Place.COMPARISON in m.places and m.unless not in keys]
    found.sort(key=lambda m: (not m.share, m.rank is None, m.rank or 0, m.key if m.rank is not None else ""))
    return found


def headline(facts: Mapping[str, Any]) -> list[Measure]:
    """The 5 to 8 measures that stand for one file of metrics, what ranks variants first."""
    found = [measure for measure in compared([facts]) if measure.attribute is None]
    found.sort(key=lambda measure: (measure.rank is None, measure.rank or 0))
    known = {measure.key for measure in found}
    others = [m for m in measures([facts]) if Place.SETS in m.places and m.attribute is None and m.key not in known]
    return found[:MOST] + others[: max(0, FEWEST - len(found))]


def feature_names(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """The feature spaces of metrics files."""
    return list(dict.fromkeys(name for facts in files for name in facts.get("features", ())))


def names_under(files: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """The names that have values under a dotted key, in the files' order; ValueError where it holds something else."""
    found = [values for facts in files if (values := at(facts, key, ABSENT)) is not ABSENT]
    if not all(isinstance(values, Mapping) for values in found):
        raise ValueError(f"{key} does not hold a value by name")
    return list(dict.fromkeys(name for values in found for name in values))


def at(facts: Mapping[str, Any], key: str, absent: Any = None) -> Any:
    """The value under a dotted key, `absent` where there is none."""
    for part in key.split("."):
        facts = facts.get(part, absent) if isinstance(facts, Mapping) else absent
    return facts


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, never in exponent form; whole digits are all kept."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.999 has its first digit one place further left
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{max(0, decimals)}f}"
