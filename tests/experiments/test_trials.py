"""Trials of a search: kills, failures and directions with a formula for a figure; one search of a real run."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from condmix import CondmixError
from condmix.experiments import trials
from condmix.experiments.grid import done
from condmix.experiments.search import Search
from condmix.experiments.trials import distributions, most_trials, open_study, optimise, run_search, values_of
from dvc_project import TINY
from grid_project import SEARCH, write_search

PERSPECTIVES = [["caption_1"], ["caption_1", "caption_2"]]
SPACE = {"guidance": {"low": 1, "high": 6}, "perspectives": PERSPECTIVES}


def a_search(**changes):
    return Search.model_validate({"name": "small"} | SEARCH | {"settings": {}, "space": SPACE} | changes)


def study_in(folder, higher_is_better=False):
    return open_study(folder / "study.sqlite", "small", SimpleNamespace(higher_is_better=higher_is_better))


def in_memory():
    return optuna.create_study(direction="minimize")


class Formula:
    """A fake of runs: the figure is the distance of guidance from 3, one less with two captions."""

    def __init__(self, fails=(), refuses=None, dies_at=None):
        self.started, self.fails, self.refuses, self.dies_at = [], fails, refuses, dies_at

    def start(self, values):
        if len(self.started) == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.started.append(dict(values))
        made, number = Future(), len(self.started) - 1
        if number == self.refuses:
            raise CondmixError("values that don't go together")
        if number in self.fails:
            made.set_exception(CondmixError("no memory"))
        else:
            made.set_result(1.0)
        return made

    def figure(self, values):
        return abs(values["guidance"] - 3) - len(values["perspectives"])


def run(study, search, trials, jobs, formula):
    optimise(study, search, trials, jobs, formula.start, formula.figure)


def killed(folder, search, dies_at):
    """Run the search in a process that ends as by `kill -9` as its trial `dies_at` starts."""

    def search_and_die():
        run(study_in(folder), search, search.trials, 1, Formula(dies_at=dies_at))

    process = multiprocessing.get_context("fork").Process(target=search_and_die)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "tpe", "trials": 12},  # the first ten are drawn at random
        {"sampler": "random"},
        {"sampler": "grid", "space": {"guidance": [1.0, 2.0, 3.0, 4.0], "perspectives": PERSPECTIVES}},
    ],
)
def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path, changes):
    search = a_search(**changes)
    whole, unbroken = in_memory(), Formula()
    run(whole, search, search.trials, 1, unbroken)

    killed(tmp_path, search, dies_at=search.trials - 2)
    killed(tmp_path, search, dies_at=1)  # the trial that was left was finished, the next one was not
    study, resumed = study_in(tmp_path), Formula()
    assert [trial.state for trial in study.trials].count(TrialState.RUNNING) == 1
    run(study, search, search.trials, 1, resumed)
    assert resumed.started == unbroken.started[search.trials - 1 :]
    assert [values_of(search, trial) for trial in study.trials] == unbroken.started
    assert [trial.value for trial in study.trials] == [trial.value for trial in whole.trials]

    again = Formula()
    run(study, search, search.trials, 1, again)
    assert not again.started
    run(study, search, search.trials + 1, 1, again)
    assert len(again.started) == 1


def test_a_trial_that_fails_is_said_and_not_repeated(capsys):
    search, study, formula = a_search(), in_memory(), Formula(fails=(1,), refuses=4)
    run(study, search, search.trials, 1, formula)
    states = [trial.state for trial in study.trials]
    assert [i for i, state in enumerate(states) if state is TrialState.FAIL] == [1, 4]
    assert states.count(TrialState.COMPLETE) == search.trials - 2
    err = capsys.readouterr().err
    assert all(said in err for said in ("trial 1 failed\nno memory", "trial 4 failed\nvalues that"))
    run(study, search, search.trials, 1, again := Formula())
    assert not again.started


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_measure_says_which_way_is_better(tmp_path, higher_is_better):
    search, study = a_search(), study_in(tmp_path, higher_is_better)
    run(study, search, search.trials, 1, Formula())
    assert study.best_value == (max if higher_is_better else min)(trial.value for trial in study.trials)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.sqlite").write_text("no database")
    with pytest.raises(CondmixError, match="study.sqlite is damaged .*file is not a database.*: delete it and run"):
        study_in(tmp_path)


def test_so_many_trials_at_a_time_as_asked_for(monkeypatch):
    search, study, open_ = a_search(), in_memory(), []

    def first_finishes(futures, return_when):
        open_.append(len(futures))
        return SimpleNamespace(done={next(iter(futures))})

    monkeypatch.setattr(trials, "wait", first_finishes)
    run(study, search, search.trials, 3, Formula())
    assert open_ == [3] * (search.trials - 2) + [2, 1]
    assert len({str(trial.params) for trial in study.trials}) == search.trials


def test_the_grid_makes_every_combination_once():
    space = {"guidance": {"low": 1.0, "high": 2.0, "step": 0.5}, "train.batch_size": {"low": 1, "high": 2}}
    search, study = a_search(sampler="grid", space=space | {"perspectives": PERSPECTIVES}), in_memory()
    assert most_trials(search, 100) == 3 * 2 * 2 and most_trials(search, 5) == 5
    run(study, search, 12, 1, formula := Formula())
    assert set(Counter(json.dumps(values) for values in formula.started).values()) == {1}
    assert most_trials(a_search(), 100) == 100
    with pytest.raises(CondmixError, match="space.guidance: the sampler grid needs a list of choices, or a range"):
        distributions(a_search(sampler="grid"))


def test_settings_that_are_whole_numbers_are_searched_as_such():
    bounds = {"low": 1, "high": 6}
    space = dict.fromkeys(("guidance", "train.lr", "evaluate.steps", "train.micro_batch", "clip.model.layers"), bounds)
    found = distributions(a_search(space=space))
    assert {key: type(one) for key, one in found.items()} == {
        "guidance": FloatDistribution,
        "train.lr": FloatDistribution,
        "evaluate.steps": IntDistribution,
        "train.micro_batch": IntDistribution,  # or null
        "clip.model.layers": IntDistribution,  # which the schema does not know
    }


def test_the_table_has_an_experiment_once(tmp_path, monkeypatch):
    search, study = a_search(space={"guidance": [1.0, 3.0], "perspectives": PERSPECTIVES[:1]}, trials=8), in_memory()
    run(study, search, search.trials, 1, Formula())
    measure = SimpleNamespace(higher_is_better=False, text=str, words="distance", better="lower is better")
    figures = {1.0: (1.0, 2.0), 3.0: (-1.0, 4.0)}
    fake = SimpleNamespace(
        search=search,
        measure=measure,
        run=lambda values: SimpleNamespace(name=f"run-{values['guidance']:g}", values=values),
        figures=lambda root, run: figures[run.values["guidance"]],
    )
    monkeypatch.setattr(trials, "done", lambda root: {})
    rows = trials.summary(tmp_path, fake, study).split("\n\n")[0].splitlines()[1:]
    assert [row.split()[1:3] + row.split()[-1:] for row in rows] == [["-1.0", "4.0", "run-3"], ["1.0", "2.0", "run-1"]]


def test_without_optuna_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(CondmixError, match=r"needs Optuna, .* pip install 'condmix\[search\]'"):
        run_search(tmp_path, a_search(), None, 1)


def test_a_search_of_a_real_run(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    project.environment["CONDMIX_TRACKING"] = "off"
    evaluate = TINY["evaluate"] | {"features": ["judge"]}  # without CLIP's, whose imports take longer than the drawing
    (project.folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"evaluate": evaluate}))
    write_search(project.folder, trials=1, settings={}, space={"guidance": {"low": 1, "high": 6}})
    project.commit("search")
    command = ["condmix", "experiments", "search", "small"]
    process = subprocess.Popen(
        [project.python, "-m", *command], cwd=project.folder, env=project.environment, stderr=subprocess.DEVNULL
    )
    logs = project.folder / ".checkpoints" / "logs"
    while not any(logs.glob("search_small-*.log")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL

    table = project.run(*command).stdout
    (name,) = done(project.folder)
    assert table.endswith(f"dvc exp apply {name}\n")
    assert [path.stem for path in logs.glob("search_small-*.log")] == [name]  # what was killed was not given up
    (study,) = optuna.get_all_study_names(storage := f"sqlite:///{project.folder}/.checkpoints/searches/small.sqlite")
    found = optuna.load_study(study_name=study, storage=storage)
    assert [trial.state for trial in found.trials] == [TrialState.COMPLETE]

    for key, value in {"user.name": "t", "user.email": "t@t"}.items():  # without which DVC applies nothing
        project.run("git", "config", key, value)
    project.run("dvc", "exp", "apply", name)
    best = project.metrics("experiment")
    (judged,) = best["sweep"]
    assert judged["residual"] == found.best_value
    assert judged["guidance"] == best["guidance"] == found.best_params["guidance"]
    assert f"{best['residual']:.3g}" in table
