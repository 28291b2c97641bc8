"""Fixtures of all tests."""

import gc
import os
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import forked as forking
from dvc_project import TINY, Project
from tiny_project import PARAMS, make_project

# The tests that need a project in which `dvc repro` has run, as their node ids begin.
OF_REPRODUCED = (
    "tests/project/test_dvc.py::",
    "tests/experiments/test_runs.py::test_a_killed_grid",
    "tests/experiments/test_trials.py::test_a_search_of_a_real_run",
)
# Files whose tests share what takes seconds to make.
SHARING = ("tests/project/test_outputs.py", "tests/tracking/test_registry.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker takes what would otherwise be made twice. xdist begins with the most tests, the first of these."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return "reproduced" if nodeid.startswith(OF_REPRODUCED) else file if file in SHARING else nodeid

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """The list above is whole."""
    for item in items:
        assert "reproduced" not in item.fixturenames or item.nodeid.startswith(OF_REPRODUCED), item.nodeid


@pytest.fixture(autouse=True)
def forgetful_accelerate():
    """Accelerate keeps its state for as long as a process lives: without this, a test would find the one before."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # as Accelerate's own tests do
    GradientState._reset_state()


@pytest.fixture(scope="session", autouse=True)
def accelerate_leaves_garbage():
    """Before each batch size that it tries, Accelerate looks at all objects of all libraries: a fifth of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("accelerate.utils.memory.gc", SimpleNamespace(collect=int))
        yield


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage():
    """Nor need Python look at what earlier modules have imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["fp32", "bf16"])
def arithmetic(request, monkeypatch):
    """The arithmetic that `precision: auto` stands for: a test with this fixture runs under both, on any machine."""
    monkeypatch.setattr("condmix.runtime.precision.in_hardware", lambda: request.param == "bf16")
    return request.param


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The parameters of a tiny project whose data are prepared and packed, with tracking in its own folder."""
    params = make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return params


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory):
    """A project in which `dvc repro` has run, committed: `copy` it to change it."""
    project = Project.create(tmp_path_factory.mktemp("reproduced") / "project", "tiny", TINY)
    first = project.run("dvc", "repro")
    assert {f"train@{variant}" for variant in PARAMS["variants"]} <= project.ran(first.stdout)
    project.commit("reproduced")
    return project


@pytest.fixture
def forked(monkeypatch):
    """The module of this name, from whose process also come those that condmix itself starts."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr("condmix.runtime.processes.start_processes", forking.start_processes)
    return forking


@pytest.fixture
def one_thread():
    """Sums are rounded differently on other numbers of threads; for tests that compare bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
