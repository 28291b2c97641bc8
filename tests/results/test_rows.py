"""Results are read with their conditions, ranked fairly, and never mixed with oracle rows."""

import pytest

from condmix import CondmixError
from condmix.metrics import significant
from condmix.reporting.tables import comparison, conditioned_on
from condmix.results.rows import (
    Row,
    ceilings,
    columns,
    headline,
    oracles,
    ranked,
    ranking_measure,
    read_metrics,
    short_perspectives,
    through_prior,
    uncertainty,
)
from fake_results import captions_variant, image_variant, project, without


def test_rank_is_by_accuracy_descending_and_ties_share_it():
    means = {"caption": 0.8, "experiment": 0.9, "class_v2": 0.8}
    rows = ranked([captions_variant(name, mean) for name, mean in means.items()])
    assert [(row.rank, row.variant) for row in rows] == [(1, "experiment"), (2, "caption"), (2, "class_v2")]


def test_without_attributes_the_class_ranks_then_the_distance_ascending():
    classes = [without(image_variant(name), "attribute_accuracy_mean") for name in ("class_v1", "class_v2")]
    classes[1]["class_accuracy"] = 0.9
    assert [row.variant for row in ranked(classes)] == ["class_v2", "class_v1"]
    distances = [without(facts, "class_accuracy") for facts in classes]
    for facts, value in zip(distances, (31.0, 30.0), strict=True):
        facts |= {"fid": value, "features": ["judge", "clip", "inception"]}
    assert ranking_measure([Row(facts) for facts in distances]).key == "fid"
    assert [row.variant for row in ranked(distances)] == ["class_v2", "class_v1"]


def test_what_not_all_rows_have_ranks_nothing():
    metrics = [image_variant(), captions_variant()]
    metrics = [without(facts, "attribute_accuracy_mean") for facts in metrics]
    assert ranking_measure([Row(facts) for facts in metrics]).key == "fd_judge"  # only one has class_accuracy
    nothing = [without(facts, "fd_judge", "fd_clip", "class_accuracy") for facts in metrics]
    assert [row.rank for row in ranked(nothing)] == [None, None]


def test_oracle_rows_have_no_rank_and_inherit_conditions_but_no_measurement():
    metrics = [image_variant(), captions_variant()]
    (row,) = oracles(metrics)
    assert row.rank is None and row.condition.is_oracle and row.variant == "class_v1"
    assert row.facts["guidance"] == 3.0 and row.facts["n"] == 500
    assert row.facts["fd_judge"] == 0.777
    assert "class_accuracy" not in row.facts and "fd_clip" not in row.facts  # measured for the prompt only
    assert not any(row.condition.is_oracle for row in ranked(metrics))


def test_a_row_through_the_prior_is_shown_with_its_number_of_pictures_and_never_ranked_or_best():
    facts = image_variant()
    facts["prior"] = {"condition": "prior", "n": 60, "fd_judge": 0.1, "attribute_accuracy_mean": 0.99}
    (row,) = through_prior([facts, captions_variant()])
    assert (row.rank, row.facts["n"], row.facts["guidance"], row.condition) == (None, 60, 3.0, "prior")
    assert conditioned_on(row) == "caption_1 through the prior + class"
    table = comparison([*ranked([facts, captions_variant()]), row])
    assert not any(cell.best for cell in table.lines[-1][2])


def test_a_headline_that_is_an_oracle_is_not_ranked():
    facts = {**without(image_variant(), "oracle"), "condition": "oracle"}
    assert [row.variant for row in ranked([facts, captions_variant()])] == ["caption"]
    assert [row.facts for row in oracles([facts, captions_variant()])] == [facts]


def test_best_marks_the_best_cell_of_each_column():
    worst = captions_variant("class_v2", 0.7) | {"fd_clip": 0.5}
    rows = ranked([captions_variant("caption", 0.8), captions_variant("experiment", 0.9), worst])
    table = comparison(rows)
    best = {table.headings[i] for i, cell in enumerate(table.lines[0][2]) if cell.best}
    assert best == {"named attributes", "shape", "colour", "fd_judge", "fd_clip"}  # fd_clip is a tie
    assert [cell.best for cell in table.lines[1][2]] == [heading == "fd_clip" for heading in table.headings]
    assert comparison(rows[:2]).same == ["fd_clip 0.0222"]  # of two that are equal in it, neither is the best
    assert not any(cell.best for _, _, cells in comparison(rows[:1]).lines for cell in cells)


def test_ceiling_of_the_mean_is_the_mean_of_the_judge():
    rows = [Row(captions_variant())]
    own = ceilings(rows, columns(rows))
    assert own["attribute_accuracy.shape"] == 0.9811
    assert own["attribute_accuracy_mean"] == pytest.approx((0.9811 + 0.9933) / 2)


def test_the_condition_names_what_stood_in_the_images_place():
    facts = image_variant()
    assert conditioned_on(Row(facts)) == "caption_1 as prompt + class"
    assert conditioned_on(oracles([facts])[0]) == "the real picture + class"
    assert (
        conditioned_on(Row(captions_variant(perspectives=("class", "caption_1", "caption_2")))) == "class + caption_1-2"
    )


@pytest.mark.parametrize(
    "names, text",
    [
        (["caption_1"], "caption_1"),
        (["caption_1", "caption_2", "caption_3"], "caption_1-3"),
        (["caption_2", "caption_1"], "caption_2 + caption_1"),
        (["image", "class"], "image + class"),
        (["caption_1", "t5_2", "t5_3"], "caption_1 + t5_2-3"),
        ([], ""),
    ],
)
def test_short_perspectives(names, text):
    assert short_perspectives(names) == text


@pytest.mark.parametrize(
    "value, text",
    [(0.0222, "0.0222"), (2.999, "3.00"), (31.24, "31.2"), (1234.6, "1,235"), (0.0, "0"), (9.999, "10.0")],
)
def test_significant(value, text):
    assert significant(value) == text


def test_uncertainty_is_wilsons():
    # the roots of (p - q)^2 = z^2 q (1 - q) / n are the interval's ends
    p, n, z = 0.9, 100, 1.959964
    a, b, c = 1 + z * z / n, -(2 * p + z * z / n), p * p
    assert uncertainty(p, n) == pytest.approx((b * b - 4 * a * c) ** 0.5 / (2 * a))
    assert uncertainty(1.0, 50) > 0


def test_measures_are_what_the_rows_have_in_a_fixed_order():
    facts = {**image_variant(), "fid": 30.0, "fd_another": 1.0, "features": ["judge", "clip", "another", "inception"]}
    keys = [measure.key for measure in headline([Row(facts)])]
    assert keys == ["attribute_accuracy_mean", "fid", "fd_judge", "fd_another", "fd_clip"]  # the class is an attribute
    keys = [measure.key for measure in headline([Row(without(facts, "attribute_accuracy_mean"))])]
    assert keys == ["class_accuracy", "fid", "fd_judge", "fd_another", "fd_clip"]


def test_metrics_of_another_profile_are_refused(tmp_path):
    params = project(tmp_path, captions_variant())
    params.profile = "coco"
    with pytest.raises(CondmixError, match='under profile "demo", but params.yaml says "coco": run dvc repro'):
        read_metrics(params)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attribute_accuracy": [0.5]},
        {"attribute_accuracy": "0.5"},
        {"attribute_accuracy": {"shape": "0.5"}},
        {"attribute_accuracy_unnamed": 0.5},
        {"attribute_accuracy_by_caption": {"both": 0.5}},
        {"fd_judge": "12"},
        {"fd_judge": None},
        {"attribute_accuracy": None},
        {"fd_judge_interval": [1, "2"]},
        {"scene_accuracy": True},
        {"oracle": {"attribute_accuracy": [0.5]}},
        {"sweep": [{"guidance": 1.0, "fd_judge": []}]},
        {"shuffled": {"n": 3, "attribute_accuracy": {"shape": None}}},
    ],
    ids=str,
)
def test_a_measure_that_is_no_number_is_refused(tmp_path, wrong):
    params = project(tmp_path, captions_variant("caption") | wrong)
    with pytest.raises(CondmixError, match=r"caption\.json is damaged .* run dvc repro evaluate@caption"):
        read_metrics(params)
