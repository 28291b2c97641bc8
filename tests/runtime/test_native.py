"""Compiling our C++ operation, and what happens where that can't be done."""

from functools import partial

import pytest
import torch

from condmix.runtime import native

CHECK = "from condmix.runtime import native; print(native.kernels())"


@pytest.fixture
def fresh(tmp_path, forked):
    """What a new process says, whose cache is empty."""
    return partial(forked.completed, exec, CHECK, {}, XDG_CACHE_HOME=tmp_path)


@pytest.mark.parametrize("compiler, reason", [("/bin/false", "exit code 1"), ("/nonexistent/c++", "No such file")])
def test_without_a_working_compiler_one_line_says_so_and_pytorch_is_used(fresh, compiler, reason):
    result = fresh(CXX=compiler)
    assert result.stdout == "torch\n"
    assert len(result.stderr.splitlines()) == 1 and reason in result.stderr


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path, fresh):
    (tmp_path / "condmix").write_text("a file where the folder should be")
    result = fresh()
    assert result.stdout == "torch\n" and len(result.stderr.splitlines()) == 1


def test_off_asks_for_pytorch_without_a_word(fresh):
    result = fresh(CONDMIX_NATIVE="off")
    assert (result.stdout, result.stderr) == ("torch\n", "")


@pytest.mark.skipif(not native.available(), reason="there is no C++ compiler here")
def test_a_damaged_file_is_compiled_again_and_serves_where_there_is_no_compiler(tmp_path, fresh, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = native._path()
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF, but no more than that")
    here = fresh()
    assert here.stdout.startswith("condmix ")
    assert path.stat().st_size > 10_000
    elsewhere = fresh(CXX="/nonexistent/c++")
    assert (elsewhere.stdout, elsewhere.stderr) == (here.stdout, "")


def test_source_pytorch_flags_processor_and_compiler_are_part_of_what_the_kernels_are(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: True)
    source, compiler = tmp_path / "norm_silu.cpp", tmp_path / "c++"
    source.write_text(native.SOURCE.read_text() + "// changed\n")
    compiler.write_text("#!/bin/sh\necho '\"99.1 (other)\"'\n")
    compiler.chmod(0o755)
    found = [native.kernels()]
    for change in (
        lambda patch: patch.setattr(native, "SOURCE", source),
        lambda patch: patch.setattr(native, "FLAGS", [*native.FLAGS, "-ffast-math"]),
        lambda patch: patch.setattr(torch, "__version__", "99.0.0"),
        lambda patch: patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "other instructions"),
        lambda patch: patch.setenv("CXX", str(compiler)),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            found.append(native.kernels())
    assert len(set(found)) == len(found) == 6
    assert found[-1].endswith("-99.1_other_") and native.kernels() == found[0]
    assert native._path().stem == f"norm_silu-{found[0].removeprefix('condmix ')}"  # what is loaded is what is named
