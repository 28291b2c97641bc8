"""One contract for every metric that the folder holds: what it says of itself, and its numbers by slow definitions."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch

import condmix.metrics as package
from condmix.evaluation.caption_score import CaptionFit
from condmix.evaluation.distances import frechet_interval
from condmix.evaluation.frechet import Statistics
from condmix.evaluation.observations import Observations, Space
from condmix.metrics import Pictures, Place, at, compared, computed, headline, measures, metrics
from condmix.metrics.other_judges import JUDGES
from condmix.reporting.summary import summary
from condmix.results.rows import read_metrics
from condmix.settings import plugins
from condmix.stages.report import main as report
from fake_results import captions_variant, project
from profiles import ROOT

SPACES, NAMES, N = ("judge", "clip", "inception"), ("shape", "colour"), 8


def space(name, n=N):
    random = np.random.default_rng([len(name), n])
    drawn, real = (torch.from_numpy(random.normal(size=(count, 3))) for count in (n, n + 5))  # of other numbers
    allowed, training = (torch.from_numpy(random.normal(size=(count, 3))) for count in (n + 3, n + 9))
    return Space(name, drawn + 0.5, real, Statistics.of(real), allowed, Statistics.of(training))


def tiny():
    """All that may be known of eight pictures of four conditions."""
    random = np.random.default_rng(0)
    right, named = random.random((2, N, 2)) < 0.5
    right[0], named[0], named[1] = True, True, False
    pictures, real, training = random.integers(0, 256, (3, N, 4, 4, 3), dtype=np.uint8)
    ranks, cosines = random.random((N, 2)), torch.from_numpy(random.random((3, N)))
    fit = CaptionFit("a clip", ranks, ranks > 0.6, int((ranks <= 0.6).sum()), *cosines)
    return Observations(
        tuple(map(space, SPACES)), NAMES, right, named, random.random((N, 3, 2)) < 0.5, right[:, 0],
        pictures, real, training, fit, {x: random.random((N, 2)) < 0.5 for x in JUDGES}, 30 * random.random(N),
        held_out=np.arange(N) % 3 == 0, per_condition=2, resamples=50, seed=1,
    )  # fmt: skip


@pytest.fixture
def observed():
    return tiny()


def everything(drawn):
    """The metrics file of these observations."""
    found = {"features": [one.name for one in drawn.spaces]}
    for pictures in Pictures:
        found |= computed(drawn, pictures)
    return found


def entries(name, drawn):
    metric = plugins.plugin("metrics", name)()
    found = metric.compute(drawn)
    for one in drawn.spaces:
        found |= metric.compute_in(one, drawn)
    return found


@pytest.mark.parametrize("name", plugins.plugins("metrics"))
def test_a_metric_says_what_it_is_and_every_number_that_it_computes(name, observed):
    metric, found = plugins.plugin("metrics", name)(), entries(name, observed)
    listed = metric.measures([found | {"features": list(SPACES)}])
    listed = [one for one in listed if name != "precision_recall" or one.of(found) is not None]  # of one reference each
    assert found and listed and any(one.higher_is_better is not None for one in listed)
    for one in listed:
        assert one.heading and one.words and len(one.explanation) > 20 and len(one.blind_to) > 10
        value = one.of(found)
        assert np.shape(value) == ((2,) if one.interval else ()) and np.isfinite(value).all(), one.key
        assert not one.share or 0 <= value <= 1
        assert one.features is None or one.features in SPACES
        assert one.attribute is None or one.attribute in (*NAMES, "all")
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", plugins.plugins("metrics"))
def test_a_metric_is_left_out_where_what_it_needs_is_missing(name, observed):
    metric, found = plugins.plugin("metrics", name)(), entries(name, observed)
    for need in metric.needs:
        assert not found.keys() & everything(replace(observed, **{need: None})).keys()
    assert metric.measures([{}]) == [] or not [m for m in metric.measures([{}]) if m.of({}) is not None]


def test_keys_are_unique_and_files_group_what_is_of_one_space(observed):
    file = everything(observed)
    keys = [measure.key for measure in measures([file])]
    assert len(keys) == len(set(keys))
    headline = list(computed(observed, Pictures.HEADLINE))
    assert headline[:4] == ["fd_judge_interval", "fd_judge_allowed", "kid_judge", "precision_judge_allowed"]
    assert headline[5:8] == ["fd_clip_interval", "fd_clip_allowed", "kid_clip"] and "mmd_clip" in headline[8:11]
    assert headline[11:15] == ["fid_interval", "fid_allowed", "kid", "precision_inception_allowed"]
    ranks = {measure.key: measure.rank for measure in measures([file]) if measure.rank}
    assert list(ranks) == ["fid", "fd_judge", "fd_clip", "scene_accuracy", "attribute_accuracy_mean", "class_accuracy"]
    shown = [measure.key for measure in compared([file]) if measure.attribute is None]
    assert shown == ["scene_accuracy", "attribute_accuracy_mean", "fid", "fd_judge", "fd_clip", "residual"]


def test_too_few_pictures_have_no_precision_and_no_third_neighbour(observed):
    few = entries("precision_recall", replace(observed, spaces=(space("judge", 3),)))
    assert few == {}


def test_where_it_is_not_known_what_is_allowed_the_test_split_is(observed):
    (space,) = observed.spaces[:1]
    found = entries("precision_recall", replace(observed, spaces=(replace(space, allowed=None),)))
    assert found["precision_judge"] == pytest.approx(within_reach(space.drawn.numpy(), space.real.numpy()), abs=1e-4)


def test_a_median_does_not_see_one_copy_in_twenty_and_the_lower_tail_does(observed):
    random = np.random.default_rng(0)
    pictures, real, training = random.integers(0, 256, (3, 40, 4, 4, 3), dtype=np.uint8)
    pictures[7], pictures[20] = training[3], training[30]
    found = entries("nearest_training", replace(observed, pictures=pictures, real=real, training=training))
    tail = found["nearest_training"]
    assert tail["p1"] < 0.5 * tail["p1_of_real"] and tail["p5"] < tail["p5_of_real"]


def test_groups_by_caption_are_the_same_whatever_the_condition(observed):
    mentions = np.zeros((N, 2, 2), bool)
    mentions[:4, 0], mentions[2:6, 1] = True, True
    right = np.array([1, 1, 1, 0, 0, 1, 0, 0], bool)[:, None] & np.ones((N, 2), bool)
    found = entries("attribute_accuracy_by_caption", replace(observed, right=right, mentions=mentions))
    shares = {group: values["shape"] for group, values in found["attribute_accuracy_by_caption"].items()}
    assert shares == {"caption_1 only": 1.0, "caption_2 only": 0.5, "both": 0.5, "neither": 0.0}
    assert found["attribute_n_by_caption"] == {"caption_1 only": 4, "caption_2 only": 4, "both": 4, "neither": 4}


# ---- slow references: the definitions, pair by pair and picture by picture ----


def distance(x, y):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5


def frechet(x, y):
    first, second = np.cov(x.T), np.cov(y.T)
    between = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return between + np.trace(first + second - 2 * scipy.linalg.sqrtm(first @ second).real)


def kid(x, y):
    def k(a, b):
        return (float(a @ b) / x.shape[1] + 1) ** 3

    within = [np.mean([k(a, b) for a, b in itertools.permutations(s, 2)]) for s in (x, y)]
    return sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])


def mmd(x, y):
    x, y = (s / np.linalg.norm(s, axis=1, keepdims=True) for s in (x, y))

    def mean(s, t):
        return np.mean([np.exp(-(distance(a, b) ** 2) / 200) for a in s for b in t])

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def within_reach(points, of):
    reach = [sorted(distance(a, b) for b in of)[3] for a in of]
    return np.mean([any(distance(p, a) <= r for a, r in zip(of, reach, strict=True)) for p in points])


def nearest_percentile(pictures, training, percent):
    def rms(a, b):
        return np.sqrt(((a.astype(float) - b) ** 2).mean()) / 255

    return np.percentile([min(rms(a, b) for b in training) for a in pictures], percent)


def grain(pictures):
    def apart(one, i, j, c):
        neighbours = [one[i - 1, j, c], one[i + 1, j, c], one[i, j - 1, c], one[i, j + 1, c]]
        return abs(float(one[i, j, c]) - sum(map(float, neighbours)) / 4)

    inner = range(1, pictures.shape[1] - 1)
    return np.mean(
        [np.median([apart(one, *at) for at in itertools.product(inner, inner, range(3))]) for one in pictures]
    )


def shares(right, chosen):
    columns = ([r for r, c in zip(right[:, i], chosen[:, i], strict=True) if c] for i in range(right.shape[1]))
    return {name: sum(column) / len(column) for name, column in zip(NAMES, columns, strict=True) if column}


def reference(o):
    """Dotted key -> its value by definition."""
    found = {"scene_accuracy": np.mean([all_ for row in o.right for all_ in row])}
    for s in o.spaces:
        x, y, fid = s.drawn.numpy(), s.real.numpy(), s.name == "inception"
        allowed = s.allowed.numpy()
        conditions = [[x[2 * i], x[2 * i + 1]] for i in range(N // 2)]
        ends = frechet_interval(s.drawn, s.statistics, o.seed, o.resamples)
        found |= {
            "fid" if fid else f"fd_{s.name}": frechet(x, y), "kid" if fid else f"kid_{s.name}": kid(x, y),
            "fid_interval" if fid else f"fd_{s.name}_interval": ends,
            "fid_allowed" if fid else f"fd_{s.name}_allowed": frechet(x, allowed),
            f"precision_{s.name}_allowed": within_reach(x, allowed),
            f"recall_{s.name}_allowed": within_reach(allowed, x),
            f"diversity.{s.name}": np.mean([distance(*pair) for pair in conditions]),
        }  # fmt: skip
    named, unnamed = shares(o.right, o.named), shares(o.right, ~o.named)
    found |= {f"attribute_accuracy.{name}": share for name, share in named.items()}
    found |= {f"attribute_accuracy_unnamed.{name}": share for name, share in unnamed.items()}
    for group, (first, second) in {"caption_1 only": (1, 0), "caption_2 only": (0, 1), "both": (1, 1),
                                   "neither": (0, 0)}.items():  # fmt: skip
        chosen = (o.mentions[:, 0] == first) & (o.mentions[:, 1] == second)
        by_name = shares(o.right, chosen) | {"all": o.right[chosen].sum() / chosen.sum()}
        found |= {f"attribute_accuracy_by_caption.{group}.{name}": share for name, share in by_name.items()}
    ranks = [r for row, used in zip(o.captions.ranks, o.captions.conditioned, strict=True)
             for r, u in zip(row, used, strict=True) if not u]  # fmt: skip
    for judge, right in o.right_by_others.items():
        seen = shares(right, o.named)
        found |= {f"attribute_accuracy_{judge}.{name}": share for name, share in seen.items()}
        found[f"attribute_accuracy_{judge}_mean"] = np.mean(list(seen.values()))
        found[f"scene_accuracy_{judge}"] = np.mean(right.tolist())
    return found | {
        "residual": sum(o.residual) / N,
        "grain": grain(o.pictures), "grain_real": grain(o.real),
        "mmd_clip": mmd(o.spaces[1].drawn.numpy(), o.spaces[1].real.numpy()),
        "diversity_n.conditions": N // 2, "diversity_n.pictures_each": 2,
        "nearest_training.p1": nearest_percentile(o.pictures, o.training, 1),
        "nearest_training.p5": nearest_percentile(o.pictures, o.training, 5),
        "nearest_training.p5_of_real": nearest_percentile(o.real, o.training, 5),
        "attribute_accuracy_mean": np.mean(list(named.values())), "class_accuracy": sum(o.class_right) / N,
        "held_out_captions.score": np.mean(o.captions.drawn.tolist()), "held_out_captions.rank": np.mean(ranks),
        "held_out_captions.of_real_pictures": np.mean(o.captions.real.tolist()),
        "held_out_captions.of_others": np.mean(o.captions.others.tolist()), "held_out_captions.captions": len(ranks),
    }  # fmt: skip


@pytest.mark.parametrize("key", reference(tiny()))
def test_a_measure_is_what_its_definition_gives(key, observed):
    assert at(everything(observed), key) == pytest.approx(reference(observed)[key], abs=6e-5)


# ---- a metric is one new file ----

CONTRAST = '''
from condmix.metrics import Metric


class Contrast(Metric):
    """Mean standard deviation of the judge's features."""

    key = "contrast"
    higher_is_better = True
    explanation = "How much the features of the pictures vary"
    blind_to = "everything else"
    needs = ("right",)

    def compute(self, drawn):
        return {"contrast": round(drawn.spaces[0].drawn.std(0).mean().item(), 4)}
'''


@pytest.fixture
def contrast(tmp_path, monkeypatch):
    """A file that was put into the package's folder."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "contrast.py").write_text(CONTRAST)
    before = plugins.plugins
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "plugin")])
    monkeypatch.setattr(plugins, "plugins", lambda kind: sorted([*before(kind), *["contrast"] * (kind == "metrics")]))


def test_a_new_file_is_a_new_metric_everywhere(contrast, observed, tmp_path):
    assert metrics()[-1].key == "contrast"
    value = computed(observed, Pictures.EVERY)["contrast"]
    assert value > 0 and "contrast" not in computed(replace(observed, right=None), Pictures.EVERY)
    better, worse = captions_variant() | {"contrast": value}, captions_variant("experiment") | {"contrast": value / 2}
    better["sweep"][0]["contrast"] = value
    params = project(tmp_path, better, worse)
    assert [facts["contrast"] for facts in read_metrics(params)] == [value, value / 2]
    assert "contrast" in summary(params).split("\n\n")[1].splitlines()[0]
    report(params)
    page = (params.paths.report / "index.html").read_text()
    assert f'<td class="number best"><data value="{value}">' in page and "<b>contrast</b>, higher is better" in page
    assert "How much the features of the pictures vary. Blind to: everything else." in page
    (found,) = [measure for measure in measures([better]) if measure.key == "contrast"]
    assert Place.SETS in found.places and found.rank is None  # in a grid's table too, and it ranks nothing


@pytest.mark.parametrize(
    ("spaces", "count"), [(("clip",), 5), (("inception", "judge", "clip"), 5), (tuple("abcdefghijkl"), 8)]
)
def test_a_headline_has_five_to_eight_figures_and_begins_with_what_ranks(spaces, count):
    facts = {"features": list(spaces), "class_accuracy": 0.5}
    for space in spaces:
        distance = "fid" if space == "inception" else f"fd_{space}"
        facts |= {distance: 3.0, f"kid_{space}": 0.1, f"precision_{space}": 0.5, f"recall_{space}": 0.5}
    found = headline(facts)
    assert len(found) == count and found[0].key == "class_accuracy"
    assert all(measure.of(facts) is not None for measure in found)


def test_where_no_attributes_are_known_other_judges_tell_the_class():
    drawn = Observations((), right_by_others={"probe": np.array([[True], [False], [True], [True]])})
    found = entries("other_judges", drawn)
    assert found == {"class_accuracy_probe": 0.75}
    listed = [one for one in plugins.plugin("metrics", "other_judges")().measures([found]) if one.of(found) is not None]
    assert [(one.key, one.heading) for one in listed] == [("class_accuracy_probe", "class, by the probe")]


def test_the_guide_names_every_measure(observed):
    guide = (ROOT / "docs" / "measures.md").read_text()
    for measure in filter(lambda one: one.higher_is_better is not None, measures([everything(observed)])):
        key = measure.key.split(".")[0].removesuffix("_mean")
        named = key.replace(f"_{measure.features}", "_<features>") if measure.features else key
        assert f"`{key}`" in guide or f"`{named}`" in guide, measure.key
