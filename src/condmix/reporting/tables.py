"""Rows of results -> tables of text for people: each number with its exact value and its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from condmix.evaluation.results import (
    Measure,
    Row,
    attribute_measures,
    ceilings,
    measures,
    short_perspectives,
    uncertainty,
)

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
    lines: list[tuple[Row, str, list[Cell]]]  # row, what it was told, cells
    ceiling: list[Cell]


def comparison(rows: Sequence[Row]) -> Table:
    """All that was measured; the best of each column is marked."""
    return table(rows, all_measures(rows), judged=True)


def all_measures(rows: Sequence[Row]) -> list[Measure]:
    """Headline shares, then accuracy per attribute, then distances."""
    found = measures(rows)
    return [*(m for m in found if m.share), *attribute_measures(rows), *(m for m in found if not m.share)]


def unnamed(rows: Sequence[Row]) -> Table | None:
    """Accuracy over the pictures whose condition does not name the attribute; None where nothing was left out."""
    columns = attribute_measures(rows, "attribute_accuracy_unnamed")
    return table(rows, columns, judged=False) if columns else None


def table(rows: Sequence[Row], columns: Sequence[Measure], judged: bool) -> Table:
    """The rows' cells; with `judged` the best ones are marked and the judge's own accuracy stands below."""
    comparable = [row for row in rows if row.condition != "prior"]  # which is of fewer pictures
    best = [column.best(comparable) if judged else None for column in columns]
    lines = [(row, told(row), list(map(cell, [row] * len(columns), columns, best))) for row in rows]
    return Table([column.heading for column in columns], lines, judge_cells(rows, columns) if judged else [])


def cell(row: Row, measure: Measure, best: float | None = None) -> Cell:
    """A row's value; below an attribute's accuracy its uncertainty and the number of pictures counted."""
    value = measure.of(row)
    if value is None:
        return Cell(NONE)
    n = row.facts.get("attribute_n", {}).get(measure.heading) if measure.key.startswith("attribute_accuracy.") else None
    below = f"±{100 * uncertainty(value, n):.1f}, n {n:,}" if n else ""
    return Cell(measure.text(value), value, below, best=value == best)


def judge_cells(rows: Sequence[Row], columns: Sequence[Measure]) -> list[Cell]:
    """The judge's own accuracy under each column; [] where nothing was judged."""
    own = ceilings(rows)
    if not own:
        return []
    return [Cell(c.text(own[c.key]), own[c.key]) if c.key in own else Cell(NONE) for c in columns]


def told(row: Row) -> str:
    """What stood in the row's views, in words; of an image, the words or the picture that stood in its place."""
    ways = {"prompt": "caption_1 as prompt", "oracle": "the real picture", "prior": "caption_1 through the prior"}
    stand_in = ways.get(row.condition)
    names = row.facts["perspectives"]
    parts = [short_perspectives([name for name in names if name != "image" or not stand_in])]
    return " + ".join(filter(None, [stand_in if "image" in names else None, *parts]))
