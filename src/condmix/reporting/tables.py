"""Rows of results -> tables of text for people: each number with its exact value and its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from condmix.evaluation.conditions import Condition
from condmix.metrics import Measure, Place, at, measures
from condmix.results.rows import Row, ceilings, columns, short_perspectives, uncertainty

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A number as text, with its exact value and its conditions beneath."""

    text: str
    value: float | None = None
    below: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows side by side under the columns' headings, and below them the judge's own accuracy (maybe none)."""

    headings: list[str]
    lines: list[tuple[Row, str, list[Cell]]]  # row, what conditioned it, cells
    ceiling: list[Cell]
    same: list[str]  # measures that tell none of the rows from another, with their value


def comparison(rows: Sequence[Row]) -> Table:
    """All that compares variants; the best of each column is marked."""
    return table(rows, columns(rows), judged=True)


def unnamed(rows: Sequence[Row]) -> Table | None:
    """Accuracy over the pictures whose condition does not name the attribute; None where nothing was left out."""
    found = [measure for measure in measures([row.facts for row in rows]) if Place.UNNAMED in measure.places]
    return table(rows, found, judged=False) if found else None


def table(rows: Sequence[Row], columns: Sequence[Measure], judged: bool) -> Table:
    """The rows' cells; with `judged` the best ones are marked and the judge's own accuracy stands below."""
    columns, same = apart([row.facts for row in rows], columns) if judged else (columns, [])
    comparable = [row.facts for row in rows if row.condition is not Condition.PRIOR]  # which is of fewer pictures
    best = [column.best(comparable) if judged else None for column in columns]
    lines = [(row, conditioned_on(row), list(map(cell, [row] * len(columns), columns, best))) for row in rows]
    return Table([column.heading for column in columns], lines, judge_cells(rows, columns) if judged else [], same)


def cell(row: Row, measure: Measure, best: float | None = None) -> Cell:
    """A row's value; below a share of so many pictures its uncertainty and their number."""
    value = measure.of(row.facts)
    if value is None:
        return Cell(NONE)
    n = at(row.facts, measure.count) if measure.count else None
    below = f"±{100 * uncertainty(value, n):.1f}, n {n:,}" if n else ""
    return Cell(measure.text(value), value, below, best=value == best)


def judge_cells(rows: Sequence[Row], columns: Sequence[Measure]) -> list[Cell]:
    """The judge's own accuracy under each column; [] where nothing was judged."""
    own = ceilings(rows, columns)
    if not own:
        return []
    return [Cell(c.text(own[c.key]), own[c.key]) if c.key in own else Cell(NONE) for c in columns]


def conditioned_on(row: Row) -> str:
    """What stood in the row's views, in words; of an image, the words or the picture that stood in its place."""
    stand_in, names = row.condition.label, row.facts["perspectives"]
    parts = [short_perspectives([name for name in names if name != "image" or not stand_in])]
    return " + ".join(filter(None, [stand_in if "image" in names else None, *parts]))


def notes(shown: Sequence[Measure]) -> list[tuple[str, str, str]]:
    """(headings, explanation, what it is blind to) of the measures, those with the same explanation together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for measure in shown:
        groups.setdefault((measure.explanation, measure.blind_to), []).append(measure.heading)
    return [(", ".join(headings), *texts) for texts, headings in groups.items()]


def apart(rows: Sequence[Mapping[str, Any]], columns: Sequence[Measure]) -> tuple[list[Measure], list[str]]:
    """The measures in which several rows differ, and of the others what all rows say, as in "recall 0"."""
    values = {measure.key: {measure.of(row) for row in rows} - {None} for measure in columns}
    same = [measure for measure in columns if len(rows) > 1 and len(values[measure.key]) == 1]
    said = [f"{measure.heading} {measure.text(*values[measure.key])}" for measure in same]
    return [measure for measure in columns if measure not in same], said
