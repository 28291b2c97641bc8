"""Data of one's own: folders of pictures, and shards."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import own_data
from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    FETCHED,
    READ,
    WHOLE,
    Command,
    conf_changed,
    set_to,
)
from malformed.tables.pictures import odd_pictures, picture


def cases() -> Iterator[Case]:
    yield from own_folder()
    yield from own_shards()


def own_folder() -> Iterator[Case]:
    def case(
        name: str,
        damage: Callable[[Path], None],
        commands: tuple[Command, ...] = WHOLE,
        said: tuple[str, ...] = (),
        allowed: str = READ,
    ) -> Case:
        return Case(
            "folder",
            name,
            "own",
            damage,
            commands,
            named=said,
            allowed=allowed,
            checks=3,
            said=not allowed,
            compared=False,
        )

    def added(files: dict[str, bytes | str]) -> Callable[[Path], None]:
        return lambda project: own_data.write(project / "pics", files)

    def first_line(line: bytes | str) -> Callable[[Path], None]:
        """The line of the first picture's captions is this; the others stay."""

        def damage(project: Path) -> None:
            path = project / "pics/train/captions.jsonl"
            _, rest = path.read_bytes().split(b"\n", 1)
            path.write_bytes((line.encode() if isinstance(line, str) else line) + b"\n" + rest)

        return damage

    def removed(*names: str) -> Callable[[Path], None]:
        return lambda project: [d.remove(path) for name in names for path in (project / "pics").glob(name)]

    def only(files: dict[str, bytes | str]) -> Callable[[Path], None]:
        return lambda project: (shutil.rmtree(project / "pics"), own_data.write(project / "pics", files))

    for what, (ending, content) in odd_pictures().items():
        yield case(f"{what}", added({f"train/cat/odd{ending}": content}), FETCHED + (("prepare",),), ("odd",))
    lines = {
        "deep": d.DEEP,
        "a list": "[]",
        "a number": "5",
        "null": "null",
        "no file": '{"captions": ["a"]}',
        "no captions": '{"file": "cat/0.png"}',
        "captions a number": '{"file": "cat/0.png", "captions": 5}',
        "captions null": '{"file": "cat/0.png", "captions": null}',
        "captions of null": '{"file": "cat/0.png", "captions": [null]}',
        "captions of lists": '{"file": "cat/0.png", "captions": [[]]}',
        "captions empty": '{"file": "cat/0.png", "captions": []}',
        "captions blank": '{"file": "cat/0.png", "captions": ["  "]}',
        "a lone surrogate": '{"file": "cat/0.png", "captions": ["\\ud800"]}',
        "a NUL": '{"file": "cat/0.png", "captions": ["\\u0000"]}',
        "a caption of a megabyte": json.dumps({"file": "cat/0.png", "captions": ["x" * 1_000_000]}),
        "file a number": '{"file": 5, "captions": ["a"]}',
        "file of nothing": '{"file": "no.png", "captions": ["a"]}',
        "file that escapes": '{"file": "../../x.png", "captions": ["a"]}',
        "NaN": '{"file": "cat/0.png", "captions": ["a"], "x": NaN}',
        "not JSON": "{nothing}",
        "Latin-1": b"caf\xe9",
        "UTF-16": '{"file": "cat/0.png", "captions": ["a"]}'.encode("utf-16"),
        "half a line": '{"file": "cat/0.png", "ca',
        "a key twice": '{"file": "cat/0.png", "file": "cat/2.png", "captions": ["a"]}',
        "an escape sequence": '{"file": "cat/0.png", "captions": ["\\u001b[31mred"]}',
        "a carriage return": '{"file": "cat/0.png", "captions": ["a\\rb"]}',
        "a file with a carriage return": '{"file": "a\\rb.png", "captions": ["a"]}',
        "a byte order mark": b"\xef\xbb\xbf" + b'{"file": "cat/0.png", "captions": ["a"]}',
    }
    for what, line in lines.items():
        yield case(
            f"captions.jsonl: {what}",
            first_line(line),
            FETCHED + (("prepare",), ("captions",), ("encode",)),
            ("captions.jsonl", "odd"),
        )
    yield case("captions of the training pictures alone", removed("test/captions.jsonl"))
    yield case("captions of the test pictures alone", removed("train/captions.jsonl"))
    yield case("captions of nothing", removed("*/captions.jsonl"))
    yield case("one training picture", removed("train/*/[1-9]*.png"))
    yield case("no training pictures", removed("train/*/*.png"))
    yield case("no test pictures", removed("test/*/*.png"))
    for count in (1, 2, 3):
        yield case(f"{count} test pictures", removed(*(f"test/*/{i}.png" for i in range(count, 8))))
    yield case("one class", removed("*/dog/*.png"))
    yield case(
        "classes in train only",
        lambda project: [
            os.replace(path, path.parent.parent / path.name) for path in (project / "pics/test").glob("*/*.png")
        ],
    )
    yield case("a class in test only", added({"test/owl/0.png": own_data.random_picture(5)}))
    yield case("empty folder", only({}))
    yield case("no pictures", only({"train/a.xyz": b"x"}))
    flat = {f"Screenshot 10:20:3{i}.png": own_data.random_picture(i) for i in range(9)}
    yield case(
        "colons in names",
        lambda project: (only(flat)(project), conf_changed(set_to("data.world", {"held_out_percent": 40}))(project)),
        FETCHED + (("prepare",), ("captions",)),
    )
    for what, world in (("0", 0), ("100", 100), ("-5", -5), ("a text", "x"), ("101", 101)):
        yield case(
            f"held_out_percent {what}",
            lambda project, world=world: (
                only(flat)(project),
                conf_changed(set_to("data.world", {"held_out_percent": world}))(project),
            ),
            FETCHED + (("prepare",),),
        )
    for ending in (".gif", ".bmp", ".tiff", ".jfif", ".avif", ".heic", ".JPG", ".svg", ".pdf"):
        yield case(f"a file {ending}", added({f"train/cat/left{ending}": picture("GIF", "P")}), FETCHED, ("left",), "")
    yield case(
        "cat/0.txt beside cat/0.png", added({"train/cat/0.txt": "a"}), FETCHED, allowed="captions of kohya's kind"
    )
    for name in ("metadata.csv", "captions.txt", "labels.csv", "a.tar.gz", "captions.json"):
        yield case(f"{name} beside pictures", added({f"train/{name}": "file_name,text\n0.png,a"}), FETCHED, (name,), "")
    names = {
        "not UTF-8": b"caf\xe9.png",
        "of a newline": b"a\nb.png",
        "of a carriage return": b"a\rb.png",
        "of an escape sequence": b"a\x1b[31mred.png",
        "of a tab": b"a\tb.png",
        "of markup": b"<b>a&b<br>\n{0}.png",
        "of a backslash": b"a\\b.png",
        "of a star": b"a*?.png",
        "of 250 letters": b"a" * 250 + b".png",
        "of spaces": b"  .png",
        "of a dash": b"-rf.png",
        "of emoji": "\U0001f600.png".encode(),
        "of a lone dot": b"..png",
        "with a trailing dot": b"a.png.",
        "right to left": "\u202egnp.exe.png".encode(),
    }
    for what, name in names.items():
        yield case(
            f"a name {what}",
            lambda project, name=name: Path(
                os.fsdecode(os.fsencode(project / "pics/train/cat") + b"/" + name)
            ).write_bytes(own_data.random_picture(3)),
            FETCHED + (("prepare",), ("captions",)),
        )
        yield case(
            f"a class {what}",
            lambda project, name=name: _class_named(project, name),
            FETCHED + (("prepare",), ("captions",)),
        )
    yield case("a folder named x.jpg", lambda project: (project / "pics/train/cat/x.jpg").mkdir(), FETCHED)
    yield case("a link to a picture", lambda project: (project / "pics/train/cat/l.png").symlink_to("0.png"), FETCHED)
    yield case("a link to nothing", lambda project: (project / "pics/train/cat/l.png").symlink_to("no"), FETCHED)
    yield case("a link to itself", lambda project: (project / "pics/train/cat/l.png").symlink_to("l.png"), FETCHED)
    yield case("a link to the folder", lambda project: (project / "pics/train/cat/l").symlink_to(".."), FETCHED)
    yield case("a FIFO", lambda project: os.mkfifo(project / "pics/train/cat/l.png"), FETCHED)
    yield case("a device", lambda project: (project / "pics/train/cat/l.png").symlink_to("/dev/zero"), FETCHED)
    yield case(
        "a FIFO of captions",
        lambda project: (
            d.remove(project / "pics/train/captions.jsonl"),
            os.mkfifo(project / "pics/train/captions.jsonl"),
        ),
        FETCHED,
    )
    yield case(
        "data.folder a file",
        lambda project: (shutil.rmtree(project / "pics"), (project / "pics").write_text("x")),
        FETCHED,
    )
    for what, folder in (
        ("missing", "nowhere"),
        ("of a parent", ".."),
        ("the project", "."),
        ("empty", ""),
        ("with a NUL", "a\0b"),
        ("at the root", "/proc/1"),
    ):
        yield case(f"data.folder {what}", conf_changed(set_to("data.folder", folder)), FETCHED)
    yield case(
        "data.folder not watched",
        conf_changed(lambda content: content["stages"]["fetch"]["deps"].remove("pics"), "dvc.yaml"),
        FETCHED,
    )
    for what, content in (
        ("empty", ""),
        ("broken", "a: [1"),
        ("without fetch", "stages: {}"),
        ("a list", "[]"),
        ("without deps", "stages: {fetch: {cmd: x}}"),
        ("stages a list", "stages: []"),
        ("deps a number", "stages: {fetch: {deps: 5}}"),
        ("deps of objects", "stages: {fetch: {deps: [{pics: {}}]}}"),
    ):
        yield case(
            f"dvc.yaml {what}",
            lambda project, content=content: (project / "dvc.yaml").write_text(content),
            FETCHED,
            ("dvc.yaml",),
        )
    yield case("no dvc.yaml", lambda project: (project / "dvc.yaml").unlink(), FETCHED)


def _class_named(project: Path, name: bytes) -> None:
    folder = os.fsencode(project / "pics/train") + b"/" + name
    os.makedirs(folder)
    with open(folder + b"/0.png", "wb") as file:
        file.write(own_data.random_picture(3))


def own_shards() -> Iterator[Case]:
    def case(
        name: str,
        damage: Callable[[Path], None],
        commands: tuple[Command, ...] = FETCHED + (("prepare",),),
        said: tuple[str, ...] = (),
        allowed: str = READ,
    ) -> Case:
        return Case(
            "webdataset",
            name,
            "tars",
            damage,
            commands,
            named=said,
            allowed=allowed,
            checks=3,
            said=not allowed,
            compared=False,
        )

    def shard(changes: dict[str, bytes | None], name: str = "train-0.tar") -> Callable[[Path], None]:
        def damage(project: Path) -> None:
            path = project / "pics" / name
            files = d.members_of(path) | changes
            d.own_tar(path, {key: content for key, content in files.items() if content is not None})

        return damage

    def placed(name: str, content: bytes) -> Callable[[Path], None]:
        return lambda project: (project / "pics" / name).write_bytes(content)

    yield case("a folder named x.tar", lambda project: (project / "pics/x.tar").mkdir())
    yield case("._train-0.tar of macOS", placed("._train-0.tar", b"\0\5\26\7" + bytes(100)))
    yield case(
        "train-1.tar.gz beside",
        placed("train-1.tar.gz", gzip.compress(bytes(1024), mtime=0)),
        said=("train-1.tar",),
        allowed="",
    )
    yield case("an empty shard", placed("train-1.tar", b""))
    yield case("a shard without entries", placed("train-1.tar", bytes(10240)))
    yield case("a shard of text", placed("train-1.tar", b"not a tar"))
    yield case(
        "a gzipped shard",
        lambda project: (project / "pics/train-0.tar").write_bytes(
            gzip.compress((project / "pics/train-0.tar").read_bytes(), mtime=0)
        ),
    )
    yield case(
        "a truncated shard",
        lambda project: (project / "pics/train-0.tar").write_bytes((project / "pics/train-0.tar").read_bytes()[:3000]),
    )
    yield case("a FIFO named x.tar", lambda project: os.mkfifo(project / "pics/x.tar"))
    yield case("a link to itself", lambda project: (project / "pics/x.tar").symlink_to("x.tar"))
    yield case("no shards", lambda project: [path.unlink() for path in (project / "pics").glob("*.tar")])
    texts = {
        "deep": d.DEEP,
        "a list": "[]",
        "a number": "5",
        "a text": '"x"',
        "captions a number": '{"captions": 5}',
        "captions of numbers": '{"captions": [5]}',
        "caption a list": '{"caption": ["a"]}',
        "captions a text": '{"captions": "a"}',
        "captions an object": '{"captions": {"a": 1}}',
        "not JSON": "{",
        "a lone surrogate": '{"caption": "\\ud800"}',
        "a byte order mark": "\ufeff{}",
        "empty": "",
        "null": "null",
    }
    for what, text in texts.items():
        yield case(
            f"00000.json: {what}",
            shard({"00000.json": text.encode("utf-8", "surrogatepass")}),
            FETCHED + (("prepare",), ("captions",)),
            ("00000", "train-0"),
        )
    classes = {
        "empty": b"",
        "blank": b" ",
        "Latin-1": b"caf\xe9",
        "huge": b"9" * 5000,
        "negative": b"-1",
        "a superscript": "²".encode(),
        "an escape sequence": b"\x1b[31mred",
        "newlines": b"a\nb",
        "a carriage return": b"a\rb",
    }
    for what, text in classes.items():
        yield case(f"00000.cls: {what}", shard({"00000.cls": text}), said=("00000", "train-0", "cls", "class"))
    yield case("00000.txt of Latin-1", shard({"00000.txt": b"caf\xe9"}), said=("00000",))
    yield case("a picture of two kinds", shard({"00000.jpg": picture("JPEG")}), said=("00000",))
    yield case("a sample without a picture", shard({"00000.png": None}), said=("00000",))
    yield case("a picture that does not decode", shard({"00000.png": b"x"}), said=("00000",))
    yield case("a picture empty", shard({"00000.png": b""}), said=("00000",))
    yield case("a key with a colon", shard({"laion:1.png": picture()}))
    yield case("a key of dots", shard({"a.b.c.png": picture()}))
    yield case("a key without a name", shard({".png": picture()}))
    yield case("no captions", shard({f"{i:05}.json": None for i in range(12)}), WHOLE)
    for what, (ending, content) in list(odd_pictures().items())[:8]:
        yield case(f"{what} in a shard", shard({f"odd{ending}": content}), said=("odd",))
