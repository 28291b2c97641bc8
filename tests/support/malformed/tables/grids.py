"""Grids of experiments, and what is committed beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from malformed import damage as d
from malformed.runner import Case, git
from malformed.tables import (
    VALUES,
    Command,
    conf_changed,
    edited_yaml,
    put,
    set_to,
)


def cases() -> Iterator[Case]:
    plan = ("experiments", "plan", "--grid", "g")

    def changed(
        name: str, change: Callable[[dict], Any], commands: tuple[Command, ...] = (plan,), allowed: str = ""
    ) -> Case:
        return Case(
            "grids",
            name,
            "grid",
            conf_changed(change, "conf/experiments/g.yaml"),
            commands,
            "conf/experiments/g.yaml",
            ("g.yaml",),
            allowed,
        )

    content = {
        "profile": "tiny",
        "seeds": [0, 1],
        "baseline": "one",
        "settings": {"train.images": 32},
        "experiments": {"one": {"says": "x", "perspectives": ["caption_1"], "fusion": "concat"}},
    }
    paths = [path for path in d.keys_of(content, 3)]
    for path in paths:
        key = ".".join(map(str, path))
        for what, value in VALUES.items():
            if value is ... and not isinstance(path[-1], str):
                continue
            if what not in ("missing", "null", "a text", "a list", "an object", "NaN", "2^64", "negative", "1.5"):
                continue  # each costs a second
            yield changed(f"{key} {what}", put(path, value), allowed="a valid value")
    for what, settings in {
        "of no section": {"nothing": 1},
        "of no setting": {"train.nothing": 1},
        "of a value": {"train.images.x": 1},
        "a number as key": {1: 2},
        "empty key": {"": 1},
        "dots": {"..": 1},
        "train.processes": {"train.processes": 2},
        "a whole section": {"train": {}},
        "of params.yaml": {"seed": 1},
        "null key": {None: 1},
        "NaN": {"train.lr": float("nan")},
        "text": {"train.images": "x"},
    }.items():
        yield changed(f"settings {what}", put(("settings",), settings))
        yield changed(f"experiments.one.settings {what}", put(("experiments", "one", "settings"), settings))
    for what, experiments in {
        "of odd names": {"a b": {}},
        "a number as name": {1: {}},
        "of null": {"one": None},
        "of text": {"one": "x"},
        "with a path": {"../x": {}},
    }.items():
        yield changed(f"experiments {what}", put(("experiments",), experiments))
    for name in ("", "nothing", "../experiments/g", "g\r", "x" * 300, ".", "g.yaml"):
        yield Case(
            "grids",
            f"--grid {name[:20]!r}",
            "grid",
            lambda _: None,
            (("experiments", "plan", "--grid", name),),
            compared=False,
        )
    texts = {
        "empty": "",
        "broken": "a: [1",
        "a list": "[]",
        "a number": "5",
        "deep": d.DEEP,
        "null": "null",
        "text": "x",
    }
    for file in ("dvc.lock", "dvc.yaml", "params.yaml", "conf/tiny.yaml"):
        for what, text in texts.items():
            yield Case(
                "grids",
                f"{file} at HEAD {what}",
                "grid",
                _committed(file, d.replaced(text)),
                (plan,),
                file,
                (file, Path(file).name),
            )
        yield Case("grids", f"{file} at HEAD missing", "grid", _committed(file, d.remove), (plan,), file, (file,))
        for what, place in (("UTF-16", d.encodings()["UTF-16"]), ("binary", d.encodings()["binary"])):
            yield Case("grids", f"{file} at HEAD {what}", "grid", _committed(file, place), (plan,), file, (file,))
    locks: dict[str, Callable[[dict], Any]] = {
        "stages a list": put(("stages",), []),
        "stages null": put(("stages",), None),
        "stages missing": put(("stages",), ...),
        "encode null": put(("stages", "encode"), None),
        "encode a list": put(("stages", "encode"), []),
        "encode without deps": put(("stages", "encode", "deps"), ...),
        "encode deps null": put(("stages", "encode", "deps"), None),
        "encode without outs": put(("stages", "encode", "outs"), ...),
        "encode outs a number": put(("stages", "encode", "outs"), 5),
        "encode outs of text": put(("stages", "encode", "outs"), ["x"]),
        "encode deps of text": put(("stages", "encode", "deps"), ["x"]),
        "encode outs without md5": put(("stages", "encode", "outs"), [{"path": "models/clip"}]),
        "encode outs without path": put(("stages", "encode", "outs"), [{"md5": "0"}]),
    }
    for what, change in locks.items():
        yield Case(
            "grids",
            f"dvc.lock at HEAD: {what}",
            "grid",
            _committed("dvc.lock", lambda path, change=change: edited_yaml(path, change)),
            (plan,),
            "dvc.lock",
            ("dvc.lock",),
        )
    pipelines: dict[str, Callable[[dict], Any]] = {
        "stages a list": put(("stages",), []),
        "stages missing": put(("stages",), ...),
        "train missing": put(("stages", "train"), ...),
        "evaluate missing": put(("stages", "evaluate"), ...),
        "evaluate null": put(("stages", "evaluate"), None),
        "evaluate without deps": put(("stages", "evaluate", "deps"), ...),
        "evaluate without cmd": put(("stages", "evaluate", "cmd"), ...),
        "evaluate deps a number": put(("stages", "evaluate", "deps"), 5),
        "evaluate params a number": put(("stages", "evaluate", "params"), 5),
        "evaluate outs a number": put(("stages", "evaluate", "outs"), 5),
        "evaluate deps of objects": put(("stages", "evaluate", "deps"), [{}]),
    }
    for what, change in pipelines.items():
        yield Case(
            "grids",
            f"dvc.yaml at HEAD: {what}",
            "grid",
            _committed("dvc.yaml", lambda path, change=change: edited_yaml(path, change)),
            (plan,),
            "dvc.yaml",
            ("dvc.yaml",),
            "another pipeline of a person's own",
        )
    yield Case(
        "grids", "no git", "grid", lambda project: shutil.rmtree(project / ".git"), (plan,), named=("git", "commit")
    )
    yield Case(
        "grids",
        "git without commits",
        "grid",
        lambda project: (shutil.rmtree(project / ".git"), git(project, "init", "-q")),
        (plan,),
        named=("git", "commit"),
    )
    yield Case(
        "grids",
        "HEAD broken",
        "grid",
        lambda project: (project / ".git/HEAD").write_text("nothing"),
        (plan,),
        named=("git", "commit"),
    )
    yield Case(
        "grids",
        "report of no runs",
        "grid",
        lambda _: None,
        (("experiments", "report", "--grid", "g"),),
        compared=False,
    )
    yield Case(
        "grids",
        "run of an uncommitted change",
        "grid",
        conf_changed(set_to("train.lr", 0.5)),
        (("experiments", "run", "--grid", "g"),),
        compared=False,
    )


def _committed(name: str, damage: Callable[[Path], None]) -> Callable[[Path], None]:
    def whole(project: Path) -> None:
        damage(project / name)
        git(project, "add", "-A", "--", name)
        git(project, "commit", "-qm", "damaged")

    return whole
