"""A file or folder is the old one or the new one, nothing is left beside it, and locks hold."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from condmix.files.atomic import exclusive, replacing, replacing_folder, scratch, write_json


def test_the_new_content_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "made" / "on the way" / "facts.json"
    for content in ({"n": 1}, {"n": 2}):
        write_json(path, content)
        assert json.loads(path.read_text()) == content
    assert [entry.name for entry in path.parent.iterdir()] == ["facts.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_who_may_read_a_file_is_up_to_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a.safetensors") as part:
            save_file({"a": torch.zeros(1)}, part)
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == mode


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(path) as part:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    path = tmp_path / "weights"
    with replacing(path) as left:
        left.write_text("old")
    left.write_text("from a process that was killed")
    with replacing(path) as part:
        assert part == left
        part.write_text("new")
    assert path.read_text() == "new" and not left.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "facts.json", {"loss": value})
    assert not list(tmp_path.iterdir())


def in_another_process(code, *arguments):
    """A Python process that has printed its first line."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    process.stdout.readline()
    return process


SCRATCH = """
import sys
from pathlib import Path
from condmix.files.atomic import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "large").write_text("half")
    print("at work", flush=True)
    sys.stdin.read()
"""


def test_a_scratch_folder_is_removed_however_its_block_ends(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path / "made" / ".work") as folder:
        (folder / "large").write_text("half")
        raise KeyboardInterrupt
    with scratch(tmp_path / "made" / ".work") as folder:
        assert not list(folder.iterdir())
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch])
def test_what_stands_in_the_place_of_a_scratch_folder_stays_and_is_not_waited_for(make, tmp_path):
    make(tmp_path / ".work")
    with pytest.raises(FileExistsError), scratch(tmp_path / ".work"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == [".work"]


def test_the_scratch_of_a_killed_process_is_removed_by_the_next(tmp_path):
    (tmp_path / ".work.a1b2").mkdir()  # as earlier versions named it
    killed = in_another_process(SCRATCH, tmp_path / ".work")
    killed.kill()
    killed.wait()
    assert (tmp_path / ".work" / "large").exists()
    with scratch(tmp_path / ".work") as folder:
        assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [".work"]
        assert not list(folder.iterdir())
    assert not list(tmp_path.iterdir())


def test_the_scratch_of_a_living_process_is_left_alone(tmp_path):
    neighbour = in_another_process(SCRATCH, tmp_path / ".work")
    late = subprocess.Popen([sys.executable, "-c", SCRATCH, tmp_path / ".work"], stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        late.wait(1)
    assert (tmp_path / ".work" / "large").exists()
    neighbour.communicate(b"")
    assert (neighbour.returncode, late.wait()) == (0, 0)
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_old_ones_place_as_a_whole(tmp_path):
    folder = tmp_path / "made" / "packed"
    for name in ("old", "new"):
        with replacing_folder(folder) as part:
            (part / name).touch()
            assert name == "old" or (folder / "old").exists()
    assert [entry.name for entry in folder.iterdir()] == ["new"]
    with pytest.raises(OSError, match="No space"), replacing_folder(folder):
        raise OSError(28, "No space left on device")
    assert [entry.name for entry in folder.iterdir()] == ["new"] and list(folder.parent.iterdir()) == [folder]


def test_who_needs_a_lock_says_who_has_it_and_waits(tmp_path):
    code = """
import sys
from pathlib import Path
from condmix.files.atomic import exclusive
with exclusive(Path(sys.argv[1]), "the stage encode"):
    print("at work", flush=True)
    sys.stdin.read()
"""
    lock = tmp_path / "locks" / "encode"
    holder = in_another_process(code, lock)
    late = subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = late.stderr.readline().decode()
    assert said.startswith(f"condmix: the stage encode is running in process {holder.pid} on ")
    assert said.endswith("; waiting for it to end\n") and late.poll() is None
    holder.kill()  # the dead hold no lock
    holder.wait()
    assert late.wait() == 0 and not late.stderr.read()
    with exclusive(lock, "the stage encode"):
        pass
