"""Files of searches: what they may say, and what makes a search another one."""

import re
from pathlib import Path

import pytest

from condmix import CondmixError
from condmix.experiments.grid import Baseline
from condmix.experiments.search import Objective, read_search
from condmix.settings.yamlfile import read_yaml
from grid_project import SEARCH, Repository, write_search

ROOT = Path(__file__).parents[2]


def space(**dimensions):
    return {"space": {key.replace("__", "."): dimension for key, dimension in dimensions.items()}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trails": 3}, 'no setting "trails"; found: measure, profile, sampler'),
        ({"trials": 0}, "trials is 0"),
        ({"sampler": "tpo"}, "sampler is 'tpo'; input should be 'tpe', 'gp', 'random' or 'grid'"),
        ({"space": {}}, "space: list at least 1"),
        (space(guidance={"low": 6, "high": 1}), "space.guidance: low, 6, must be less than high, 1"),
        (
            space(guidance={"low": 1, "high": 6, "lgo": 1}),
            'no setting "space.guidance.lgo"; found: space.guidance.high',
        ),
        (space(guidance={"low": 1}), "space.guidance.high is missing"),
        (space(guidance={"low": 1, "high": "six"}), "space.guidance.high is 'six'; give a number"),
        (space(guidance={"low": 1, "high": float("inf")}), "space.guidance.high is inf; give a number"),
        (space(guidance={"low": 0, "high": 6, "log": True}), "a range with log: true begins above 0"),
        (space(guidance={"low": 0, "high": 6, "step": 0}), "a step is above 0"),
        (space(guidance=3), "space.guidance is 3; give a list of choices, or a range"),
        (space(guidance=[]), "space.guidance is []; list at least 1"),
        (space(fusion=["mean", "concat", "mean"]), "space.fusion names a choice twice"),
        (space(guidence=[1, 2]), 'no setting "guidence"; found: fusion'),
        (space(train__images=[32, 64]), "train.images is in settings and in space"),
        (space(seed=[1, 2]), "seed decides how trials are judged"),
        (space(data__world__test=[1, 2]), "data.world.test decides how trials are judged"),
        (space(evaluate__sweep=[[1.0], [2.0]]), "leave out evaluate.sweep"),
        (space(evaluate__processes=[1, 2]), "leave out evaluate.processes"),
        ({"settings": {"profile": "demo"}}, 'no setting "profile"'),
    ],
)
def test_a_file_is_refused_in_one_sentence(tmp_path, changes, says):
    write_search(tmp_path, **changes)
    with pytest.raises(CondmixError, match=re.escape(says)) as error:
        read_search(tmp_path, "small")
    assert str(error.value).startswith("conf/searches/small.yaml: ") and "\n" not in str(error.value)


def test_a_search_that_does_not_exist(tmp_path):
    write_search(tmp_path)
    with pytest.raises(CondmixError, match='no search "smal"; found: small; did you mean "small"'):
        read_search(tmp_path, "smal")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "searches").glob("*.yaml")))
def test_the_files_of_the_repository_are_valid(name):
    search = read_search(ROOT, name)
    files = {path: read_yaml(ROOT / path) for path in ("params.yaml", f"conf/{search.profile}.yaml")}
    found = Objective(search, Baseline(ROOT, "HEAD", search.profile, files))
    assert found.measure.key == search.measure
    for corner in found.corners():
        found.baseline.checked(*found.changes(corner), name)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("repository"))


def objective(repository, **changes):
    write_search(repository.folder, **changes)
    search = read_search(repository.folder, "small")
    return Objective(search, Baseline.read(repository.folder, "HEAD", search.profile, search.where))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (space(train__lrr=[1e-3]), 'conf/tiny.yaml: no setting "train.lrr"'),
        (space(train__lr={"low": 1e-3, "high": 1000}), "conf/tiny.yaml: train.lr is 1000"),
        (space(fusion=["concat", "maen"]), 'no fusion "maen"'),
        (space(guidance={"low": -1, "high": 2}), "guidance is -1"),
    ],
)
def test_every_bound_and_choice_is_checked_before_anything_runs(repository, changes, says):
    with pytest.raises(CondmixError, match=re.escape(says)):
        _ = objective(repository, **changes).study_name


def test_a_profile_that_does_not_exist_is_named_with_those_that_do(repository):
    with pytest.raises(CondmixError, match='^conf/searches/small.yaml: no profile "tini"; found: .*mean "tiny"'):
        objective(repository, profile="tini")


@pytest.mark.parametrize("measure", ["scene", "held_out_captions", "n"])
def test_the_measure_is_one_of_the_sweep(repository, measure):
    with pytest.raises(CondmixError, match=f'measure: no measure "{measure}"; found: fd_judge, .*residual'):
        _ = objective(repository, measure=measure).measure


def test_a_trial_is_judged_at_its_own_guidance_by_the_last_test_pictures(repository):
    run = objective(repository).run({"guidance": 2.5, "fusion": "mean"})
    expected = {"profile": "tiny", "guidance": 2.5, "fusion": "mean", "perspectives": ["caption_1"], "seed": 0}
    assert run.params == expected
    assert run.settings == {"train.images": 32, "evaluate.sweep": [2.5]}
    assert re.fullmatch("search_small-trial-0-[0-9a-f]{8}", run.name)


def test_what_decides_the_figures_makes_another_study(repository):
    name = objective(repository).study_name
    assert objective(repository, trials=100, sampler="random", sampler_seed=1).study_name == name
    for changes in (
        {"measure": "fd_judge"},
        {"settings": SEARCH["settings"] | {"train.images": 48}},
        space(guidance={"low": 1, "high": 7}, fusion=["concat", "mean"]),
        space(guidance={"low": 1, "high": 6}),
    ):
        assert objective(repository, **changes).study_name != name
    repository.append("src/condmix/fusions/film.py", "# more\n")  # which is no choice
    assert objective(repository).study_name == name
    repository.append("src/condmix/fusions/mean.py", "# more\n")
    assert objective(repository).study_name != name
