"""The table in the terminal."""

import sqlite3
import subprocess

import pytest

from condmix.reporting.summary import MLFLOW_UI, WIDTH, summary
from condmix.stages.report import main as report
from fake_results import captions_variant, image_variant, project, without

LONG = [f"caption_{k}" for k in (1, 3, 5, 2, 4)] + ["image", "class"]


def table(text):
    return text.split("\n\n")[1].splitlines()


def test_rows_are_ranked_oracles_are_starred_and_numbers_are_the_jsons(tmp_path):
    text = summary(project(tmp_path, image_variant(), captions_variant()))
    head, first, second, oracle, judge = table(text)
    assert first.split()[:3] == ["1", "caption", "additive"] and "93.0%" in first and "2.53" in first
    assert second.split()[:2] == ["2", "class_v1"] and "86.0%" in second and "84.3%" in second
    assert oracle.startswith("*  class_v1") and "97.7%" in oracle and "0.777" in oracle
    assert "98.7%" in judge
    assert "* oracle" in text and MLFLOW_UI in text
    assert "500 pictures of the split test, guidance 3, ddim in 12 steps, seed 4" in text


def test_columns_are_aligned_and_fit_the_terminal(tmp_path):
    facts = {
        **captions_variant("experiment", perspectives=LONG),
        "fid": 12.0,
        "fd_dino": 3.0,
        "features": ["judge", "clip", "inception", "dino"],
    }
    lines = table(summary(project(tmp_path, image_variant(), captions_variant(), facts)))
    assert max(map(len, lines)) <= WIDTH
    assert len(set(map(len, lines))) == 1  # the last column is flush right
    assert all("…" in line for line in lines if "experiment" in line)


def test_tells_whether_the_report_is_there(tmp_path):
    params = project(tmp_path, captions_variant())
    assert "not written yet" in summary(params)
    report(params)
    assert str(params.paths.report / "index.html") in summary(params)


def test_data_without_attributes_or_oracle(tmp_path):
    text = summary(project(tmp_path, without(captions_variant(), "attribute_accuracy_mean", "judge_accuracy")))
    assert "oracle" not in text and "judge" not in table(text)[-1]


def test_says_where_the_runs_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = project(tmp_path, captions_variant())
    assert "#/experiments" not in summary(params)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("CREATE TABLE experiments (experiment_id INTEGER, name TEXT)")
        store.executemany("INSERT INTO experiments VALUES (?, ?)", [(0, "Default"), (7, "condmix")])
    assert "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning" in summary(params)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert "#/experiments" not in summary(params)


@pytest.mark.parametrize(("name", "email"), [("a", "a@b"), ("a", ""), ("", "a@b")])
def test_asks_for_the_git_identity_that_experiments_need(tmp_path, monkeypatch, name, email):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for variable in ("XDG_CONFIG_HOME", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(variable, raising=False)
    params = project(tmp_path, captions_variant())
    assert "git config" not in summary(params)  # no repository: no experiments
    subprocess.run(["git", "init", "-q"], check=True)
    for key, value in (("user.name", name), ("user.email", email)):
        subprocess.run(["git", "config", key, value], check=True)
    commands = ['git config --global user.name "Your Name"', "git config --global user.email you@example.com"]
    assert [command in summary(params) for command in commands] == [not (name and email)] * 2
