"""What decides a result (condmix.pipeline) against the code, the settings and dvc.yaml; and the layers."""

import fnmatch
import functools
import os
import shutil
from pathlib import Path

import pytest
import yaml

from condmix import CondmixError, pipeline
from condmix.pipeline import PACKAGE, closure, code_sha256, declared, flat, key, stage_code, tree_sha256, view
from condmix.settings.load import load
from what_counts import expanded, with_value

ROOT = Path(__file__).parents[2]
STAGES = list(pipeline.read(ROOT)["stages"])
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, whose files a test may change."""
    folder = tmp_path_factory.mktemp("copy") / "condmix"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def params():
    return load(ROOT)


def test_the_lists_in_dvc_yaml_are_those_that_the_code_gives():
    text = (ROOT / "dvc.yaml").read_text()
    assert pipeline.written(text) == text, "stale: python -m condmix.pipeline"
    assert pipeline.written(text.replace("      - src/condmix/diffusion/unet.py\n", "")) == text
    for stage, content in pipeline.read(ROOT)["stages"].items():
        listed = {dep.removeprefix("src/condmix/") for dep in content["deps"] if dep.startswith("src/")}
        assert {name.rstrip("/") for name in stage_code(stage)} <= listed


def test_a_changed_file_changes_the_keys_of_the_stages_in_whose_closure_it_is_and_no_other(package, monkeypatch):
    code = {stage: stage_code(stage, package) for stage in STAGES}  # which a comment does not change
    names = {stage: expanded(files, package) for stage, files in code.items()}
    once = functools.cache(lambda path, modified: tree_sha256(path))
    monkeypatch.setattr(
        pipeline,
        "tree_sha256",
        lambda path, *given: once(path, path.stat().st_mtime_ns) if path.is_file() else tree_sha256(path, *given),
    )

    def keys():
        return {stage: code_sha256(files, package) for stage, files in code.items()}

    before = keys()
    assert all(names.values())
    for path in sorted(path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        content, times = path.read_bytes(), path.stat()
        path.write_bytes(content + b"\n# changed\n")
        after = keys()
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        changed = {stage for stage in STAGES if after[stage] != before[stage]}
        assert changed == {stage for stage in STAGES if path.relative_to(package).as_posix() in names[stage]}, path


@pytest.mark.filterwarnings("ignore:Pydantic serializer")  # the other value need not be a valid one
@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_that_a_stage_declares_is_part_of_its_key_and_no_other(stage, params, monkeypatch):
    monkeypatch.setattr(pipeline, "read", functools.cache(pipeline.read))  # not dvc.yaml again for each setting
    names = declared(stage, ROOT)
    before = key([], view(params, stage), [])
    for name in flat(params.model_dump(mode="json", exclude={"root", "profile"})):
        changed = key([], view(with_value(params, name.split("."), "another"), stage), []) != before
        covered = any(
            name == one or name.startswith(f"{one}.") for one in (*names, *pipeline.UNDECLARED.get(stage, ()))
        )
        assert changed == covered, name


def test_every_input_is_part_of_the_key(tmp_path, params):
    folder, file = tmp_path / "folder", tmp_path / "file"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a").write_text("1")
    file.write_text("2")
    keys = [key([], params, [folder, file])]
    for change in (
        lambda: (folder / "in" / "a").write_text("3"),
        lambda: (folder / "in" / "a").rename(folder / "b"),
        lambda: (folder / "in" / "c").write_text(""),
        lambda: file.write_text("4"),
    ):
        change()
        keys.append(key([], params, [folder, file]))
    assert len(set(keys)) == 5
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("")
    assert key([], params, [folder, file]) == keys[-1]


@pytest.mark.parametrize(
    ("changed", "readers"),
    [
        ("files/pictures.py", {"cifar10", "folder"}),
        ("datasets/folder.py", {"folder"}),
        ("datasets/_cifar_format.py", {"cifar10"}),
        ("datasets/coco.py", set()),
    ],
)
def test_a_reader_is_the_code_of_its_data_set(package, changed, readers):
    before = {name: pipeline.reader_sha256(name, package) for name in ("cifar10", "folder")}
    content = (package / changed).read_bytes()
    (package / changed).write_bytes(content + b"\n# changed\n")
    after = {name: pipeline.reader_sha256(name, package) for name in before}
    (package / changed).write_bytes(content)
    assert {name for name in before if after[name] != before[name]} == readers


def test_the_environment_and_settings_without_effect(params):
    plain = key([], params, [])
    assert key([], params, [], {"torch": "1"}) != plain
    quiet = params.model_copy(update={"train": params.train.model_copy(update={"log_every": 7})})
    assert key([], quiet, []) != plain
    assert key([], quiet, [], without=["train.log_every"]) == key([], params, [], without=["train.log_every"])


def test_a_stage_cannot_read_a_setting_that_it_does_not_declare(params):
    seen = view(params, "train")
    assert seen.train == params.train and seen.data.flip == params.data.flip and seen.paths.root == params.root
    for section, name in ((seen, "evaluate"), (seen.data, "dataset")):
        with pytest.raises(CondmixError, match=f'"{name}", but dvc.yaml does not list it') as error:
            getattr(section, name)
        assert isinstance(error.value, AttributeError)  # for getattr with a default, and for copies


def test_a_stage_or_setting_that_does_not_exist_is_named(tmp_path, params):
    with pytest.raises(CondmixError, match='no stage "trian"'):
        declared("trian", ROOT)
    stages = {"train": {"cmd": "", "deps": [], "params": [{"conf/${profile}.yaml": ["trian"]}]}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with pytest.raises(CondmixError, match='"trian", which does not exist; did you mean "train"'):
        view(params.model_copy(update={"root": tmp_path}), "train")


def test_what_is_called_neutral_exists_and_has_a_reason():
    for patterns in (pipeline.NEUTRAL, *pipeline.NEUTRAL_IN.values()):
        for pattern, reason in patterns.items():
            assert fnmatch.filter(FILES, pattern) and len(reason) > 20, pattern
    for stage in (*pipeline.NEUTRAL_IN, *pipeline.UNDECLARED):
        assert stage in STAGES


def test_closures_follow_functions_plugins_and_templates():
    assert "clip/shifted_diffusion.py" in closure("sampling/generate.py")  # through a chain of imports
    assert "samplers/" in closure("sampling/sample.py")  # by plugin("samplers", name)
    assert "metrics/" in closure("stages/evaluate.py") and "metrics/" not in closure("stages/train.py")
    templates = {f"reporting/templates/{name}" for name in ("report.html", "report.css", "page.html", "parts.html")}
    assert templates <= set(closure("stages/report.py"))
    assert "diffusion/unet.py" not in closure("stages/train.py", ["diffusion/model.py"])
