"""A sample of the malformed inputs (tests/support/malformed): each ends in one sentence, or does no harm."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from malformed import damage, runner
from malformed.runner import Case, Runner

TESTS = Path(__file__).parents[1]


def malformed(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent / 'src'}:{TESTS / 'support'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "malformed", "--folder", str(folder), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_a_sample_of_pictures_and_archives(tmp_path):
    done = malformed(tmp_path, "--light", "--every", "23")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-3000:]}"
    assert "archives" in done.stdout and "folder" in done.stdout and "webdataset" in done.stdout


def test_a_fault_shows_as_what_it_is(tmp_path, monkeypatch):
    """Of a command that answers as each kind of fault does."""
    (tmp_path / "world").mkdir()
    answers = {
        "TRACEBACK": "raise KeyError('x')",
        "ACCEPTED": "open('made', 'w').write(str(damaged))",
        "SAME": "open('made', 'w').write('same')",
        "HANG": "__import__('time').sleep(60)",
        "SENTENCE": "print('condmix: it is damaged', file=sys.stderr); sys.exit(1)",
        "LINES": "print('it is damaged', file=sys.stderr); sys.exit(1)",
        "RAW": "print('condmix: it is\\r damaged', file=sys.stderr); sys.exit(1)",
        "CRASH": "os.kill(os.getpid(), 9)",
    }

    def command(arguments):
        try:
            exec(answers[arguments[0]], {"sys": sys, "os": os, "damaged": Path("damage").exists()})  # noqa: S102
        except SystemExit as ended:
            return ended.code
        except KeyError:
            traceback.print_exc()
            return 1
        return 0

    monkeypatch.setattr(runner, "condmix", command)
    monkeypatch.setattr(runner, "SECONDS", 0.5)
    monkeypatch.setattr(runner, "PATIENCE", 2)
    cases = [
        Case("x", name, "world", lambda project: (project / "damage").touch(), ((name,),), "damage") for name in answers
    ]
    assert [verdict.verdict for verdict in Runner(tmp_path).run(cases)] == list(answers)


@pytest.mark.parametrize("value", [{"a": 1, "b": [True, {"c": "x"}]}])
def test_every_key_is_changed(value):
    names = damage.json_keys(value, 3, 2)
    assert {"a missing", "b missing"} <= names.keys()
    assert all(document != value for document in names.values())
    first = damage.first_keys(value)
    assert {"a missing", "a list", "a NaN", "b missing", "b number", "b text"} <= first.keys()
    assert all(document != value for document in first.values())
