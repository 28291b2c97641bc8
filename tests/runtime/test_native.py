"""Compiling our C++ operation, and what happens where that can't be done."""

import os
import subprocess
import sys

import pytest

from condmix.runtime import native

CHECK = "from condmix.runtime import native; print(native.kernels())"


def fresh(tmp_path, **environment):
    """What a new process says, whose cache is empty."""
    return subprocess.run(
        [sys.executable, "-c", CHECK],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("compiler, reason", [("/bin/false", "exit code 1"), ("/nonexistent/c++", "No such file")])
def test_without_a_working_compiler_one_line_says_so_and_pytorch_is_used(tmp_path, compiler, reason):
    result = fresh(tmp_path, CXX=compiler)
    assert result.stdout == "torch\n"
    assert len(result.stderr.splitlines()) == 1 and reason in result.stderr


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path):
    (tmp_path / "condmix").write_text("a file where the folder should be")
    result = fresh(tmp_path)
    assert result.stdout == "torch\n" and len(result.stderr.splitlines()) == 1


def test_off_asks_for_pytorch_without_a_word(tmp_path):
    result = fresh(tmp_path, CONDMIX_NATIVE="off")
    assert (result.stdout, result.stderr) == ("torch\n", "")


@pytest.mark.skipif(not native.available(), reason="there is no C++ compiler here")
def test_a_damaged_file_is_compiled_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = native._path()
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF, but no more than that")
    assert fresh(tmp_path).stdout == "condmix\n"
    assert path.stat().st_size > 10_000


def test_another_source_has_another_file(tmp_path, monkeypatch):
    before = native._path()
    changed = tmp_path / "norm_silu.cpp"
    changed.write_text(native.SOURCE.read_text() + "// changed\n")
    monkeypatch.setattr(native, "SOURCE", changed)
    assert native._path() != before
