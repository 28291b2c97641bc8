"""Errors of the operating system end in one sentence, at the command line and in processes of our own."""

import errno
import os
import sqlite3
import subprocess
import sys

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import SafetensorError
from safetensors.torch import save_file

from condmix import CondmixError
from condmix.cli import Cli
from condmix.files.atomic import replacing, write_text
from condmix.runtime import oserrors
from condmix.runtime.processes import spawn


def invoke(action, *options):
    """What the command line makes of a command that calls `action`."""

    @click.group(cls=Cli)
    @click.option("--debug", is_flag=True)
    def group(debug):
        pass

    group.command("act")(action)
    return CliRunner().invoke(group, [*options, "act"])


def a_folder(path):
    path.mkdir()
    return lambda: write_text(path, "text")


def a_folder_to_read(path):
    path.mkdir()
    return path.read_bytes


def a_file_for_a_folder(path):
    path.write_text("a file")
    return lambda: path.mkdir(exist_ok=True)


def a_file_on_the_way(path):
    path.write_text("a file")
    return lambda: (path / "below").read_bytes()


def a_loop(path):
    path.symlink_to(path)
    return path.read_bytes


def a_long_name(path):
    return lambda: write_text(path.with_name("x" * 300), "text")


def nothing(path):
    return path.read_bytes


def full_device(path):
    def write():
        with open("/dev/full", "w") as file:
            file.write("text")

    return write


REAL = {
    a_folder: "is a folder, but a file is expected there: move it away",
    a_folder_to_read: "is a folder, but a file is expected there: move it away",
    a_file_for_a_folder: "exists already and is not what is expected there: move it away",
    a_file_on_the_way: "a part of it is a file and not a folder: move that file away",
    a_loop: "is a symbolic link that leads back to itself: delete it",
    a_long_name: "is too long a name for the file system",
    nothing: "there is no ",
    full_device: "the disk is full, so it could not be written: free some space",
}


@pytest.mark.parametrize("trouble", REAL, ids=lambda trouble: trouble.__name__)
def test_what_the_system_refuses_is_said_in_one_line_that_names_the_file(tmp_path, trouble):
    if trouble is full_device and not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    result = invoke(trouble(tmp_path / "thing"))
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("condmix: ") and REAL[trouble] in line and "Errno" not in line
    assert trouble in (full_device, a_long_name) or str(tmp_path / "thing") in line


@pytest.mark.parametrize(
    "number",
    [errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.EIO, errno.ESTALE],
)
def test_other_numbers_have_a_sentence_too(number):
    text = oserrors.sentence(OSError(number, os.strerror(number), "a/b"))
    assert os.strerror(number) not in text and ("a/b" in text or "open files" in text) and ": " in text


def test_a_number_without_a_sentence_keeps_the_systems_words():
    assert oserrors.sentence(OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b")) == (
        "b: Invalid cross-device link"
    )


DISGUISES = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded", "a"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError("1000000 requested and 8176 written"),  # numpy
    OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),  # h5py
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),  # torch.save
    sqlite3.OperationalError("database or disk is full"),
]


@pytest.mark.parametrize("error", DISGUISES, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_known_in_every_disguise(tmp_path, error):
    assert "the disk is full" in oserrors.sentence(error)
    with pytest.raises(OSError) as found, replacing(tmp_path / "model"):
        raise error
    assert oserrors.sentence(found.value) == (
        f"the disk is full, so {tmp_path / 'model'} could not be written: free some space and run again"
    )


def test_a_full_disk_behind_another_error():
    try:
        try:
            raise DISGUISES[0]
        except OSError as error:
            raise KeyError("a library's own") from error
    except KeyError as error:
        assert "the disk is full" in oserrors.sentence(error)


def test_libraries_still_say_what_they_are_recognised_by(tmp_path):
    """The real thing: a device that is always full (numpy, torch.save) and SQLite with a limit on its pages."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as numpy_error, open("/dev/full", "wb") as file:
        np.ones(10**6).tofile(file)
    with pytest.raises(RuntimeError) as torch_error:
        torch.save({"a": torch.ones(10**6)}, "/dev/full")
    database = sqlite3.connect(tmp_path / "db")
    database.execute("create table t (a)")
    database.execute("pragma max_page_count = 3")
    with pytest.raises(sqlite3.OperationalError) as sqlite_error:
        database.execute("insert into t values (?)", ("x" * 10**6,))
    for error in (numpy_error, torch_error, sqlite_error):
        assert oserrors.disk_full(error.value), error.value
    (tmp_path / "folder").mkdir()
    with pytest.raises(SafetensorError) as safetensors_error:
        save_file({"a": torch.ones(1)}, tmp_path / "folder")
    assert "(os error 21)" in str(safetensors_error.value) and not oserrors.disk_full(safetensors_error.value)


@pytest.mark.parametrize("library", [np, torch])
def test_exhausted_memory_ends_in_a_sentence(library):
    result = invoke(lambda: library.empty(10**16))
    assert result.exit_code == 1 and result.output.startswith("condmix: there is not enough memory: ")
    assert len(result.output.splitlines()) == 1


def test_our_own_errors_pass_debug_shows_the_traceback_and_a_bug_stays_a_bug():
    def fail():
        raise CondmixError("no fusion")

    assert invoke(fail).output == "condmix: no fusion\n"
    assert isinstance(invoke(fail, "--debug").exception, CondmixError)
    assert isinstance(invoke(lambda: {}["bug"]).exception, KeyError)


def test_control_characters_do_not_reach_the_terminal():
    def fail():
        raise CondmixError("no picture \x1b[31m/a\nb\udcff.png – é")

    assert invoke(fail).output == "condmix: no picture \\x1b[31m/a\\nb\\udcff.png – é\n"


TALKS = """
from condmix.cli import Cli
import click
@click.group(cls=Cli)
def group(): pass
@group.command()
def talk():
    print("x" * 10**6)
group(["talk"])
"""


def test_a_reader_that_goes_away_ends_the_command_without_a_word():
    process = subprocess.Popen([sys.executable, "-c", TALKS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 1


def fill_the_disk(path):
    with replacing(path):
        raise DISGUISES[2]


def test_a_process_of_our_own_ends_in_the_same_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with pytest.raises(CondmixError, match=f"the disk is full, so {tmp_path / 'model'} could not be written"):
        spawn(1, fill_the_disk, tmp_path / "model")
