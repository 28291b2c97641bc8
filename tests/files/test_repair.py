"""What a killed DVC leaves is mended; what DVC can read is never touched."""

import subprocess

import pytest

from condmix.files.repair import repair

WHOLE = """schema: '2.0'
stages:
  one:
    cmd: a
    outs:
    - path: out
      md5: d41d8cd98f00b204e9800998ecf8427e
"""
LATER = WHOLE + "  two:\n    cmd: b\n"


def git(folder, *arguments):
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "dvc.lock").write_text(WHOLE)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "dvc.lock")
    git(tmp_path, "commit", "-qm", "reproduced")
    return tmp_path


@pytest.mark.parametrize("left", ["", "\n", "sche", LATER[:-3] + "[", "- a list", "stages:\n  one: 3\n"])
def test_git_has_a_copy(project, left):
    (project / "dvc.lock").write_text(left)
    (said,) = repair(project)
    assert (project / "dvc.lock").read_text() == WHOLE
    assert "git's copy" in said and "\n" not in said
    assert not repair(project)


@pytest.mark.parametrize("content", [WHOLE, LATER, "schema: '2.0'\n", "<<<<<<< HEAD\n=======\n>>>>>>> other\n"])
def test_what_parses_or_is_being_merged_is_left_alone(project, content):
    (project / "dvc.lock").write_text(content)
    assert not repair(project)
    assert (project / "dvc.lock").read_text() == content


def test_the_staged_copy_is_newer_than_the_committed_one_if_it_is_whole(project):
    for staged, expected in ((LATER, LATER), ("", WHOLE)):
        (project / "dvc.lock").write_text(staged)
        git(project, "add", "dvc.lock")
        (project / "dvc.lock").write_text("")
        assert repair(project)
        assert (project / "dvc.lock").read_text() == expected


def test_git_has_none(tmp_path):
    (tmp_path / "dvc.lock").write_text("")
    (said,) = repair(tmp_path)
    assert not (tmp_path / "dvc.lock").exists() and "removed" in said
    assert not repair(tmp_path)


def test_the_list_of_running_processes(project):
    running = project / ".dvc/tmp/rwlock"
    running.parent.mkdir(parents=True)
    running.write_text('{"read": {}}')
    assert not repair(project)
    running.write_text("")
    (said,) = repair(project)
    assert "rwlock" in said and not running.exists()
