"""Stages run by hand: they open what dvc.yaml says of them, and replace outputs that are links into DVC's cache.

DVC notices a change of each file and setting that a stage has there, for this stage and no other.
"""

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from condmix import pipeline
from condmix.cli import main
from every_stage import SETTINGS, STAGES
from what_counts import listed

ROOT = Path(__file__).parents[2]
PLACES = ("data", "models", "metrics")
KEPT = ("data/tiny/partial", "data/tiny/statistics", "data/tiny/drawn")  # under keys, or removed by the same stage
opened: set[str] = set()
called: set[str] = set()
# What a stage may run beside its closure: neutral modules, those that they alone import, and the command line.
NEUTRAL = (*pipeline.NEUTRAL, "cli.py", "reporting/progress.py", "settings/*.py", "tracking/*.py")
READERS_OWN = "files/pictures.py"  # the decoder, where the readers of data sets are neutral


def note(event, arguments):
    """The names of files that Python opens; an audit hook, which can't be removed."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        opened.add(os.path.relpath(arguments[0]))


def note_call(frame, event, _):
    """The names of files whose functions are called, for sys.settrace; imports count where they are made."""
    if frame.f_code.co_name != "<module>":
        called.add(frame.f_code.co_filename)


def run_all(trace=None):
    """Every stage in turn; returns the files that each opened and, if traced by `note_call`, ran."""
    found, ran = {}, {}
    for stage in STAGES:
        opened.clear()
        called.clear()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            done = CliRunner().invoke(main, stage, catch_exceptions=False)
        finally:
            sys.settrace(before)
        assert done.exit_code == 0, f"{stage}: {done.output[-2000:]}"
        found[stage[0]] = {
            name for name in opened if name.split("/")[0] in PLACES and "/." not in name and Path(name).is_file()
        }
        files = [Path(name) for name in called if Path(name).is_relative_to(pipeline.PACKAGE)]
        ran[stage[0]] = {file.relative_to(pipeline.PACKAGE).as_posix() for file in files}
    return found, ran


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A project in which every stage ran once, what each stage opened, and what it ran."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "conf").mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(settings | {"profile": "tiny", "variants": ["experiment"]}))
    (folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    sys.addaudithook(note)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("CONDMIX_TRACKING", "off")
        patch.delenv("DVC_ROOT", raising=False)
        yield folder, *run_all(note_call)


def state(folder):
    """Content and time of change of every file."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def entries(stage, *kinds):
    """What dvc.yaml lists under these keys of a stage, with the names of this project."""
    content = pipeline.read(ROOT)["stages"][stage]
    listed = [entry for kind in kinds for entry in content.get(kind, ())]
    named = [entry if isinstance(entry, str) else next(iter(entry)) for entry in listed]
    return [one.replace("${profile}", "tiny").replace("${item.variant}", "experiment") for one in named]


def below(name, folders, separator="/"):
    """Whether a file or setting is one of these, or in one of them."""
    return any(f"{name}{separator}".startswith(f"{folder}{separator}") for folder in folders)


@pytest.mark.parametrize("stage", [stage[0] for stage in STAGES])
def test_a_stage_opens_what_it_declares_and_nothing_else(work, stage):
    """Or DVC would not notice a change of it. What the metrics say is in the details too, and is compared with them."""
    named = entries(stage, "deps", "outs", "metrics", "plots")
    named += ["metrics/experiment.json"] if stage == "report" else []
    assert not {name for name in work[1][stage] if not below(name, (*named, *KEPT))}


@pytest.mark.parametrize("stage", [stage[0] for stage in STAGES])
def test_a_stage_runs_what_it_declares_and_what_cannot_change_a_number(work, stage):
    """Whatever way a module is reached: dvc.yaml is compared with what the syntax trees say in test_pipeline.py."""
    own = pipeline.NEUTRAL_IN.get(stage, {})
    neutral = (*NEUTRAL, *own, *([READERS_OWN] if pipeline.READERS in own.values() else []))
    ran = {name for name in work[2][stage] if not any(fnmatch.fnmatch(name, pattern) for pattern in neutral)}
    assert f"stages/{stage}.py" in ran and ran <= listed(stage)


@pytest.fixture(scope="module")
def recorded(work, tmp_path_factory):
    """A copy of the project, of which DVC has recorded every stage as finished."""
    folder = tmp_path_factory.mktemp("recorded") / "project"
    shutil.copytree(work[0], folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    Repo.init(str(folder), no_scm=True).close()
    with Repo(str(folder)) as repo:
        with contextlib.chdir(folder):
            repo.commit(force=True)
            assert repo.status() == {}
        yield repo


def dependencies(repo, settings):
    """{stage: what it depends on}, its settings or the others."""
    return {
        stage.name.split("@")[0]: [dep for dep in stage.deps if isinstance(dep, ParamsDependency) == settings]
        for stage in repo.index.stages
    }


def test_a_changed_byte_of_any_file_concerns_the_stages_that_read_it_and_no_other(recorded):
    root = Path(recorded.root_dir)
    readers = {stage[0]: entries(stage[0], "deps") for stage in STAGES}
    files = [path for top in (*PLACES, "src") for path in sorted((root / top).rglob("*")) if path.is_file()]
    assert len(files) > 200
    known = dependencies(recorded, settings=False)
    for path in files:
        name, content = path.relative_to(root).as_posix(), path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if content else b"x")
        found = {  # the files and folders that are elsewhere are as `recorded` found them
            stage for stage, deps in known.items() if any(path.is_relative_to(d.fs_path) and d.status() for d in deps)
        }
        path.write_bytes(content)
        assert found == {stage for stage, deps in readers.items() if below(name, deps)}, name


@pytest.mark.parametrize("file", ["params.yaml", "conf/tiny.yaml"])
def test_another_value_of_any_setting_concerns_the_stages_that_declare_it_and_no_other(recorded, monkeypatch, file):
    path = Path(recorded.root_dir) / file
    text = path.read_text()
    settings = {stage[0]: pipeline.declared(stage[0], ROOT) for stage in STAGES}
    known = dependencies(recorded, settings=True)
    parsed = functools.cache(lambda text: json.loads(text) if text.startswith("{") else yaml.safe_load(text))
    # instead of YAML for every stage anew
    monkeypatch.setattr("dvc.dependency.param.load_path", lambda path, fs: parsed(Path(path).read_text()))
    for name in pipeline.flat(yaml.safe_load(text)):
        content = json.loads(json.dumps(parsed(text)))
        *sections, last = name.split(".")
        functools.reduce(dict.__getitem__, sections, content)[last] = "another"
        path.write_text(json.dumps(content))
        declaring = {stage for stage, names in settings.items() if below(name, names, ".")}
        assert {stage for stage, deps in known.items() if any(dep.status() for dep in deps)} == declaring, name
    path.write_text(text)


def test_no_stage_writes_through_a_link_into_the_cache(work, tmp_path):
    outputs = [path for top in PLACES for path in (work[0] / top).rglob("*") if path.is_file()]
    assert len(outputs) > 40 and not [path for path in outputs if path.name.startswith(".") or path.suffix == ".lock"]
    for number, path in enumerate(outputs):
        kept = tmp_path / str(number)
        path.rename(kept)
        kept.chmod(0o444)
        os.link(kept, path)
    shutil.rmtree(work[0] / ".checkpoints")  # or a training would find that nothing is left to do
    before = state(tmp_path)
    run_all()
    assert state(tmp_path) == before
