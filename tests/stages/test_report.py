"""The page shows the numbers and pictures that were measured, and loads nothing."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from condmix import CondmixError
from condmix.files.artifacts import write_checked_json
from condmix.results.details import Details
from condmix.results.rows import read_metrics
from condmix.stages.report import fact_tables, main, run_facts, scenes, smoothed, thousands
from condmix.tracking.runs import environment
from fake_results import CARD, captions_variant, change_card, image_variant, project, without
from html_page import Page, runs_our_script_alone


def render(params):
    main(params)
    return (params.paths.report / "index.html").read_text(encoding="utf-8")


def test_the_numbers_are_the_jsons(tmp_path):
    first, second = image_variant(), captions_variant()
    page = Page(render(project(tmp_path, first, second)))
    for facts in (first, second):
        numbers = [facts["fd_judge"], facts["attribute_accuracy_mean"]]
        assert {*numbers, *facts["attribute_accuracy"].values()} <= set(page.values["comparison"])
        assert {*facts["attribute_accuracy_unnamed"].values()} <= set(page.values["unnamed"])
    assert {0.9811, 0.9933} <= set(page.values["comparison"])
    assert "84.3%" in page.text["comparison"] and "0.0222" in page.text["comparison"]
    assert "guidance 3, ddim in 12 steps" in " ".join(page.text["comparison"].split())


def test_oracle_rows_stand_apart_from_the_ranking(tmp_path):
    page = Page(render(project(tmp_path, image_variant(), captions_variant())))
    assert set(image_variant()["oracle"]["attribute_accuracy"].values()) <= set(page.values["oracle"])
    assert not {0.777, 0.9765, 0.9876} & set(page.values["comparison"])
    assert "1. caption" in page.text["comparison"] and "2. class_v1" in page.text["comparison"]
    assert not re.search(r"\d\. class_v1", page.text["oracle"])


def test_captions_are_escaped(tmp_path):
    nasty = ("</li><script>alert(1)</script>", 'a "quoted" & <img src=x> ring')
    html = render(project(tmp_path, captions_variant(), captions=nasty))
    assert "<script>alert" not in html and "<img src=x" not in html
    assert set(nasty) <= {caption.strip() for caption in Page(html).captions}


def test_the_page_loads_nothing(tmp_path):
    html = render(project(tmp_path, image_variant(), captions_variant()))
    runs_our_script_alone(html)
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "video", "audio", "base", "form"}
        for name in ("src", "srcset", "action", "xlink:href"):
            assert attributes.get(name, "data:").startswith("data:")


def test_links_lead_to_the_page_itself_its_files_and_the_pages_of_grids(tmp_path):
    params = project(tmp_path, image_variant(), captions_variant())
    (params.paths.metrics / "experiments" / "some").mkdir(parents=True)
    (params.paths.metrics / "experiments" / "some" / "index.html").touch()
    page = Page(render(params))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= {made.get("id") for _, made in page.tags}
    files = [link for link in links if not link.startswith("#")]
    assert files == ["../class_v1.json", "../caption.json", "../experiments/some/index.html"]
    assert all((params.paths.report / link).exists() for link in files)


def test_the_page_begins_with_the_answer_and_one_strip_of_pictures_for_each_variant(tmp_path):
    params = project(tmp_path, image_variant(), captions_variant(), scenes=3)
    page = Page(render(params))
    start = " ".join(page.text[""].split())
    assert "Highest mean accuracy of named attributes: caption (caption_1) 93.0%; class_v1 (caption_1 as" in start
    assert "class_v1a fixed reference; sees image + class; fusion additive (their sum); here it was shown" in start
    strips = [pixels(image) for tag, image in page.tags if tag == "img"][:3]
    for shown, name in zip(strips, ["class_v1/real", "caption/captions", "class_v1/prompt"], strict=True):
        array = np.load(params.paths.details(name).with_suffix(".npy"))
        assert np.array_equal(shown[:, : array.shape[2]], array[0])
        assert np.array_equal(shown[:, -array.shape[2] :], array[2])


def test_each_term_is_explained_where_it_first_stands(tmp_path):
    with_fid = {
        **captions_variant("experiment", perspectives=("caption_1", "caption_2")),
        "fid": 12.3,
        "fusion": "concat",
    }
    features = {"features": ["inception", "judge", "clip"]}
    variants = [{**variant, **features} for variant in (image_variant(), image_variant("class_v2"), captions_variant())]
    page = Page(render(project(tmp_path, *variants, {**with_fid, **features})))
    start = " ".join(page.text[""].split())
    answer, _, rest = start.partition("each variant is one trained diffusion model")
    assert answer.endswith("class_v1, class_v2, caption, experiment: ")  # which the first sentence names
    words = ["perspectives:", "CLIP, a pair of networks", "A prompt is", "A fusion merges", "class_v1a fixed reference",
             "class_v2a fixed reference: class_v1 without its dense layer", "fusion concat (one behind the other",
             "Guidancehow far", "Oraclea model that was shown", "FIDhow far",
             "Distancefd_judge, fd_clip: how far"]  # fmt: skip
    places = [rest.find(word) for word in words]
    assert -1 not in places and places == sorted(places)
    for name in ("Guidance", "Oracle rows", "CLIP and judge"):  # of the list of sections
        assert places[-1] < rest.index(f" {name} ")


def test_what_a_page_does_not_have_it_does_not_explain(tmp_path):
    start = Page(render(project(tmp_path, captions_variant()))).text[""]
    assert "Oracle" not in start and "FIDhow" not in start and "A prompt is" not in start


def test_a_measure_that_tells_no_row_from_another_is_said_once(tmp_path):
    page = Page(render(project(tmp_path, image_variant(), captions_variant())))
    assert "fd_clip" not in page.text["comparison"].split("The same in every row")[0]
    assert "The same in every row: fd_clip 0.0222." in " ".join(page.text["comparison"].split())


def test_no_head_of_a_table_is_empty(tmp_path):
    html = render(project(tmp_path, image_variant(), captions_variant()))
    assert "<th></th>" not in html and '<th scope="col"></th>' not in html


def pixels(image):
    """The array of an <img>'s data URI."""
    return np.array(Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))))


def test_pictures_are_the_arrays_pixel_for_pixel(tmp_path):
    params = project(tmp_path, image_variant(), captions_variant(), scenes=2)
    images = [attributes for tag, attributes in Page(render(params)).tags if tag == "img"][3:]  # without the strips
    shown = list(map(pixels, images))
    files = ["class_v1/real", "class_v1/prompt", "caption/captions", "class_v1/oracle"]
    arrays = [np.load(params.paths.details(file).with_suffix(".npy")) for file in files]
    expected = [array[scene] for scene in range(2) for array in arrays]
    assert len(shown) == len(expected) and all(map(np.array_equal, shown, expected))
    assert images[3]["alt"] == "class_v1 oracle, conditioned on the real picture + class"


def test_a_class_that_conditions_is_not_taken_for_a_caption(tmp_path):
    params = project(tmp_path, image_variant(), scenes=1)
    path = params.paths.details("class_v1") / "details.json"
    details = json.loads(path.read_text())
    details["samples"][0] |= {"class": "ring", "condition_captions": ["a red ring", "ring"]}
    change_card(path, details)
    (scene,) = scenes([Details.read(params, read_metrics(params)[0])])
    assert scene["class"] == "ring" and [text for text, used in scene["captions"] if used] == ["a red ring"]


def test_scenes_mark_what_conditioned_and_keep_generated_captions_apart(tmp_path):
    params = project(tmp_path, captions_variant(), scenes=1)
    path = params.paths.details("caption") / "details.json"
    details = json.loads(path.read_text())
    details["samples"][0]["condition_captions"] = ["a red ring", "words of its own"]
    change_card(path, details)
    (scene,) = scenes([Details.read(params, read_metrics(params)[0])])
    assert [caption for caption, used in scene["captions"] if used] == ["a red ring"]
    assert len(scene["captions"]) == 2 and scene["generated"] == ["words of its own"]
    assert scene["seed"] == "70"
    assert 'generated: <span class="used">words of its own</span>' in render(params)


def test_data_without_attributes_classes_or_sweep(tmp_path):
    facts = without(captions_variant(), "attribute_accuracy", "attribute_accuracy_mean", "attribute_n", "fd_judge",
                    "attribute_accuracy_unnamed", "judge_accuracy", "judge_accuracy_n", "sweep")  # fmt: skip
    page = Page(render(project(tmp_path, {**facts, "fid": 41.236, "features": ["inception", "clip"]})))
    assert page.values["comparison"] == [41.236, 0.0222]
    assert {"oracle", "unnamed", "guidance"}.isdisjoint(page.text)
    assert "InceptionV3" in page.text["comparison"] and "the judge itself" not in page.text["comparison"]


def test_nothing_but_oracles(tmp_path):
    facts = {**without(image_variant(), "oracle"), "condition": "oracle"}
    page = Page(render(project(tmp_path, facts)))
    assert "comparison" not in page.text and facts["fd_judge"] in page.values["oracle"]
    images = [image["alt"] for tag, image in page.tags if tag == "img"]
    assert images[1] == "class_v1 oracle, conditioned on the real picture + class"


def test_a_class_profile_has_the_judge_as_ceiling(tmp_path):
    facts = without(image_variant(), "attribute_accuracy", "attribute_accuracy_mean", "attribute_accuracy_unnamed")
    page = Page(render(project(tmp_path, {**facts, "judge_accuracy": {"class": 0.8345}})))
    assert {0.8123, 0.8345} <= set(page.values["comparison"]) and "83.5%" in page.text["comparison"]


def test_stage_metrics_are_shown(tmp_path):
    params = project(tmp_path, captions_variant())
    text = Page(render(params)).text["instruments"]
    assert "0.912" in text and "probe" in text and "n 2,000" in text


def test_metrics_of_another_judge_are_refused(tmp_path):
    params = project(tmp_path, captions_variant())
    path = params.paths.metrics / "judge.json"
    write_checked_json(path, {"accuracy": {"shape": 0.5, "colour": 0.5}})
    with pytest.raises(CondmixError, match="judge.json is of another judge than .*caption.json: run dvc repro"):
        render(params)
    path.unlink()
    with pytest.raises(CondmixError, match="judge.json is missing: run dvc repro judge"):
        render(params)


def test_fact_tables_join_groups_of_the_same_columns():
    shown = fact_tables({"a": {"x": 0.5, "y": 1}, "b": {"c": {"x": 2, "y": 3000}}, "d": {"z": 1}, "seed_used": 7})
    assert shown["tables"] == {("x", "y"): {"a": ["0.500", "1"], "b.c": ["2", "3,000"]}, ("z",): {"d": ["1"]}}
    assert shown["single"] == {"seed used": "7"}


def test_run_facts_are_said_once_where_all_agree(tmp_path):
    params = project(tmp_path, image_variant(), captions_variant())
    facts = dict(run_facts([Details.read(params, metrics) for metrics in read_metrics(params)]))
    assert facts["data sha256"] == [CARD["dataset_sha256"]] and facts["parameters"] == ["1,512,345"]
    assert facts["perspectives"] == ["image + class", "caption_1"]
    assert facts["MLflow run"] == ["not tracked"]


def test_everything_that_is_known_of_the_machine_stands_on_the_page(tmp_path):
    params, made = project(tmp_path, captions_variant()), environment("fp32")
    made = {key: f"<{key}> of the machine" for key in made} | {"gpus": ["a GPU", "another"]}
    change_card(params.paths.details("caption") / "details.json", {"card": CARD | {"environment": made}})
    text = " ".join(Page(render(params)).text["ran"].split())
    assert not [value for key, value in made.items() if key != "gpus" and value not in text]
    assert "a GPU and another" in text


def test_a_bare_card_still_gives_a_page(tmp_path):
    params = project(tmp_path, captions_variant())
    path = params.paths.details("caption") / "details.json"
    change_card(path, {"card": {}})
    assert "unknown CPU" in render(params)


def test_smoothing_keeps_the_mean_and_short_curves():
    points = [(float(k), float(k * k)) for k in range(600)]
    short = smoothed(points, 100)
    assert len(short) == 100 and np.mean(short, axis=0) == pytest.approx(np.mean(points, axis=0))
    assert smoothed(points[:5], 100) == points[:5] and smoothed([], 100) == []


def test_thousands():
    assert [thousands(v) for v in (0, 500, 20000, 1_500_000)] == ["0", "500", "20k", "1.5M"]


def test_details_of_another_evaluation_are_refused(tmp_path):
    params = project(tmp_path, captions_variant())
    change_card(params.paths.metrics / "caption.json", {"fd_judge": 9.0})
    with pytest.raises(CondmixError, match="of another evaluation than .*evaluate@caption"):
        main(params)


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("", "caption.csv is damaged .*run dvc repro train@caption"),
        ("images,loss\n64,low\n", "caption.csv is damaged .*run dvc repro train@caption"),
    ],
)
def test_a_damaged_file_ends_in_a_sentence_and_leaves_the_old_page(tmp_path, content, sentence):
    params = project(tmp_path, captions_variant())
    before = render(params)
    (tmp_path / "metrics/losses/caption.csv").write_text(content)
    with pytest.raises(CondmixError, match=sentence):
        main(params)
    assert (params.paths.report / "index.html").read_text() == before
    assert [path.name for path in params.paths.report.iterdir()] == ["index.html"]


def test_the_wrong_number_of_pictures_is_refused(tmp_path):
    params = project(tmp_path, captions_variant())
    np.save(params.paths.details("caption") / "captions.npy", np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(CondmixError, match=r"uint8 of shape \(2, 16, 16, 3\), not uint8 of shape \(3,"):
        main(params)
