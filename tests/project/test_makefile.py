"""`make repro`: which variants run side by side, in how many threads, and what a failure leaves; with a false dvc."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
DVC = """#!/bin/sh
case "$*" in
  "status --json") echo "$STATUS"; exit $STATUS_CODE;;
  *--single-item*) echo "$* threads=$OMP_NUM_THREADS" >> calls;;
  *) echo "$*" >> calls;;
esac
case "$*" in *train@"$FAILING"*) exit 255;; esac
"""
FIRST, LAST = "repro judge prior pack", "repro"


@pytest.fixture
def repro(tmp_path):
    """Runs the target among commands that only say how they were called: (exit code, output, calls of dvc)."""
    shutil.copy(MAKEFILE, tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name, script in {"dvc": DVC, "condmix": "#!/bin/sh\n", "nproc": "#!/bin/sh\necho $PRETENDED_CORES\n"}.items():
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (tmp_path / name).touch()

    def run(stale, cores=2, jobs="2", failing="none", status_code=0):
        environment = {
            "PATH": os.environ["PATH"],
            "STATUS": json.dumps({stage: [] for stage in stale}),
            "STATUS_CODE": str(status_code),
            "PRETENDED_CORES": str(cores),
            "FAILING": failing,
        }
        done = subprocess.run(
            ["make", "repro", f"JOBS={jobs}"], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        calls = tmp_path / "calls"
        return done.returncode, done.stdout + done.stderr, calls.read_text().splitlines() if calls.exists() else []

    return run


def made(name, threads):
    return f"--wait-for-lock repro --single-item train@{name} evaluate@{name} threads={threads}"


@pytest.mark.parametrize(
    ("stale", "cores", "jobs", "threads"),
    [
        (["train@a", "evaluate@a", "train@b", "report"], 2, "2", {"a": 1, "b": 1}),
        (["train@a", "evaluate@b"], 8, "2", {"a": 4, "b": 4}),
        (["evaluate@a"], 8, "2", {"a": 8}),  # alone, it has all cores
        (["train@a", "train@b"], 1, "2", {"a": 1, "b": 1}),
        (["train@a", "train@b"], 4, "1", {"a": 4, "b": 4}),
        (["report"], 2, "2", {}),
    ],
)
def test_variants_that_are_not_up_to_date_share_the_cores(repro, stale, cores, jobs, threads):
    code, output, calls = repro(stale, cores, jobs)
    assert code == 0, output
    assert calls[0] == FIRST and calls[-1] == LAST
    assert sorted(calls[1:-1]) == sorted(made(name, number) for name, number in threads.items())


def test_the_others_are_made_where_one_variant_fails(repro):
    code, _, calls = repro(["train@a", "train@b", "train@c"], jobs="1", failing="a")
    assert code != 0
    assert calls == [FIRST, made("a", 2), made("b", 2), made("c", 2)]


def test_nothing_runs_after_a_status_that_fails(repro):
    code, _, calls = repro(["train@a"], status_code=255)
    assert code != 0 and calls == [FIRST]


@pytest.mark.parametrize("jobs", ["0", "", "two"])
def test_a_number_of_jobs_that_is_none_is_refused_at_once(repro, jobs):
    code, output, calls = repro(["train@a"], jobs=jobs)
    assert code != 0 and f"JOBS must be 1 or more, not '{jobs}'" in output and calls == []
