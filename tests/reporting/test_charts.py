"""Charts put data where it belongs."""

import re
from xml.etree import ElementTree

import pytest

from condmix.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Difference,
    Line,
    Quantity,
    axis,
    forest_plot,
    line_chart,
    path_of,
)


def test_linear_axis_maps_ends_and_middle():
    x = Axis(2.0, 4.0, 100, 300)
    assert [x(2.0), x(3.0), x(4.0)] == [100, 200, 300]


def test_log_axis_maps_equal_ratios_to_equal_steps():
    y = Axis(0.01, 1.0, 300, 100, log=True)
    assert [y(0.01), y(0.1), y(1.0)] == pytest.approx([300, 200, 100])


def test_path_goes_through_the_points_from_left_to_right():
    x, y = Axis(0, 10, 0, 100), Axis(0, 1, 50, 0)
    assert path_of([(10, 1.0), (0, 0.0), (5, 0.25)], x, y) == "M0.0 50.0L50.0 37.5L100.0 0.0"


@pytest.mark.parametrize("low, high", [(0, 1), (0.62, 0.957), (3.1, 148), (-0.2, 0.1), (1e-5, 3e-5)])
def test_ticks_are_round_within_the_range_and_a_handful(low, high):
    made = axis([low, high], 0, 100)
    ticks = made.ticks()
    assert made.low <= low and high <= made.high
    assert 3 <= len(ticks) <= 9 and ticks[0] == pytest.approx(made.low) and ticks[-1] == pytest.approx(made.high)
    assert re.fullmatch(r"[125]\.000e[+-]\d+", f"{ticks[1] - ticks[0]:.3e}")


@pytest.mark.parametrize("low, high", [(0.07, 0.9), (0.4, 0.6), (1e-4, 5.0), (0.51, 0.52)])
def test_log_ticks_lie_within_the_range(low, high):
    ticks = axis([low, high], 0, 100, log=True).ticks()
    assert len(ticks) >= 2 and all(low / 1.5 < tick < high * 1.5 for tick in ticks)


def test_an_axis_of_one_value_still_has_a_range():
    for log in (False, True):
        made = axis([0.3, 0.3], 0, 100, log)
        assert made.low < 0.3 < made.high and 0 < made(0.3) < 100
    assert axis([0.0], 0, 100)(0.0) == pytest.approx(50)


def test_chart_is_well_formed_labelled_and_draws_each_line_and_marker_inside_the_frame():
    lines = [Line("a<b", [(1, 0.5), (5, 1.0), (3, 0.7)], 0), Line("other", [(1, 0.6), (5, 0.8)], 3)]
    svg = ElementTree.fromstring(line_chart("some & more", Quantity("x"), Quantity("y"), lines, mark_x=3.0))
    assert svg.get("role") == "img" and svg.get("aria-label") == "some & more"
    texts = [text.text for text in svg.iter("text")]
    assert {"a<b", "other", "x", "y", "1", "5"} <= set(texts)

    drawn = [path for path in svg.iter("path") if path.get("class") == "line line-0"]
    at = re.findall(r"([\d.]+) ([\d.]+)", drawn[0].get("d"))
    assert [float(x) for x, _ in at] == pytest.approx([LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT])
    assert [float(y) for _, y in at] == sorted((float(y) for _, y in at), reverse=True)  # more is higher up
    assert float(at[0][1]) == HEIGHT - BOTTOM and float(at[-1][1]) == TOP

    said = [path.find("title").text for path in svg.iter("path") if path.find("title") is not None]
    assert said == ["a<b: 0.5 at 1", "a<b: 0.7 at 3", "a<b: 1 at 5", "other: 0.6 at 1", "other: 0.8 at 5"]
    mark = next(path for path in svg.iter("path") if path.get("class") == "mark")
    assert mark.get("d").startswith(f"M{(LEFT + WIDTH - RIGHT) / 2:.1f} ")


def test_a_forest_plot_draws_intervals_in_proportion_around_no_difference():
    rows = [Difference("a<b", 20.0, 10.0, 30.0, "better"), Difference("other", 0.0, -10.0, 10.0, "no")]
    svg = ElementTree.fromstring(forest_plot("some & more", Quantity("points"), rows))
    intervals = [path.get("d") for path in svg.iter("path") if path.get("class") == "interval"]
    (low, high), (other_low, other_high) = [
        map(float, re.fullmatch(r"M(\S+) \d+H(\S+)", d).groups()) for d in intervals
    ]
    (zero,) = [float(path.get("d")[1:].split()[0]) for path in svg.iter("path") if path.get("class") == "axis"]
    assert (other_low + other_high) / 2 == pytest.approx(zero, abs=0.1) and low == pytest.approx(other_high)
    assert high - low == pytest.approx(other_high - other_low, abs=0.2)
    circles = [float(circle.get("cx")) for circle in svg.iter("circle")]
    assert circles == pytest.approx([(low + high) / 2, zero], abs=0.1)
    assert {"a<b", "20 (10 to 30)", "0 (-10 to 10)"} <= {text.text for text in svg.iter("text")}


def test_a_name_that_leaves_no_room_has_its_numbers_below_it():
    names = ["short", "two captions, neither left out − two captions as one text, added", "short"]
    rows = [Difference(name, 20.0, 10.0, 30.0, "better") for name in names]
    svg = ElementTree.fromstring(forest_plot("some", Quantity("points"), rows))
    heights = [[float(text.get("y")) for text in group.iter("text")] for group in svg.iter("g")]
    assert [name == numbers for name, numbers in heights] == [True, False, True]
    marks = [float(circle.get("cy")) for circle in svg.iter("circle")]
    assert all(max(own) < mark < min(after) for own, mark, after in zip(heights, marks, heights[1:], strict=False))
