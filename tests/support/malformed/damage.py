"""Kinds of damage: {name: what it does to a file}, by the kind of the file.

Everything is deterministic. Damage that a reader cannot see is marked where the table is made, not here.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Damage = Callable[[Path], None]
RAN = "foreign-code-ran"
DEEP = "[" * 100_000 + "]" * 100_000
TEXTS = (".json", ".yaml", ".csv", ".jsonl", ".txt", ".tsv")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replaced(content: bytes | str) -> Damage:
    """The file's content is this instead."""

    def damage(path: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        mode = path.stat().st_mode if path.exists() else None
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if mode is not None:
            path.chmod(mode)

    return damage


def edited(change: Callable[[bytes], bytes]) -> Damage:
    """The file's content is changed."""
    return lambda path: replaced(change(path.read_bytes()))(path)


def bytewise(path: Path) -> dict[str, Damage]:
    """What can happen to any file; `path` is the whole one."""
    size = path.stat().st_size

    def flipped(share: float) -> Damage:
        def change(data: bytes) -> bytes:
            at = min(len(data) - 1, int(share * len(data)))
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

        return edited(change)

    noise = np.random.default_rng(0).integers(0, 256, max(size, 1), np.uint8).tobytes()
    found = {
        "missing": remove,
        "empty": replaced(b""),
        "half": edited(lambda data: data[: len(data) // 2]),
        "without its last byte": edited(lambda data: data[:-1]),
        "its first 8 bytes": edited(lambda data: data[:8]),
        "a bit flipped in byte 0": flipped(0),
        "a bit flipped in byte 9": flipped(9.5 / max(size, 10)),
        "a bit flipped in the middle": flipped(0.5),
        "a bit flipped at 9/10": flipped(0.9),
        "a bit flipped in the last byte": flipped(1),
        "zeros": replaced(bytes(size)),
        "noise": replaced(noise),
        "ends in noise": edited(lambda data: data + noise[:64]),
    }
    if path.suffix in TEXTS:
        found |= encodings()
    return found


def places() -> dict[str, Damage]:
    """Something else stands where the file should; of a file in a folder of the project, see `places_below` too."""

    def folder(path: Path) -> None:
        remove(path)
        path.mkdir(parents=True)

    def link(to: str) -> Damage:
        def damage(path: Path) -> None:
            remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(to if to != "itself" else path.name)

        return damage

    def fifo(path: Path) -> None:
        remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)

    return {
        "a folder": folder,
        "a FIFO": fifo,
        "a link to itself": link("itself"),
        "a link to nothing": link("nowhere"),
        "a link to an endless device": link("/dev/zero"),
    }


def places_below() -> dict[str, Damage]:
    """Something else stands where the file's folder should."""

    def parent(path: Path) -> None:
        remove(path.parent)
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.write_text("a file")

    return {"below a file": parent}


def encodings() -> dict[str, Damage]:
    return {
        "UTF-16": edited(lambda data: data.decode().encode("utf-16")),
        "Latin-1": edited(lambda data: data + b"\n# caf\xe9"),
        "with a byte order mark": edited(lambda data: b"\xef\xbb\xbf" + data),
        "binary": edited(lambda data: data + b"\xff\x80\x00"),
        "a NUL byte": edited(lambda data: data[: len(data) // 2] + b"\x00" + data[len(data) // 2 :]),
    }


# JSON

TOPS = {"number": 5, "text": "x", "list": [], "null": None, "true": True, "empty object": {}, "list of list": [[]]}
VALUES = {
    "null": None, "number": 5, "text": "x", "list": [], "object": {}, "true": True, "NaN": float("nan"),
    "infinity": float("inf"), "negative": -1, "huge": 10**30, "fraction": 0.5, "list of null": [None],
    "nested list": [[[]]], "zero": 0,
}  # fmt: skip


def json_tops() -> dict[str, Damage]:
    """Another document in place of a JSON file's."""
    found = {f"a JSON {name}": replaced(json.dumps(value)) for name, value in TOPS.items()}
    return found | {
        "deep": replaced(DEEP),
        "deep objects": replaced('{"a":' * 100_000 + "1" + "}" * 100_000),
        "not JSON": replaced("{nothing}"),
        "a number of 10,000 digits": replaced("1" * 10_000),
        "two documents": edited(lambda data: data + data),
        "a lone surrogate": replaced('{"a": "\\ud800"}'),
    }


def keys_of(value: Any, depth: int = 3) -> Iterator[tuple[Any, ...]]:
    """The paths of a document's values: keys of objects, the first item of lists."""
    items = value.items() if isinstance(value, dict) else [(0, value[0])] if isinstance(value, list) and value else []
    for key, item in items:
        yield (key,)
        if depth > 1:
            yield from ((key, *rest) for rest in keys_of(item, depth - 1))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of the document that has the value there."""
    changed = copy.deepcopy(document)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def without(document: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(document)
    del at(changed, path[:-1])[path[-1]]
    return changed


def other_values(old: Any) -> dict[str, Any]:
    """The values that are of another type than the old one, or hardly sane."""
    kinds = (bool, int, float, str, list, dict, type(None))
    kind = next(one for one in kinds if isinstance(old, one))
    same = {
        bool: ("true",), int: ("number", "zero"), float: ("number", "fraction", "zero"), str: ("text",),
        list: ("list",), dict: ("object",), type(None): ("null",),
    }[kind]  # fmt: skip
    return {name: value for name, value in VALUES.items() if name not in same}


def json_keys(document: Any, depth: int, per_key: int) -> dict[str, Any]:
    """{name of the damage: the changed document}: each key missing, and `per_key` other values of each by turns."""
    found, turn = {}, 0
    for path in keys_of(document, depth):
        where = ".".join(map(str, path))
        if isinstance(path[-1], str):
            found[f"{where} missing"] = without(document, path)
        others = list(other_values(at(document, path)).items())
        for _ in range(min(per_key, len(others))):
            name, value = others[turn % len(others)]
            turn += 5  # prime to the number of values, so that all have their turn
            found[f"{where} {name}{_if_number(value, at(document, path))}"] = with_value(document, path, value)
    return found


def first_keys(document: Any) -> dict[str, Any]:
    """The same of the keys of the first level, with a value of each type; those of the second level are missing."""
    found = {}
    for path in keys_of(document, 2):
        where = ".".join(map(str, path))
        if isinstance(path[-1], str):
            found[f"{where} missing"] = without(document, path)
        if len(path) == 1:
            for name, value in other_values(document[path[0]]).items():
                if name in ("list", "number", "text", "object", "zero", "NaN"):
                    found[f"{where} {name}{_if_number(value, document[path[0]])}"] = with_value(document, path, value)
    return found


def _if_number(*values: Any) -> str:
    numbers = all(type(one) in (int, float) and one == one and abs(one) < 1e300 for one in values)
    return " (another number)" if numbers else ""


def json_damages(path: Path, depth: int, per_key: int, most: int) -> dict[str, Damage]:
    """All of `first_keys`, and at most so many others of its keys' damages, evenly chosen."""
    document = json.loads(path.read_text())
    first, others = first_keys(document), list(json_keys(document, depth, per_key).items())
    chosen = dict(others[:: -(-len(others) // most)])
    return json_tops() | {name: replaced(json.dumps(changed)) for name, changed in (first | chosen).items()}


# arrays and tensors


class Harmless:
    """What a pickle calls: a reader that unpickles it leaves the file RAN behind, which is seen."""

    def __reduce__(self):
        return (open, (RAN, "w"))


def pickled(path: Path) -> None:
    replaced(pickle.dumps(Harmless()))(path)


def npy_damages(path: Path) -> dict[str, Damage]:
    whole = np.load(path)

    def saved(array: Any, **options: Any) -> Damage:
        file = io.BytesIO()
        np.save(file, array, **options)
        return replaced(file.getvalue())

    def header(text: str) -> Damage:
        data = text.encode() + b" " * (117 - len(text)) + b"\n"
        return replaced(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(data)) + data + whole.tobytes())

    shape = whole.shape
    return {
        "a pickle": pickled,
        "objects": saved(np.array([None, {}], dtype=object), allow_pickle=True),
        "an npz": lambda path: _npz(path, {"a": whole}),
        "float64": saved(whole.astype(np.float64)),
        "complex": saved(whole.astype(np.complex64)),
        "text": saved(whole.astype("U2")),
        "records": saved(np.zeros(shape, [("a", "u1")])),
        "big-endian": saved(whole.astype(">i4")),
        "one row less": saved(whole[:-1]),
        "one row more": saved(np.concatenate([whole, whole[:1]])),
        "no rows": saved(whole[:0]),
        "one axis more": saved(whole[..., None]),
        "a scalar": saved(np.array(3, whole.dtype)),
        "flat": saved(whole.reshape(-1)),
        "header not Python": header("{'descr': '|u1', 'fortran_order': False, 'shape': (3,"),
        "header without shape": header("{'descr': '|u1', 'fortran_order': False}"),
        "header a call": header("{'descr': '|u1', 'fortran_order': False, 'shape': open('x')}"),
        "header of unknown dtype": header(f"{{'descr': '|q9', 'fortran_order': False, 'shape': {shape}}}"),
        "header nested": header("(" * 100),
        "shape negative": header(f"{{'descr': {whole.dtype.str!r}, 'fortran_order': False, 'shape': (-1,)}}"),
        "shape huge": header(f"{{'descr': {whole.dtype.str!r}, 'fortran_order': False, 'shape': (10**15,)}}"),
        "shape of 10^15": header(
            f"{{'descr': {whole.dtype.str!r}, 'fortran_order': False, 'shape': ({10**15}, *{shape[1:]})}}"[:110]
        ),
        "shape of text": header(f"{{'descr': {whole.dtype.str!r}, 'fortran_order': False, 'shape': ('a',)}}"),
        "fortran order": saved(np.asfortranarray(whole)) if whole.ndim > 1 else saved(whole[:-2]),
        "values out of range": saved(np.full_like(whole, np.iinfo(whole.dtype).max if whole.dtype.kind in "iu" else 1)),
        "version 9": edited(lambda data: data[:6] + b"\x09" + data[7:]),
    }


def npz_damages(path: Path, member: str) -> dict[str, Damage]:
    """Of one array, whose damaged file is an entry of a zip that is whole."""

    def within(damage: Damage) -> Damage:
        def whole(path: Path) -> None:
            with tempfile.TemporaryDirectory() as folder:
                entry = Path(folder, member)
                with zipfile.ZipFile(path) as archive:
                    entry.write_bytes(archive.read(member))
                damage(entry)
                rewrite_zip(path, {member: entry.read_bytes()})

        return whole

    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        entry = Path(archive.extract(member, folder))
        return {f"{member}: {name}": within(damage) for name, damage in npy_damages(entry).items()}


def _npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    file = io.BytesIO()
    np.savez(file, **arrays)
    replaced(file.getvalue())(path)


def read_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_safetensors(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def safetensors_damages(path: Path) -> dict[str, Damage]:
    header, _ = read_safetensors(path.read_bytes())
    names = [name for name in header if name != "__metadata__"]
    floats = [name for name in names if header[name]["dtype"].startswith(("F", "BF"))] or names
    first, last, some = names[0], names[-1], floats[len(floats) // 2]

    def changed(change: Callable[[dict[str, Any], bytearray], Any]) -> Damage:
        def edit(data: bytes) -> bytes:
            header, body = read_safetensors(data)
            body = bytearray(body)
            new = change(header, body)
            return write_safetensors(header if new is None else new, bytes(body))

        return edited(edit)

    def torch_saved(change: Callable[[dict[str, Any]], Any]) -> Damage:
        def damage(path: Path) -> None:
            from safetensors.torch import load, save

            data = path.read_bytes()
            metadata = read_safetensors(data)[0].get("__metadata__")
            tensors = load(data)
            change(tensors)
            tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
            replaced(save(tensors, metadata))(path)

        return damage

    def fill(value: float) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors[some].view(-1)[:1].fill_(value)

    def retyped(dtype: str, name: str = some) -> Callable[[dict[str, Any]], None]:
        def change(tensors: dict[str, Any]) -> None:
            import torch

            tensors[name] = tensors[name].to(getattr(torch, dtype))

        return change

    def set_(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors.update({name: change(tensors[name]).clone()})

    def everything(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors.update({name: change(tensor).clone() for name, tensor in tensors.items()})

    found = {
        "a pickle": pickled,
        "header length huge": edited(lambda data: struct.pack("<Q", 1 << 60) + data[8:]),
        "header length 0": edited(lambda data: bytes(8) + data[8:]),
        "header a list": changed(lambda header, body: []),
        "header not JSON": changed(lambda header, body: b"{nothing}"),
        "header deep": changed(lambda header, body: DEEP.encode()),
        "header not UTF-8": changed(lambda header, body: b'{"\xff": 1}'),
        "no tensors": changed(lambda header, body: [header.pop(name) for name in names] and body.clear()),
        "no metadata": changed(lambda header, body: header.pop("__metadata__", None) and None),
        "dtype F8": changed(
            lambda header, body: header[some].update(dtype="F8_E4M3", shape=[_bytes(header[some])]) or None
        ),
        "dtype unknown": changed(lambda header, body: header[some].update(dtype="Q7")),
        "offsets overlap": changed(_overlap),
        "offsets beyond the end": changed(lambda header, body: header[last].update(data_offsets=[0, 1 << 50])),
        "shape negative": changed(lambda header, body: header[some].update(shape=[-1])),
        "shape huge": changed(lambda header, body: header[some].update(shape=[1 << 40, 1 << 40])),
        "first tensor missing": torch_saved(lambda tensors: tensors.pop(first)),
        "last tensor missing": torch_saved(lambda tensors: tensors.pop(last)),
        "a tensor renamed": torch_saved(lambda tensors: tensors.update({f"{some}_": tensors.pop(some)})),
        "a tensor more": torch_saved(lambda tensors: tensors.update({"further": tensors[some].clone()})),
        "float64": torch_saved(retyped("float64")),
        "int8": torch_saved(retyped("int8")),
        "complex64": torch_saved(retyped("complex64")),
        "NaN": torch_saved(fill(float("nan"))),
        "infinity": torch_saved(fill(float("inf"))),
        "one value changed": torch_saved(fill(0.125)),
        "one row less": torch_saved(set_(some, lambda tensor: tensor[:-1] if tensor.ndim else tensor.reshape(1))),
        "no rows": torch_saved(everything(lambda tensor: tensor[:0] if tensor.ndim else tensor)),
        "flat": torch_saved(set_(some, lambda tensor: tensor.reshape(-1))),
        "one axis more": torch_saved(set_(some, lambda tensor: tensor[..., None])),
        "a scalar": torch_saved(set_(some, lambda tensor: tensor.reshape(-1)[0])),
        "all zeros": torch_saved(everything(lambda tensor: tensor * 0)),
    }

    def metadata(key: str, value: Any) -> Damage:
        return changed(lambda header, body: header["__metadata__"].update({key: value}))

    for key in header.get("__metadata__", {}):
        found[f"metadata without {key}"] = changed(lambda header, _, key=key: header["__metadata__"].pop(key) and None)
        values = ("x", "[1]", 5, "{}", '{"step": "x"}')
        found |= {f"metadata {key} {value!r}": metadata(key, value) for value in values}
    return found


def _overlap(header: dict[str, Any], body: bytes) -> None:
    """The tensor that lies last in the file is said to lie first."""
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][0])
    header[last].update(data_offsets=[0, _bytes(header[last])])


def _bytes(entry: Mapping[str, Any]) -> int:
    return entry["data_offsets"][1] - entry["data_offsets"][0]


# archives


def rewrite_zip(path: Path, changes: Mapping[str, bytes | None], **options: Any) -> None:
    """Replaces, adds or (None) drops entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | dict(changes)
    remove(path)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(zipfile.ZipInfo(name), content)


def zip_damages(path: Path, member: str | None = None) -> dict[str, Damage]:
    """Of any zip; `member` is the one to be replaced, the first if not said."""
    with zipfile.ZipFile(path) as archive:
        member = member or next(name for name in archive.namelist() if not name.endswith("/"))
        at_data = archive.getinfo(member).header_offset

    def entries(changes: Mapping[str, bytes | None], **options: Any) -> Damage:
        return lambda path: rewrite_zip(path, changes, **options)

    def added(name: str, content: bytes = b"x", mode: int = 0o100644) -> Damage:
        def damage(path: Path) -> None:
            with zipfile.ZipFile(path, "a") as archive:
                info = zipfile.ZipInfo(name)
                info.external_attr = mode << 16
                archive.writestr(info, content)

        return damage

    def twice(path: Path) -> None:
        import warnings

        with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
            warnings.simplefilter("ignore")
            archive.writestr(zipfile.ZipInfo(member), b"another")

    def central(offset: int, value: bytes) -> Damage:
        """Changes a field of the first entry in the central directory and, two bytes before, in its local header."""

        def change(data: bytes) -> bytes:
            data = bytearray(data)
            start = data.index(b"PK\x01\x02")
            data[start + offset : start + offset + len(value)] = value
            local = at_data + offset - 2
            data[local : local + len(value)] = value
            return bytes(data)

        return edited(change)

    def deflated_corrupt(path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            kept = {name: archive.read(name) for name in archive.namelist()}
        remove(path)
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
            for name, content in kept.items():
                archive.writestr(name, content)
            start = archive.getinfo(member).header_offset + 30 + len(member)
        data = bytearray(path.read_bytes())
        data[start : start + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(data)

    return {
        "no entries": lambda path: (remove(path), zipfile.ZipFile(path, "w").close())[0],
        "an entry missing": entries({member: None}),
        "an entry empty": entries({member: b""}),
        "an entry of noise": entries({member: bytes(range(256)) * 4}),
        "an entry twice": twice,
        "an entry that escapes": added("../x"),
        "an entry at the root": added("/etc/x"),
        "an entry that is a link": added("link.png", b"/etc/passwd", 0o120777),
        "an entry with an escape sequence": added("train/\x1b[31mred.png", b"x"),
        "an entry with a newline": added("train/a\nb.png", b"x"),
        "an entry named by 300 letters": added("train/" + "a" * 300 + ".png", b"x"),
        "encrypted": central(8, b"\x01\x00"),
        "unknown compression": central(10, b"\x63\x00"),
        "deflate corrupted": deflated_corrupt,
        "bytes behind its end": edited(lambda data: data + b"behind the end"),
        "bytes before its beginning": edited(lambda data: b"before" + data),
        "a bomb of 768 MiB": lambda path: _zip_bomb(path, member),
        "a tar": lambda path: own_tar(path, {"a.txt": b"x"}),
        "gzipped": edited(lambda data: gzip.compress(data, mtime=0)),
    }


def _zip_bomb(path: Path, member: str) -> None:
    """The entry unpacks to 768 MiB of zeros."""
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name != member}
    remove(path)
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        info = zipfile.ZipInfo(member)
        info.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(info, "w", force_zip64=True) as file:
            for _ in range(48):
                file.write(bytes(1 << 24))
        for name, content in kept.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def own_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> None:
    remove(path)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


def tar_damages(path: Path, compressed: bool) -> dict[str, Damage]:
    mode = "w:gz" if compressed else "w"
    member = next(iter(members_of(path)))

    def entries(changes: Mapping[str, bytes | None]) -> Damage:
        def damage(path: Path) -> None:
            files = members_of(path) | dict(changes)
            own_tar(path, {name: content for name, content in files.items() if content is not None}, mode)

        return damage

    def added(name: str, kind: bytes, size: int = 0, link: str = "") -> Damage:
        def damage(path: Path) -> None:
            files = members_of(path)
            own_tar(path, files, mode)
            with tarfile.open(path, mode) as archive:
                for one, content in files.items():
                    info = tarfile.TarInfo(one)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
                info = tarfile.TarInfo(name)
                info.type, info.size, info.linkname = kind, size, link
                archive.addfile(info, io.BytesIO(bytes(size)))

        return damage

    def twice(path: Path) -> None:
        files = members_of(path)
        remove(path)
        with tarfile.open(path, mode) as archive:
            for one, content in [*files.items(), *files.items()]:
                info = tarfile.TarInfo(one)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    def oversized(path: Path) -> None:
        """A header that claims more than there is."""
        info = tarfile.TarInfo("0.png")
        info.size = 1 << 40
        data = info.tobuf() + bytes(2048)
        replaced(gzip.compress(data, mtime=0) if compressed else data)(path)

    def bomb(path: Path) -> None:
        info = tarfile.TarInfo(member)
        info.size = 48 << 24
        remove(path)
        opened = gzip.open(path, "wb", 1) if compressed else open(path, "wb")
        with opened as file:
            file.write(info.tobuf())
            if compressed:
                for _ in range(48):
                    file.write(bytes(1 << 24))
            else:
                file.seek(file.tell() + (48 << 24) - 1)
                file.write(b"\0")
            file.write(bytes(1024))

    return {
        "no entries": lambda path: own_tar(path, {}, mode),
        "an entry missing": entries({member: None}),
        "an entry empty": entries({member: b""}),
        "an entry of noise": entries({member: bytes(range(256)) * 4}),
        "everything twice": twice,
        "an entry that escapes": entries({"../x.png": b"x"}),
        "an entry at the root": entries({"/etc/x.png": b"x"}),
        "an entry that is a link": added("link.png", tarfile.SYMTYPE, link="/etc/passwd"),
        "an entry that is a hard link": added("link.png", tarfile.LNKTYPE, link="/etc/passwd"),
        "an entry that is a FIFO": added("fifo.png", tarfile.FIFOTYPE),
        "an entry that is a device": added("null.png", tarfile.CHRTYPE),
        "an entry with an escape sequence": entries({"\x1b[31mred.png": b"x"}),
        "an entry named by 300 letters": entries({"a" * 300 + ".png": b"x"}),
        "a size beyond the end": oversized,
        "a bomb of 768 MiB": bomb,
        "a zip": lambda path: replaced(_empty_zip())(path),
        "gzipped" if not compressed else "gzipped twice": edited(lambda data: gzip.compress(data, mtime=0)),
        "bzip2": edited(lambda data: bz2.compress(data)),
    }


def _empty_zip() -> bytes:
    file = io.BytesIO()
    zipfile.ZipFile(file, "w").close()
    return file.getvalue()
