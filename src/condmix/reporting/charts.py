"""Lines of (x, y) points -> one line chart as inline SVG, styled by the page's own CSS (light, dark, print).

Each line has a colour, a marker and a dash of its own, so that it is told apart without colour too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

WIDTH, HEIGHT = 440, 300  # user units; narrow, so that text stays legible when scaled to a phone
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 30, 46
MARKERS = ("M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z", "M-3.2-3.2h6.4v6.4h-6.4z", "M0-4.4l4.3 7.4h-8.6z",
           "M0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z", "M0 4.4l4.3-7.4h-8.6z",
           "M-1.4-4.4h2.8v3h3v2.8h-3v3h-2.8v-3h-3v-2.8h3z", "M-4-4h8l-8 8h8z",
           "M-4.4 0l2.2-3.8h4.4l2.2 3.8l-2.2 3.8h-4.4z")  # fmt: skip
STYLES = 8  # lines that look different; report.css has .line-0 ... .line-3, evidence.css the others
LEGEND_ROW = 18
FOREST_ROW = 42
SECOND_LINE = 14
LETTER = 6.2  # width of a letter of the legend, about
BOLD_LETTER = 7.2


@dataclass(frozen=True)
class Line:
    """A named series; points in any order. `style` keeps a name's looks the same in every chart."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int


@dataclass(frozen=True)
class Quantity:
    """What an axis measures: its label, how a value is written, and whether the scale is logarithmic (y only)."""

    label: str
    text: Callable[[float], str] = "{:g}".format
    log: bool = False


@dataclass(frozen=True)
class Axis:
    """Data to pixels: low..high becomes start..end, by equal steps or (log) by equal ratios; `step` between ticks."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    step: float | None = None

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values within the range, about five of them."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
                found = [d * 10.0**k for k in decades for d in digits]
                found = [v for v in found if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
                if len(found) >= 4:
                    return found
        step = self.step or round_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def round_step(span: float) -> float:
    """The step 1, 2 or 5 times a power of ten that divides a span into about five."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return min((d * power for d in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))


def axis(values: Sequence[float], start: float, end: float, log: bool = False, rounded: bool = True) -> Axis:
    """An axis that holds all values; with `rounded` a linear one ends on ticks."""
    low, high = min(values), max(values)
    if low == high:  # a single value still needs a range around it
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10)
    if log:
        margin = (high / low) ** 0.04
        return Axis(low / margin, high * margin, start, end, log=True)
    step = round_step(high - low)
    if rounded:
        low = min(low, math.floor(low / step + 1e-9) * step)
        high = max(high, math.ceil(high / step - 1e-9) * step)
    return Axis(low, high, start, end, step=step)


def line_chart(
    label: str,
    of_x: Quantity,
    of_y: Quantity,
    lines: Sequence[Line],
    *,
    markers: bool = True,
    mark_x: float | None = None,
) -> str:
    """An <svg> of the lines with axes, ticks and legend; `label` is what a screen reader says.

    `mark_x` draws a vertical line where the page's other numbers were measured. Markers name their values.
    """
    points = [point for line in lines for point in line.points]
    x = axis([p[0] for p in points], LEFT, WIDTH - RIGHT, rounded=False)
    y = axis([p[1] for p in points], HEIGHT - BOTTOM, TOP, log=of_y.log)
    above = LEGEND_ROW * (-(-len(lines) // _legend_place(lines)[1]) - 1)  # what a legend of several rows needs more
    box = f"0 {-above} {WIDTH} {HEIGHT + above}"
    parts = [f'<svg class="chart" viewBox="{box}" role="img" aria-label="{escape(label)}">']
    parts += _frame(x, y, of_x, of_y)
    if mark_x is not None and x.low <= mark_x <= x.high:
        parts.append(f'<path class="mark" d="M{x(mark_x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
    for line in lines:
        parts += _line(line, x, y, of_x, of_y, markers)
    parts += _legend(lines, markers, 12 - above)
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Difference:
    """A row of a forest plot: what is compared, a difference with the ends of its interval, and the verdict's word."""

    name: str
    value: float
    low: float
    high: float
    verdict: str  # a class of the page's CSS


def forest_plot(label: str, of_x: Quantity, rows: Sequence[Difference]) -> str:
    """An <svg> with text and an interval below it for each row, and a vertical line at no difference.

    The text is one line, or two where the name leaves no room for its numbers. A verdict of "no" has a hollow marker,
    so that it is told from the others without colour.
    """
    numbers = [f"{of_x.text(row.value)} ({of_x.text(row.low)} to {of_x.text(row.high)})" for row in rows]
    below = [
        SECOND_LINE if BOLD_LETTER * (len(row.name) + len(said) + 3) > WIDTH else 0
        for row, said in zip(rows, numbers, strict=True)
    ]
    tops = list(accumulate((FOREST_ROW + more for more in below), initial=8))
    bottom = tops.pop()
    x = axis([0.0, *(end for row in rows for end in (row.low, row.high))], 16, WIDTH - 16)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {bottom + 44}" role="img" aria-label="{escape(label)}">']
    for value in x.ticks():
        at = f"{x(value):.1f}"
        parts.append(f'<path class="grid" d="M{at} 4V{bottom}"/>')
        tick = f"{value:g}".replace("-", "−")
        parts.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{tick}</text>')
    parts.append(f'<path class="axis" d="M{x(0):.1f} 4V{bottom}"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="{bottom + 36}" text-anchor="middle">{escape(of_x.label)}</text>')
    for row, said, top, more in zip(rows, numbers, tops, below, strict=True):
        y = top + more + 27
        parts.append(
            f'<g class="{escape(row.verdict)}"><text class="said" x="0" y="{top + 13}">{escape(row.name)}</text>'
        )
        parts.append(f'<text x="{WIDTH}" y="{top + more + 13}" text-anchor="end">{escape(said)}</text>')
        parts.append(f'<path class="interval" d="M{x(row.low):.1f} {y}H{x(row.high):.1f}"/>')
        parts.append(f'<circle class="estimate" cx="{x(row.value):.1f}" cy="{y}" r="4"/></g>')
    return "\n".join([*parts, "</svg>"])


def path_of(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The path data through the points, from left to right."""
    return "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in sorted(points))


def _frame(x: Axis, y: Axis, of_x: Quantity, of_y: Quantity) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = []
    for value in y.ticks():
        at = f"{y(value):.1f}"
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{at}" dy=".35em" text-anchor="end">{escape(of_y.text(value))}</text>')
    for value in x.ticks():
        at = f"{x(value):.1f}"
        parts.append(f'<path class="axis" d="M{at} {bottom}v5"/>')
        parts.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{escape(of_x.text(value))}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(of_x.label)}</text>')
    turned = f'transform="translate(10 {(TOP + bottom) / 2}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{escape(of_y.label)}</text>')
    return parts


def _line(line: Line, x: Axis, y: Axis, of_x: Quantity, of_y: Quantity, markers: bool) -> list[str]:
    style = line.style % STYLES
    dashed = "" if markers else " dashed"
    parts = [f'<path class="line line-{style}{dashed}" d="{path_of(line.points, x, y)}"/>']
    for a, b in sorted(line.points) if markers else ():
        said = escape(f"{line.name}: {of_y.text(b)} at {of_x.text(a)}")
        parts.append(
            f'<path class="marker line-{style}" transform="translate({x(a):.1f} {y(b):.1f})" '
            f'd="{MARKERS[style]}"><title>{said}</title></path>'
        )
    return parts


def _legend_place(lines: Sequence[Line]) -> tuple[int, int]:
    """(left end, columns) of the legend: one row above the frame, or where that is too narrow, rows as wide as all."""
    widest = 27 + LETTER * max(len(line.name) for line in lines)
    if len(lines) <= min(4, (WIDTH - LEFT - RIGHT) // widest):
        return LEFT, 4
    return RIGHT, max(1, int((WIDTH - 2 * RIGHT) // widest))


def _legend(lines: Sequence[Line], markers: bool, top: float) -> list[str]:
    left, columns = _legend_place(lines)
    parts = []
    for place, line in enumerate(lines):
        row, column = divmod(place, columns)
        style, at, y = line.style % STYLES, left + column * (WIDTH - left - RIGHT) / columns, top + row * LEGEND_ROW
        dashed = "" if markers else " dashed"
        parts.append(f'<path class="line line-{style}{dashed}" d="M{at:.1f} {y}h20"/>')
        if markers:
            moved = f'transform="translate({at + 10:.1f} {y})"'
            parts.append(f'<path class="marker line-{style}" {moved} d="{MARKERS[style]}"/>')
        parts.append(f'<text x="{at + 25:.1f}" y="{y}" dy=".35em">{escape(line.name)}</text>')
    return parts
