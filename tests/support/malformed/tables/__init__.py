"""The tables: what is damaged, by which command it is read then, and where an answer other than a sentence is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from malformed import damage as d

Command = tuple[str, ...]
TRAIN, EVALUATE, PACK = ("train", "experiment"), ("evaluate", "experiment"), ("pack", "experiment")
DRAW = ("generate", "--n", "1", "--scale", "1", "--steps", "2", "--out", "o.png")
CAPTION = (*DRAW, "--caption", "a ring")
PRIOR = (*DRAW, "--variant", "class_v1", "--prompt", "a ring", "--prior")
FETCHED: tuple[Command, ...] = (("check",), ("fetch",), ("data", "check"))
WHOLE: tuple[Command, ...] = (
    *FETCHED,
    ("prepare",),
    ("captions",),
    ("encode",),
    ("generate_captions",),
    ("judge",),
    ("embed",),
    ("prior",),
    PACK,
    TRAIN,
    EVALUATE,
)

VALUES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "a text": "x",
    "an empty text": "",
    "a list": [],
    "a list of null": [None],
    "an object": {},
    "true": True,
    "zero": 0,
    "negative": -1,
    "a fraction": 0.5,
    "1.5": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "2^64": 2**64,
    "10^30": 10**30,
    "numbers reversed": [0.9, 0.1],
    "a NUL byte": "a\0b",
    "a lone surrogate": "\ud800",
    "a text of a number": "5",
}
READ = "read, or the right thing is said of it"

Change = Callable[[dict], Any]


def edited_yaml(path: Path, change: Change) -> None:
    """Changes the content of a YAML file."""
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def conf_changed(change: Change, name: str = "conf/tiny.yaml") -> Callable[[Path], None]:
    """What edits a settings file of a project."""
    return lambda project: edited_yaml(project / name, change)


def put(path: tuple[Any, ...], value: Any) -> Change:
    """Sets the value at a path, or with `...` takes it away."""

    def change(content: dict) -> None:
        if value is ...:
            d.at(content, path[:-1]).pop(path[-1], None)
        else:
            d.at(content, path[:-1])[path[-1]] = value

    return change


def set_to(key: str, value: Any) -> Change:
    """Sets a dotted key, and makes the sections that lead to it."""

    def change(content: dict) -> None:
        *sections, last = key.split(".")
        for section in sections:
            content = content.setdefault(section, {})
        content[last] = value

    return change
