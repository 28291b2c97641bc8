"""One process at a time runs a stage (that another one waits, and says so: tests/files/test_atomic.py)."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock, Timeout

from condmix.cli import main
from condmix.stages import check, pack, report


@pytest.fixture
def locked(project, monkeypatch):
    """{stage: whether its lock was held while it ran}, filled by the stages check, report and pack."""
    found = {}

    def held(stage):
        try:
            with FileLock(Path(".checkpoints", "locks", stage), timeout=0):
                return False
        except Timeout:
            return True

    monkeypatch.setattr(check, "main", lambda params: found.update(check=held("check")))
    monkeypatch.setattr(report, "main", lambda params: found.update(report=held("report")))
    monkeypatch.setattr(pack, "main", lambda params, variant: found.update(pack=held(f"pack@{variant}")))
    return found


def run(*arguments):
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_a_stage_is_locked_while_it_runs_each_variant_by_itself(locked):
    Path(".checkpoints", "locks").mkdir(parents=True)
    with FileLock(Path(".checkpoints", "locks", "pack@class_v1")):
        run("check")
        run("report")
        run("pack", "experiment")
    assert locked == {"check": True, "report": True, "pack": True}
    with FileLock(Path(".checkpoints", "locks", "report")):  # it is free again
        pass


def test_of_a_launchers_processes_one_locks(locked, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Path(".checkpoints", "locks").mkdir(parents=True)
    with FileLock(Path(".checkpoints", "locks", "pack@experiment")):  # by the first of them
        run("pack", "experiment")
    assert "pack" in locked
