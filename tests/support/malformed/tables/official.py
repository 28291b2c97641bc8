"""COCO's annotations and CIFAR-10's batches."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    Command,
    set_to,
)


def cases() -> Iterator[Case]:
    yield from coco_annotations()
    yield from cifar_batches()


def coco_annotations() -> Iterator[Case]:
    name = "annotations_trainval2017.zip"

    def case(file: str, what: str, change: Callable[[dict], Any], commands: tuple[Command, ...]) -> Case:
        def damage(project: Path) -> None:
            path = project / "data/tiny/archives" / name
            content = json.loads(_entry(path, file))
            changed = change(content)
            written = (
                changed if isinstance(changed, bytes) else json.dumps(content if changed is None else changed).encode()
            )
            d.rewrite_zip(path, {file: written})

        return Case(
            "archives",
            f"{file.split('/')[1]}: {what}",
            "coco",
            damage,
            commands,
            f"data/tiny/archives/{name}",
            (name, file.split("/")[1]),
            "other pictures, classes or captions, consistent",
            checks=1,
        )

    def put(where: str, key: str, value: Any) -> Callable[[dict], None]:
        def change(content: dict) -> None:
            entry = content[where][0]
            if value is ...:
                del entry[key]
            else:
                entry[key] = value

        return change

    # `data check` first: what it accepts, the stages must read
    commands = (("data", "check"), ("prepare",), ("captions",))
    odd = {
        "missing": ...,
        "null": None,
        "a text": "x",
        "a list": [],
        "an object": {},
        "NaN": float("nan"),
        "10^30": 10**30,
        "negative": -1,
        "a fraction": 0.5,
        "true": True,
        "a text of a number": "1",
    }
    keys = {
        "annotations/captions_train2017.json": [
            ("images", "id"),
            ("images", "file_name"),
            ("annotations", "id"),
            ("annotations", "image_id"),
            ("annotations", "caption"),
        ],
        "annotations/instances_train2017.json": [
            ("annotations", "area"),
            ("annotations", "category_id"),
            ("annotations", "image_id"),
            ("categories", "id"),
            ("categories", "name"),
        ],
    }
    for file, places in keys.items():
        for where, key in places:
            for what, value in odd.items():
                yield case(file, f"{where}.{key} {what}", put(where, key, value), commands)
        for where in dict.fromkeys(where for where, _ in places):
            for what, value in {
                "missing": ...,
                "null": None,
                "a list": [],
                "an object": {},
                "a number": 5,
                "of null": [None],
                "of numbers": [5],
            }.items():
                yield case(
                    file,
                    f"{where} {what}",
                    set_to(where, value)
                    if value is not ...
                    else lambda content, where=where: content.pop(where) and None,
                    commands,
                )
            yield case(
                file,
                f"{where} the first twice",
                lambda content, where=where: content[where].append(content[where][0]),
                commands,
            )
        for what, document in d.TOPS.items():
            yield case(
                file,
                f"a JSON {what}",
                lambda content, document=document: document if document is not None else "null",
                commands,
            )
        for what, text in {"deep": d.DEEP, "not JSON": "{nothing}", "empty": "", "binary": "\0\x80"}.items():
            yield case(file, what, lambda content, text=text: text.encode("latin-1"), commands)
    for what, text in {"empty": "", "blank": " \n"}.items():
        yield case(
            "annotations/captions_train2017.json",
            f"all captions {what}",
            lambda content, text=text: [entry.update(caption=text) for entry in content["annotations"]] and None,
            (*commands, ("encode",)),
        )
    yield case(
        "annotations/captions_train2017.json",
        "a file name that escapes",
        put("images", "file_name", "../x.jpg"),
        commands,
    )
    yield case(
        "annotations/captions_train2017.json",
        "a file name twice",
        put("images", "file_name", "000000000002.jpg"),
        commands,
    )


def _entry(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def cifar_batches() -> Iterator[Case]:
    from condmix.datasets._cifar_format import ARCHIVE, FOLDER, python2_pickle, unpickle

    def case(member: str, what: str, change: Callable[[Any], bytes | None]) -> Case:
        def damage(project: Path) -> None:
            path = project / "data/tiny/archives" / ARCHIVE
            files = d.members_of(path)
            found = change(unpickle(files[f"{FOLDER}/{member}"], "a case"))
            files[f"{FOLDER}/{member}"] = found
            d.own_tar(path, {key: content for key, content in files.items() if content is not None}, "w:gz")

        return Case(
            "archives",
            f"{member}: {what}",
            "cifar",
            damage,
            (("data", "check"), ("prepare",)),
            f"data/tiny/archives/{ARCHIVE}",
            (ARCHIVE, member),
            "other classes, consistent",
            checks=1,
        )

    for what, content in {
        "missing": None,
        "empty": b"",
        "a pickle that runs": pickle.dumps(d.Harmless()),
        "a list": pickle.dumps([1]),
        "deep": b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b".",
        "a number": pickle.dumps(5),
        "a memo that is missing": b"\x80\x02h\x05.",
        "a huge bytes": b"\x80\x02B\xff\xff\xff\x7f",
        "half": b"\x80\x02}",
    }.items():
        yield case("data_batch_2", what, lambda _, content=content: content)
        yield case("batches.meta", what, lambda _, content=content: content)
    values = {
        "missing": ...,
        "a number": 5,
        "bytes": b"x",
        "an empty list": [],
        "one less": "less",
        "zeros": np.zeros((4, 9), np.uint8),
        "negative": [-1] * 4,
        "too large": [99] * 4,
        "of bytes": [b"x"] * 4,
    }
    for key in (b"labels", b"data"):
        for what, value in values.items():
            yield case("data_batch_1", f"{key.decode()} {what}", _batch(key, value, python2_pickle))
    for what, value in values.items():
        yield case("batches.meta", f"label_names {what}", _batch(b"label_names", value, python2_pickle))


def _batch(key: bytes, value: Any, dump: Callable[[Any], bytes]) -> Callable[[dict], bytes]:
    def change(content: dict) -> bytes:
        if value is ...:
            content.pop(key)
        else:
            content[key] = content[key][:-1] if isinstance(value, str) else value
        return dump({name: item for name, item in content.items()})

    return change
