"""The page of a grid finds planted differences, finds none where there is none, and never ranks an oracle."""

import csv
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from condmix import CondmixError
from condmix.evaluation.conditions import Change, Kind
from condmix.experiments.evidence import Origin, without_data
from condmix.experiments.findings import Evidence, slot, write_tables
from condmix.experiments.findings import Test as Comparison
from condmix.experiments.grid import Grid
from condmix.experiments.statistics import compare
from condmix.reporting.grid_page import best_guidance, changed_rows, forests, machines, p_text, write_page
from html_page import Page, runs_our_script_alone

NAMES = ("shape", "colour", "size", "position", "background")
N, SHOWN, SIDE = 150, 10, 16
EXPERIMENTS = {
    "one_caption": ("one caption", ["caption_1"], "concat", None),
    "two_captions_concat": ("two captions", ["caption_1", "caption_2"], "concat", None),
    "two_captions_mean": ("two captions", ["caption_1", "caption_2"], "mean", None),
    "caption_image": ("a caption and the picture", ["caption_1", "image"], "concat", None),
    "same_twice": ("the same <caption> twice", ["caption_1", "caption_1_again"], "concat", "does a second view help?"),
}  # fmt: skip
CHANCE = {"one_caption": 0.70, "two_captions_concat": 0.82, "two_captions_mean": 0.70, "caption_image": 0.71,
          "same_twice": 0.70}  # fmt: skip


def make_grid(seeds=(0, 1, 2), names=tuple(EXPERIMENTS), **changes):
    experiments = {
        name: {"says": says, "perspectives": p, "fusion": fusion, "control": control, **changes.get(name, {})}
        for name, (says, p, fusion, control) in EXPERIMENTS.items()
        if name in names
    }
    facts = {"name": "tiny", "profile": "demo", "baseline": "one_caption", "seeds": seeds}
    return Grid.model_validate({**facts, "experiments": experiments})


def metrics_of(name, seed, right, perspectives, fusion, condition):
    """metrics/experiment.json of a run whose pictures are right as `right` says."""
    share, bump = float(right.mean()), 0.01 * seed
    facts = {
        "variant": "experiment", "profile": "demo", "fusion": fusion, "perspectives": perspectives,
        "condition": condition, "guidance": 3.0, "sampler": "dpmpp_2m", "steps": 10, "n": N, "seed": seed,
        "split": "test", "features": ["judge", "clip"], "ema": 0.995, "commit": "abc123",
        "reference": {"split": "test", "n": 2000}, "scene_accuracy": share, "attribute_accuracy_mean": share + 0.1,
        "fd_judge": 20 * (1 - share) + bump, "fd_judge_interval": [3.0, 4.5], "kid_judge": 0.0123 + bump,
        "precision_judge": 0.71, "recall_judge": 0.52, "fd_clip": 40.0 + bump, "mmd_clip": 1.23,
        "nearest_training": {"p5": 0.11 + bump, "p5_of_real": 0.04},
        "attribute_accuracy_by_caption": {
            group: {a: min(1, max(0, share + 0.02 * i - 0.2 * k)) for i, a in enumerate(NAMES)}
            for k, group in enumerate(("caption_1 only", "caption_2 only", "both", "neither"))
        },
        "sweep": [{"guidance": s, "n": 50, "attribute_accuracy_mean": share + 0.02 * s, "fd_judge": 9 + s - share,
                   "scene_accuracy": share - 0.1 / s} for s in (1.0, 2.0, 3.0, 5.0)],
        "sweep_of": "others", "unchanged": {"fd_judge": 4.0, "n": 50, "guidance": 3.0},
        "without": {
            p: {"scene_accuracy": share - 0.05, "fd_judge": 9.0, "n": N, "guidance": 3.0} for p in perspectives
        },
        "wrong": {
            p: {"scene_accuracy": share - 0.25, "fd_judge": 11.0, "n": N, "guidance": 3.0} for p in perspectives
        },
        "shuffled": {"scene_accuracy": 0.31, "fd_judge": 5.0, "n": 50, "guidance": 3.0},
    }  # fmt: skip
    if condition == "prompt":
        facts["oracle"] = {"condition": "oracle", "scene_accuracy": 0.987, "fd_judge": 0.321, "guidance": 3.0, "n": N}
    return facts


def finished_run(root, name, seed, chance=None, condition=None, ids=None):
    """One run whose attributes are right with a probability that depends on the experiment and on the picture."""
    _, perspectives, fusion, _ = EXPERIMENTS[name]
    condition = condition or ("prompt" if "image" in perspectives else "captions")
    hard = np.random.default_rng(0).normal(0, 0.1, (N, 1))  # the same pictures are hard for all
    random = np.random.default_rng([seed, sorted(EXPERIMENTS).index(name)])
    right = random.random((N, 5)) < (CHANCE[name] if chance is None else chance) + hard
    folder = root / f"{name}-{seed}"
    folder.mkdir(parents=True)
    mentions = np.random.default_rng(1).random((N, 5, 5)) < 0.6
    ids = np.arange(100, 100 + N) if ids is None else ids
    arrays = {"ids": ids, "right": right, "named": mentions[:, 0], "mentions": mentions, "attribute_names": NAMES}
    blind, misled = right.copy(), right.copy()
    blind[:, 0] = misled[:, :3] = False  # what it gets wrong without its first caption, and with another picture's
    arrays |= {"right without caption_1": blind, "right wrong caption_1": misled, "right shuffled": right[:50] & False}
    np.savez(folder / "pictures.npz", **arrays)
    facts = metrics_of(name, seed, right, perspectives, fusion, condition)
    captions = ["a big red ring", "a <b>thing</b> in the upper left", "navy backdrop", "a ring & more", "large"]
    samples = [
        {"id": 100 + i, "captions": captions, "condition_captions": captions[: len(perspectives)], "class": "ring",
         "seed": 7 + seed} for i in range(SHOWN)
    ]  # fmt: skip
    details = {"metrics": facts, "card": {"parameters": 1_200_707, "images_seen": 11_200, "seconds": 73.2}}
    (folder / "details.json").write_text(json.dumps({**details, "samples": samples}))
    for kind in ["real", condition, *(["oracle"] if "oracle" in facts else [])]:
        shade = {"real": 30, "oracle": 200}.get(kind, 60 + 10 * sorted(EXPERIMENTS).index(name))
        np.save(folder / f"{kind}.npy", np.full((SHOWN, SIDE, SIDE, 3), shade, np.uint8))
    return SimpleNamespace(
        experiment=name, seed=seed, metrics=facts, folder=folder, origin=Origin("abc123", {"a": "1"})
    )


def all_runs(root, grid):
    return [finished_run(root, name, seed) for name in grid.experiments for seed in grid.seeds]


def rendered(tmp_path, grid, runs):
    evidence = Evidence(grid, runs)
    write_tables(evidence, tmp_path / "out")
    write_page(evidence, tmp_path / "out")
    return (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_planted_difference_is_found_and_none_where_there_is_none(tmp_path):
    grid = make_grid()
    page = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid)))
    summary = {row["experiment"]: row for row in rows_of(tmp_path / "out" / "summary.csv")}
    best = summary["two_captions_concat"]
    assert best["scene_verdict"] == "better" and best["rank"] == "1"
    assert float(best["scene_difference_low"]) < 0.12 < float(best["scene_difference_high"])
    assert summary["two_captions_mean"]["scene_verdict"] == "no difference found"
    assert summary["one_caption"]["scene_verdict"] == ""
    answer = " ".join(page.text["answer"].split())
    assert re.search(r"With two captions \(concat\), the pictures show 1\d\.\d points more of the scene", answer)
    assert f"3 seeds × {N} conditions" in answer and "8 comparisons were made" in answer
    assert "1. two captions concat" in page.text["ranking"]


def test_p_values_are_adjusted_together(tmp_path):
    grid = make_grid()
    rendered(tmp_path, grid, all_runs(tmp_path, grid))
    comparisons = json.loads((tmp_path / "out" / "results.json").read_text())["comparisons"]
    smallest = min(comparisons, key=lambda c: c["p"])
    assert len(comparisons) == 8 and smallest["adjusted_p"] == pytest.approx(8 * smallest["p"])


def test_the_first_caption_asks_all_experiments_the_same(tmp_path):
    grid = make_grid(seeds=[0])
    runs = all_runs(tmp_path, grid)
    evidence = Evidence(grid, runs)
    with np.load(runs[1].folder / "pictures.npz") as file:
        right, first = file["right"], file["mentions"][:, 0]
    shares = [right[i, first[i]].mean() for i in range(N) if first[i].any()]
    assert evidence.share("two_captions_concat", "first_caption") == pytest.approx(np.mean(shares))


def test_oracles_and_controls_are_never_ranked(tmp_path):
    grid = make_grid()
    runs = [run for run in all_runs(tmp_path / "a", grid) if run.experiment != "caption_image"]
    runs += [finished_run(tmp_path / "b", "caption_image", s, chance=0.99, condition="oracle") for s in grid.seeds]
    page = Page(rendered(tmp_path, grid, runs))
    assert "caption image" in page.text["oracle"] and "caption image" not in page.text["ranking"]
    assert re.search(r"(?<!\d\. )same twice", page.text["ranking"]) and "not ranked" in page.text["ranking"]
    assert not re.search(r"\d\. same twice", page.text["ranking"])
    summary = {row["experiment"]: row for row in rows_of(tmp_path / "out" / "summary.csv")}
    assert summary["caption_image"]["rank"] == summary["same_twice"]["rank"] == ""
    assert "scene_verdict" in summary["caption_image"] and summary["caption_image"]["scene_verdict"] == ""
    assert not any("caption_image" in (t.experiment, t.against) for t in Evidence(grid, runs).tests)


def test_an_oracle_row_beside_a_prompt_stands_apart_too(tmp_path):
    grid = make_grid()
    page = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid)))
    assert "98.7%" in page.text["oracle"] and "98.7%" not in page.text["ranking"]
    assert "caption image" in page.text["ranking"]


def test_controls_are_answered_in_a_sentence(tmp_path):
    grid = make_grid(seeds=range(5), same_twice={"against": "two_captions_concat"})
    text = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid))).text["controls"]
    assert "same twice: does a second view help?" in text
    assert re.search(r"points less of\s+the scene than with two captions \(concat\)", text)


def test_a_control_that_is_not_found_worse_stands_in_the_answer_and_one_that_is_ahead_leads_it(tmp_path):
    grid = make_grid(seeds=range(5), same_twice={"against": "two_captions_concat"})
    gain, control = "With two captions (concat), the pictures show", "the same <caption> twice (concat)"

    def answer(folder, chance):
        runs = [
            finished_run(folder, name, seed, chance=chance if name == "same_twice" else None)
            for name in grid.experiments
            for seed in grid.seeds
        ]
        return " ".join(Page(rendered(folder, grid, runs)).text["answer"].split())

    ahead = answer(tmp_path / "ahead", 1.0)
    assert ahead.startswith(f"With {control}, the pictures show") and gain in ahead
    alike = answer(tmp_path / "alike", CHANCE["two_captions_concat"])
    assert f"Between {control} and two captions (concat) no difference was found" in alike and gain in alike
    worse = answer(tmp_path / "worse", None)
    assert worse.startswith(gain) and control not in worse.split("Of 2 experiments")[0]


def test_an_experiment_may_be_compared_with_several(tmp_path):
    further = {"also_against": ("two_captions_concat",)}
    grid = make_grid(seeds=range(5), same_twice=further, two_captions_mean=further)
    runs = all_runs(tmp_path, grid)
    page, evidence = Page(rendered(tmp_path, grid, runs)), Evidence(grid, runs)
    assert [t.against for t in evidence.tests if t.experiment == "same_twice"] == [
        *["one_caption"] * 2,
        *["two_captions_concat"] * 2,
    ]
    assert evidence.test("two_captions_mean", "scene").against == "one_caption"
    than = r"With {}, the pictures show \d+\.\d points less of\s+the scene than with two captions \(concat\)"
    assert re.search(than.format(r"two captions \(mean\)"), page.text["ranking"])
    assert re.search(than.format(r"the same <caption> twice \(concat\)"), page.text["controls"])
    assert "12 comparisons were made" in " ".join(page.text["answer"].split())


def test_a_p_that_is_a_bound_is_said_to_be_one():
    first, second = np.ones((2, 30)), np.zeros((2, 30))  # two seeds that agree in everything
    result = compare(first, second, seed=0)
    test = Comparison("two_captions_concat", "one_caption", "scene", result, 4e-4, at_most=True)
    assert test.result.p == 2 / 10_001 and test.result.at_most
    assert p_text(test) == "p at most 0.00040" and p_text(replace(test, at_most=False)) == "p 0.00040"


def test_a_partial_grid_says_what_is_missing_and_pairs_what_is_there(tmp_path):
    grid = make_grid()
    gone = {("two_captions_concat", 2), ("two_captions_mean", 0), ("two_captions_mean", 1), ("two_captions_mean", 2)}
    runs = [run for run in all_runs(tmp_path, grid) if (run.experiment, run.seed) not in gone]
    text = " ".join(Page(rendered(tmp_path, grid, runs)).text["answer"].split())
    assert "11 of 15 runs have finished" in text
    assert "two captions concat (seed 2), two captions mean (seeds 0, 1, 2)." in text
    test = Evidence(grid, runs).test("two_captions_concat", "scene")
    assert test.result.seeds == 2
    listed = json.loads((tmp_path / "out" / "results.json").read_text())["missing"]
    assert {(m["experiment"], m["seed"]) for m in listed} == gone


def test_without_the_baseline_nothing_is_compared(tmp_path):
    grid = make_grid()
    runs = [run for run in all_runs(tmp_path, grid) if run.experiment != "one_caption"]
    assert "Nothing can be compared yet" in rendered(tmp_path, grid, runs)


def test_one_seed_is_said_to_be_one(tmp_path):
    grid = make_grid(seeds=[4])
    page = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid)))
    assert "conditions only, as there is one seed" in " ".join(page.text["ranking"].split())
    answer = " ".join(page.text["answer"].split())
    assert re.search(r"In one training of each, .* over 150 conditions\). Other seeds may say otherwise: no", answer)
    assert "there is one seed" in page.text["limits"] and "comparisons were made" not in answer
    assert "no p from one seed" in page.text["ranking"]
    listed = json.loads((tmp_path / "out" / "results.json").read_text())["comparisons"]
    assert {(one["p"], one["adjusted_p"], one["verdict"]) for one in listed} == {(None, None, "one seed")}


def test_another_judge_s_opinion_stands_beside_the_first_one_s(tmp_path):
    grid = make_grid(names=("one_caption", "two_captions_concat"))
    runs = all_runs(tmp_path, grid)
    differences = []
    for run in runs:
        share = 0.5 + 0.01 * run.seed + (0.03 + 0.01 * run.seed) * (run.experiment != "one_caption")
        run.metrics["scene_accuracy_probe"] = share
        details = json.loads((run.folder / "details.json").read_text())
        (run.folder / "details.json").write_text(json.dumps(details | {"metrics": run.metrics}))
        differences += [0.03 + 0.01 * run.seed] * (run.experiment != "one_caption")
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    answer = " ".join(Page(rendered(tmp_path, grid, runs)).text["answer"].split())
    said = f"Another judge (scene, by the probe) sees a difference of +{100 * np.mean(differences):.1f} points"
    assert f"{said} (95% interval {100 * low:.1f} to {100 * high:.1f} over 3 seeds)." in answer


def test_photographs_are_judged_by_captions_that_no_experiment_was_told(tmp_path):
    """No attributes, no classes: two captions make the pictures fit the others better, a second one is just told."""
    grid = make_grid(names=("one_caption", "two_captions_concat", "two_captions_mean"))
    runs = all_runs(tmp_path, grid)
    hard = np.random.default_rng(0).normal(0, 0.1, (N, 1))
    for run in runs:
        random = np.random.default_rng([run.seed, sorted(EXPERIMENTS).index(run.experiment)])
        gain = 0.2 * (run.experiment == "two_captions_concat")
        ranks = np.clip(0.6 + gain + hard + random.normal(0, 0.1, (N, 5)), 0, 1)
        told = np.zeros((N, 5), bool)
        told[:, : len(EXPERIMENTS[run.experiment][1])] = True
        ranks[:, 0], ranks[told] = np.nan, 1.0  # what was told would be a cheap success; some lack a caption
        nothing = np.zeros((N, 0), bool)
        arrays = {"right": nothing, "mentions": nothing[:, :, None], "attribute_names": np.array([], str)}
        np.savez(run.folder / "pictures.npz", ids=np.arange(N), caption_ranks=ranks, told=told, **arrays)
        run.metrics.update({"features": ["inception"], "fid": 12.5})
        for key in [key for key in run.metrics if key.startswith(("attribute", "scene", "fd_", "kid"))]:
            del run.metrics[key]
    evidence = Evidence(grid, runs)
    assert evidence.questions == ["held_out"] and evidence.distance.key == "fid"
    assert [name for _, name in evidence.ranked()][0] == "two_captions_concat"
    test = evidence.test("two_captions_concat", "held_out")
    assert test.verdict == "better" and test.result.difference == pytest.approx(0.2, abs=0.02)
    assert evidence.test("two_captions_mean", "held_out").verdict == "no difference found"
    page = rendered(tmp_path, grid, runs)
    assert "captions that conditioned no experiment" in page and "first caption</th>" not in page


def test_the_page_says_which_runs_were_made_under_other_conditions(tmp_path):
    grid = make_grid(names=("one_caption", "two_captions_concat"))
    runs = all_runs(tmp_path, grid)
    environment = {"cpu": "a processor", "precision": "fp32", "threads": 2, "processes": 1, "torch": "2.15.0"}
    environment |= {"kernels": "condmix"}
    for run in runs:
        other = (run.experiment, run.seed) == ("one_caption", 1)
        set_environment(run, {**environment, **({"precision": "bf16"} if other else {})})
    found = dict(machines(Evidence(grid, runs)))
    assert found["arithmetic, training"] == "bf16 in one caption (seed 1); fp32 in the others"
    assert found["processor, training"] == "a processor" and found["threads of each process, training"] == "2"
    assert found["CPU kernels, training"] == "condmix"
    assert "bf16 in one caption (seed 1)" in Page(rendered(tmp_path, grid, runs)).text["conditions"]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [run["environment"]["precision"] for run in results["runs"]].count("bf16") == 1


def by_other_code(root, name, seed, **what):
    run = finished_run(root, name, seed, **what)
    run.origin = Origin("0ld", {"a": "2"}, current=False, changed=("a",), unknown=("evaluate.more",))
    return run


def test_a_difference_is_between_runs_of_the_same_code(tmp_path):
    grid = make_grid(seeds=range(5), names=("one_caption", "two_captions_concat"))
    new, old = tmp_path / "new", tmp_path / "old"
    runs = [finished_run(new, "two_captions_concat", seed) for seed in (0, 1, 2)]
    runs += [by_other_code(old, "two_captions_concat", seed, chance=0.1) for seed in (1, 3)]
    runs += [finished_run(new, "one_caption", seed) for seed in (0, 3)]
    runs += [by_other_code(old, "one_caption", seed) for seed in (0, 1, 4)]
    evidence = Evidence(grid, runs)
    # seed 0 has both by the present code, 1 both by the other; 3 has one of each, 2 and 4 one side alone
    pairs = evidence.pairs("two_captions_concat", "one_caption")
    found = [(one.seed, one.origin.commit, other.origin.commit) for one, other in pairs]
    assert found == [(0, "abc123", "abc123"), (1, "0ld", "0ld")]
    test = evidence.test("two_captions_concat", "scene")
    assert test.result.by_seed[0] > 0 > test.result.by_seed[1]  # the pairs' own runs, not those that are shown
    assert test.unpaired == (3,) and test.commits == ("abc123", "0ld")
    assert [run.origin.current for run in evidence.of("two_captions_concat")] == [True, True, True, False]

    page = Page(rendered(tmp_path, grid, runs))
    assert "3 of the 8 finished runs were made by another version" in " ".join(page.text["answer"].split())
    code = " ".join(page.text["code"].split())
    assert "two captions concat (seeds 1, 3); one caption (seeds 0, 1, 4) differs in a" in code
    assert "only one of the two knows the setting evaluate.more" in code and "the same" in code
    assert "seed 3 left out: different code or judges" in page.text["answer"]
    rows = {(row["experiment"], row["seed"]): row for row in rows_of(tmp_path / "out" / "results.csv")}
    assert rows["one_caption", "4"]["commit"] == "0ld" and rows["one_caption", "4"]["present_code"] == "False"
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["comparisons"][0]["commits"] == ["abc123", "0ld"]
    assert found["comparisons"][0]["seeds_by_different_code"] == [3]
    assert {run["origin"]["present_code"] for run in found["runs"]} == {True, False}


def test_what_no_code_made_both_sides_of_is_not_compared(tmp_path):
    grid = make_grid(seeds=[0, 1], names=("one_caption", "two_captions_concat"))
    runs = [finished_run(tmp_path, "two_captions_concat", 0), by_other_code(tmp_path, "one_caption", 0)]
    evidence = Evidence(grid, runs)
    assert not evidence.tests and evidence.uncompared == [("two_captions_concat", "one_caption")]
    text = " ".join(Page(rendered(tmp_path, grid, runs)).text["answer"].split())
    assert (
        "no version of the code made both, or other judges judged them: two captions concat with one caption." in text
    )


def judged(run, share):
    path = run.folder / "details.json"
    details = json.loads(path.read_text())
    run.metrics["judge_accuracy_network"] = details["metrics"]["judge_accuracy_network"] = {"shape": share}
    path.write_text(json.dumps(details))
    return run


def test_a_difference_is_between_runs_of_the_same_judges(tmp_path):
    grid = make_grid(seeds=[0, 1, 2], names=("one_caption", "two_captions_concat"))
    told = {seed: judged(finished_run(tmp_path, "two_captions_concat", seed), 0.9) for seed in (0, 1, 2)}
    one = {
        seed: judged(finished_run(tmp_path, "one_caption", seed), share) for seed, share in enumerate((0.9, 0.9, 0.8))
    }
    runs = [*told.values(), *one.values()]
    evidence = Evidence(grid, runs)
    assert [first.seed for first, _ in evidence.pairs("two_captions_concat", "one_caption")] == [0, 1]
    assert evidence.test("two_captions_concat", "scene").unpaired == (2,)
    page = Page(rendered(tmp_path, grid, runs))
    assert "seed 2 left out: different code or judges" in page.text["answer"]
    assert "shape 80.0% in one caption (seed 2); shape 90.0% in the others" in " ".join(page.text["conditions"].split())


def set_environment(run, environment):
    path = run.folder / "details.json"
    details = json.loads(path.read_text())
    details["card"]["environment"] = environment
    path.write_text(json.dumps(details))


def test_absent_measures_are_dashes(tmp_path):
    grid = make_grid(names=("one_caption", "two_captions_concat"))
    runs = all_runs(tmp_path, grid)
    kept = ("condition", "seed", "fusion", "perspectives")
    for run in runs:
        run.metrics = {key: run.metrics[key] for key in kept}
    page = Page(rendered(tmp_path, grid, runs))
    assert "–" in page.text["ranking"] and "two captions concat" in page.text["ranking"]
    assert not {"matrix", "guidance", "changed", "distances", "oracle"} & set(page.text)


def test_guidance_and_distance_are_explained_before_they_occur(tmp_path):
    grid = make_grid(names=("one_caption", "two_captions_concat"))
    start = " ".join(Page(rendered(tmp_path, grid, all_runs(tmp_path, grid))).text["answer"].split())
    for said in ("CLIP, a pair of networks", "Guidancehow far drawing is driven", "Distancefd_judge"):
        assert said in start
    before = start[: start.index("Guidancehow")].lower()
    assert "guidance" not in before and "distance" not in before and "fd_" not in before


def test_each_experiment_has_a_strip_of_the_same_scenes_by_rank(tmp_path):
    grid = make_grid()
    page = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid)))
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts[:2] == ["real", "two captions concat"] and alts[-1] == "caption image"
    assert sorted(alts) == sorted(["real", *(name.replace("_", " ") for name in EXPERIMENTS), "caption image"])
    sheet = np.asarray(Image.open(tmp_path / "out" / "pictures.png"))
    assert sheet.shape == (8 * 18 * 4, 7 * 18 * 4, 3)
    assert sheet[40, 40, 0] == 30 and sheet[40, 6 * 72 + 40, 0] == 200


def test_pictures_of_data_that_are_not_ours_are_neither_kept_nor_shown(tmp_path):
    grid = make_grid()
    runs = all_runs(tmp_path, grid)
    for run in runs:
        kept = without_data({path.name: path.read_bytes() for path in run.folder.iterdir()})
        assert b"a big red ring" not in kept["details.json"] and b"metrics" in kept["details.json"]
        shutil.rmtree(run.folder)
        run.folder.mkdir()
        for name, content in kept.items():
            (run.folder / name).write_bytes(content)
    html = rendered(tmp_path, grid, runs)
    page = Page(html)
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts[0] == "two captions concat" and "real" not in alts and "a big red ring" not in html
    assert "are not kept with the runs" in html
    assert Image.open(tmp_path / "out" / "pictures.png").size == (6 * 18 * 4, 8 * 18 * 4)


def test_the_forest_plot_has_every_comparison_of_a_question_by_rank(tmp_path):
    grid = make_grid()
    evidence = Evidence(grid, all_runs(tmp_path, grid))
    title, svg = forests(evidence)[0]
    assert title == "scene"
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text") if text.get("class") == "said"]
    tests = [test for test in evidence.tests if test.question == "scene"]
    assert texts[0] == "two captions concat − one caption" and len(texts) == len(tests)
    hollow = [group for group in ElementTree.fromstring(svg).iter("g") if group.get("class") == "no"]
    assert len(hollow) == sum(test.verdict == "no difference found" for test in tests)


def test_the_page_loads_nothing_and_escapes_what_it_is_given(tmp_path):
    grid = make_grid()
    html = rendered(tmp_path, grid, all_runs(tmp_path, grid))
    runs_our_script_alone(html)
    assert "<b>thing" not in html and "same <caption>" not in html
    assert any("a <b>thing</b>" in caption for caption in Page(html).captions)


def test_links_lead_to_the_tables_beside_the_page(tmp_path):
    grid = make_grid()
    page = Page(rendered(tmp_path, grid, all_runs(tmp_path, grid)))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= {made.get("id") for _, made in page.tags}
    files = [link for link in links if "/" not in link and not link.startswith("#")]
    assert files and all((tmp_path / "out" / link).exists() for link in files)


def test_guidance_is_averaged_over_seeds(tmp_path):
    grid = make_grid()
    runs = all_runs(tmp_path, grid)
    rendered(tmp_path, grid, runs)
    rows = rows_of(tmp_path / "out" / "guidance.csv")
    assert len(rows) == 5 * 4
    row = next(r for r in rows if r["experiment"] == "one_caption" and float(r["guidance"]) == 2)
    mean = np.mean([run.metrics["sweep"][1]["scene_accuracy"] for run in runs if run.experiment == "one_caption"])
    assert float(row["scene_accuracy"]) == pytest.approx(mean) and row["seeds"] == "3"


def test_a_source_that_is_wrong_at_times_mixes_right_and_wrong_pictures_by_its_share(tmp_path):
    """With caption_1 wrong for a share b, a score is (1 - b) of the right pictures' and b of the wrong ones'."""
    grid = make_grid(seeds=[0, 1], names=("one_caption", "two_captions_concat"))
    grid = grid.model_copy(update={"wrong": {"caption_1": (0.0, 0.25, 1.0)}})
    evidence = Evidence(grid, all_runs(tmp_path, grid))
    scores = [[evidence.misled(name, "caption_1", b) for b in (0.0, 0.25, 1.0)] for name in evidence.names]
    for name, (none, some, all_) in zip(evidence.names, scores, strict=True):
        assert none[0] == pytest.approx(evidence.share(name, "scene"))
        by_hand = np.mean([run.changed[Change(Kind.WRONG, "caption_1")].mean() for run in evidence.of(name)])
        assert all_[0] == pytest.approx(by_hand) and some[0] == pytest.approx(0.75 * none[0] + 0.25 * all_[0])
    (_, beside, _), (baseline, *_) = scores[1], scores[0]
    assert baseline[1] is None  # the baseline is compared with nothing
    assert beside[1].difference == pytest.approx(beside[0] - scores[0][1][0]) and beside[1].seeds == 2
    assert evidence.misled("one_caption", "caption_2", 0.5) is None  # it has no such source
    assert evidence.misled("two_captions_concat", "caption_2", 0.5) is None  # it was never asked with a wrong one

    page = Page(rendered(tmp_path, grid, all_runs(tmp_path / "again", grid)))
    assert "25% wrong in evaluation" in " ".join(page.text["misled"].split())
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["misled"]
    assert [(row["experiment"], row["wrong_in_training"], row["wrong_in_evaluation"]) for row in rows] == [
        (name, 0.0, b) for name in ("one_caption", "two_captions_concat") for b in (0.0, 0.25, 1.0)
    ]


def test_the_source_of_a_slot():
    assert slot(["caption_1", "caption_2_wrong_30"], "caption_2") == "caption_2_wrong_30"
    assert slot(["caption_1", "caption_2"], "caption_2") == "caption_2"
    assert slot(["caption_1", "caption_2_of_another", "caption_21"], "caption_2") is None


def test_the_best_guidance_is_that_of_the_mean_over_seeds(tmp_path):
    grid = make_grid(seeds=[0, 1], names=("one_caption",))
    runs = all_runs(tmp_path, grid)
    for run, shares in zip(runs, ((0.5, 0.9, 0.8, 0.1), (0.9, 0.2, 0.8, 0.1)), strict=True):
        for row, share in zip(run.metrics["sweep"], shares, strict=True):
            row["scene_accuracy"] = share  # the seeds' own best are 2 and 1, the best of both is 3
    found = best_guidance(Evidence(grid, runs))
    ((name, cells),) = found["rows"]
    best = dict(zip(found["measures"], cells, strict=True))
    assert name == "one_caption" and best["scene"] == "3" and best["fd_judge"] == "1"
    assert found["apart"] and "in no other figure" in Page(rendered(tmp_path, grid, runs)).text["guidance"]
    del runs[0].metrics["sweep_of"]
    assert "somewhat flattered" in Page(rendered(tmp_path, grid, runs)).text["guidance"]


def test_what_a_perspective_left_out_or_wrong_costs_is_told_for_the_same_pictures_only(tmp_path):
    grid = make_grid(seeds=[0], names=("one_caption",))
    (run,) = all_runs(tmp_path, grid)
    left_out, wrong, shuffled = changed_rows(Evidence(grid, [run]))
    assert (left_out["what"], wrong["what"]) == ("without caption_1", "another picture's caption_1")
    with np.load(run.folder / "pictures.npz") as file:
        right = file["right"]
    lost = right[:, 0].sum() / right.size, right[:, :3].sum() / right.size, right[:50].mean()
    for row, share in zip((left_out, wrong, shuffled), lost, strict=True):
        difference, interval = row["points"]
        assert difference == f"−{100 * share:.1f}" and " to " in interval
    assert float(left_out["distance"].replace("−", "-")) == pytest.approx(9.0 - run.metrics["fd_judge"], abs=0.01)
    assert shuffled["share"] == "31.0%"
    assert float(shuffled["distance"]) == pytest.approx(5.0 - 4.0, abs=0.01)  # of the same 50 pictures
    run.metrics["shuffled"]["n"] = 20
    assert list(changed_rows(Evidence(grid, [run])))[-1]["distance"] == "–"


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    grid = make_grid(seeds=[0, 1])
    run = finished_run(tmp_path, "one_caption", 0)
    other = finished_run(tmp_path, "one_caption", 1, ids=np.arange(N))
    with pytest.raises(CondmixError, match="evaluated on different pictures"):
        Evidence(grid, [run, other])
    with pytest.raises(CondmixError, match='"one_caption" with seed 7 does not belong to the grid "tiny"'):
        Evidence(grid, [SimpleNamespace(**{**vars(run), "seed": 7})])
    with pytest.raises(CondmixError, match="no run of the grid"):
        Evidence(grid, [])
    (run.folder / "pictures.npz").write_bytes(b"PK cut")
    with pytest.raises(CondmixError, match="is damaged"):
        Evidence(grid, [run])
