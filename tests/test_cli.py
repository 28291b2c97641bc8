"""The command line as a whole: what `--help` shows, and what other libraries may say."""

import re
import subprocess
import sys
import warnings

from click.testing import CliRunner

from condmix.cli import SECTIONS, main


def test_help_shows_every_command_once_and_none_outside_a_group():
    said = CliRunner().invoke(main, ["--help"]).output
    for name in main.commands:
        assert len(re.findall(rf"^  {name} ", said, re.MULTILINE)) == 1, name
    assert "Other:" not in said and all(f"{title}:" in said for title in SECTIONS)


def test_a_summary_is_not_cut(monkeypatch):
    said = " ".join(CliRunner().invoke(main, ["--help"], terminal_width=60).output.split())
    assert "Mend what a killed DVC leaves: a dvc.lock, or a list of running processes, that it can't read" in said


def test_warnings_of_other_libraries_are_shown_on_request_alone(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    monkeypatch.setattr("condmix.settings.content.content_sha256", warned)
    child = [sys.executable, "-c", "import warnings; warnings.warn('of a process')"]
    for options, shown in ([], False), (["--debug"], True):
        monkeypatch.delenv("PYTHONWARNINGS", raising=False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            CliRunner().invoke(main, [*options, "hash", "."])
            assert bool(caught) == shown
            process = subprocess.run(child, capture_output=True, text=True)
        assert ("of a process" in process.stderr) == shown


def warned(path):
    warnings.warn("of a library", stacklevel=2)
    return "0" * 64


def test_an_unknown_variant_is_answered_with_those_that_exist():
    done = subprocess.run(
        [sys.executable, "-m", "condmix", "generate", "--variant", "nope", "--caption", "a ring"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert 'no variant "nope"; found: class_v1, class_v2, caption, experiment' in done.stderr
