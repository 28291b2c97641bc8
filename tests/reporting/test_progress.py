"""Which stage begins, and how long the rest took."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from condmix.reporting.progress import clock, kept, line, stages, timed

EVERY = ["check", "train@caption", "train@experiment", "report"]
DVC = "stages:\n  check: {cmd: x}\n  train: {matrix: {variant: [x]}, cmd: x}\n  report: {cmd: x}\n"


@pytest.fixture
def params(tmp_path):
    (tmp_path / "dvc.yaml").write_text(DVC)
    return SimpleNamespace(root=tmp_path, profile="demo", variants=("caption", "experiment"))


def test_stages_of_variants_count_once_for_each():
    content = {"stages": {"check": {}, "train": {"matrix": {"variant": []}}, "report": {}}}
    assert stages(content, ("caption", "experiment")) == EVERY


def test_the_line_says_what_is_known():
    assert line(EVERY, "train@caption", {}) == "condmix: train caption, stage 2 of 4"
    took = {"train@caption": 163.0, "train@experiment": 140.2, "report": 2.0}
    assert line(EVERY, "train@caption", took).endswith("; it took 2:43 here last time, and those after it 2:22")
    assert line(EVERY, "report", took) == "condmix: report, stage 4 of 4; it took 0:02 here last time"
    assert line(EVERY, "train@caption", took, in_order=False).endswith("; it took 2:43 here last time")
    del took["report"]
    assert line(EVERY, "train@caption", took).endswith("those after it 2:20 without 1 that have not run yet")


def test_clock():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 11100)] == ["0:00", "1:00", "59:59", "3:05:00"]


def test_a_stage_that_ends_is_timed_and_one_that_fails_is_not(params):
    said, path = [], params.root / ".checkpoints/seconds/demo.json"
    with timed(params, "train@caption", said.append):
        pass
    with pytest.raises(KeyboardInterrupt), timed(params, "report", said.append):
        raise KeyboardInterrupt
    assert said == ["condmix: train caption, stage 2 of 4", "condmix: report, stage 4 of 4"]
    assert list(kept(path)) == ["train@caption"]


def test_where_stages_run_side_by_side_nothing_is_said_of_those_after(params, monkeypatch):
    said = []
    for stage in ("check", "report"):
        with timed(params, stage, said.append):
            pass
    monkeypatch.setenv("CONDMIX_SIDE_BY_SIDE", "2")
    with timed(params, "check", said.append):
        pass
    assert said[-1] == "condmix: check, stage 1 of 4; it took 0:00 here last time"


def test_stages_that_end_at_once_are_all_timed(params):
    names = [f"train@{variant}" for variant in "abcdefgh"]

    def run(name):
        for _ in range(20):
            with timed(params, name, lambda _: None):
                pass

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(run, names))
    assert sorted(kept(params.root / ".checkpoints/seconds/demo.json")) == names


def test_a_damaged_record_of_times_is_ignored(params):
    path, said = params.root / ".checkpoints/seconds/demo.json", []
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with timed(params, "check", said.append):
        pass
    assert said == ["condmix: check, stage 1 of 4"] and list(kept(path)) == ["check"]
