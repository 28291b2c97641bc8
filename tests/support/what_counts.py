"""What a key depends on, found by changing one thing at a time: a source file, a setting, a file that is read."""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from condmix import pipeline
from condmix.pipeline import PACKAGE, flat, tree_sha256
from condmix.settings.schema import Params

ROOT = Path(__file__).parents[2]
FILES = [path for path in sorted(PACKAGE.rglob("*")) if path.is_file() and path.suffix != ".pyc"]
Key = Callable[[], str]


def source_files(key: Key, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The package's files, relative to it, whose change changes the key. No file is written."""
    read = functools.cache(tree_sha256)
    monkeypatch.setattr(pipeline, "tree_sha256", lambda path, *given: _hashed(path, read, None, *given))
    before, found = key(), set()
    for changed in FILES:
        monkeypatch.setattr(
            pipeline, "tree_sha256", lambda path, *given, changed=changed: _hashed(path, read, changed, *given)
        )
        if key() != before:
            found.add(changed.relative_to(PACKAGE).as_posix())
    return found


def _hashed(path: Path, read: Callable[[Path], str], changed: Path | None, *given: str) -> str:
    if path == changed:
        return "another"
    return read(path) if path.is_file() else tree_sha256(path, *given)  # which comes back here for each file


def listed(stage: str) -> set[str]:
    """The package's files that dvc.yaml lists for a stage."""
    deps = [Path(dep) for dep in pipeline.read(ROOT)["stages"][stage]["deps"] if dep.startswith("src/condmix/")]
    return expanded(dep.relative_to("src/condmix").as_posix() for dep in deps)


def expanded(names: Iterable[str], package: Path = PACKAGE) -> set[str]:
    """Files of the package, relative to it, with those of each folder in its place."""
    found = set()
    for name in names:
        files = (package / name).rglob("*") if (package / name).is_dir() else [package / name]
        found |= {file.relative_to(package).as_posix() for file in files if file.is_file() and file.suffix != ".pyc"}
    return found


def settings(key: Callable[[Params], str], params: Params) -> Iterator[tuple[str, bool]]:
    """(its dotted name, whether another value of it changes the key of the settings) for each setting."""
    before = key(params)
    for name in flat(params.model_dump(mode="json", exclude={"root", "profile"})):
        yield name, key(with_value(params, name.split("."), "another")) != before


def with_value(section: BaseModel, path: list[str], value: object) -> BaseModel:
    """The settings with another value of one of them, unchecked."""
    first, *rest = path
    inner = getattr(section, first)
    if isinstance(inner, dict):  # settings of a plug-in's or a library's own
        return section.model_copy(update={first: {**inner, ".".join(rest): value}})
    return section.model_copy(update={first: with_value(inner, rest, value) if rest else value})


def files(key: Key, among: Iterable[Path]) -> set[Path]:
    """Those of the files whose change by a byte changes the key."""
    before, found = key(), set()
    for path in among:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        if key() != before:
            found.add(path)
        path.write_bytes(content)
    return found
