"""The table: which file, what happens to it, the command that reads it then, and what the right answer is.

Every row says: of this `world` each file that `pattern` names is damaged in every way of its kind, and each of
`commands` is run on it. The right answer to all of it is one sentence, or the same results as without the damage. Where
another answer is right too, ALLOWED says why.
"""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from condmix import CondmixError
from condmix.settings.content import content_sha256
from malformed import damage as d
from malformed.runner import Case
from malformed.tables import CAPTION, DRAW, EVALUATE, PACK, PRIOR, TRAIN, Command

# (file, damage): why another answer than a sentence is right.
ALLOWED = {
    ("*.json", "a bit flipped*"): "these files carry no checksum: what their schema allows is taken",
    ("*.jsonl", "a bit flipped*"): "a text of a person's own",
    ("*.csv", "a bit flipped*"): "a curve to look at, without a checksum",
    ("*.json", "* (another number)"): "these files carry no checksum: what their schema allows is taken",
    ("t5/*", "*"): "somebody's model: whatever opens is another model",
    ("blip/*", "*"): "somebody's model: whatever opens is another model",
    ("scorer/*", "*"): "somebody's model: whatever opens is another model",
    ("*.csv", "half"): "a curve to look at, without a checksum",
    ("*.csv", "without its last byte"): "only the last line's end is gone",
    ("*.yaml", "a bit flipped*"): "a text of a person's own: another valid setting",
    ("*.yaml", "without its last byte"): "only the last line's end is gone",
    ("*.yaml", "half"): "what is left may be whole settings",
    ("*.png", "a bit flipped*"): "a picture of a person's own, which decodes",
    ("data/*.zip", "a bit flipped*"): "each entry has a checksum; the vectors are noted as those of another archive",
    ("pics/*", "a bit flipped*"): "a picture of a person's own, which decodes",
    ("pics/*", "missing"): "a person may take a file away",
    ("pics/*", "below a file"): "a person may take a class away; the file in its place is said to be left out",
    ("pics/*.tar", "an entry missing"): "a person may take a file away; the sample is said to lack its picture",
    ("data/*/pictures.zip", "an entry missing"): "other pictures, whole; that the archive changed is DVC's to see",
    ("data/*/train-0.tar", "an entry missing"): "other pictures, whole; that the archive changed is DVC's to see",
    ("pics/*.png", "without its last byte"): "the pixels are whole: nothing behind them is read",
    ("pics/*.png", "ends in noise"): "the pixels are whole: nothing behind them is read",
    ("pics/*.tar", "without its last byte"): "only padding is gone",
    ("pics/*.jsonl", "with a byte order mark"): "the mark is no part of the text",
    ("pics/*.jsonl", "empty"): "a person may write no captions",
    ("pics/*.jsonl", "half"): "what is left may be whole lines",
    ("metrics/details/*.npy", "a bit flipped*"): "pictures to look at, without a checksum",
    ("metrics/details/*.npy", "values out of range"): "white pictures to look at, without a checksum",
    ("*", "a tensor more"): "a surplus that nobody reads",
    ("list.tsv", "*"): "a text of a person's own: other URLs, each of which is tried",
}


@dataclass(frozen=True)
class Row:
    area: str
    world: str
    pattern: str  # of paths in the world
    commands: tuple[Command, ...]
    named: tuple[str, ...] = ()  # what the sentence may say in place of the file's name
    made_again: bool = False
    depth: int = 2  # of the keys of a JSON document that are changed
    per_key: int = 3
    most: int = 40  # of such changes
    first: bool = False  # of the files that match, the first alone
    setting: str = ""  # that names the file or folder by its checksum, which is made right after the damage
    then: tuple[Command, ...] = ()  # what is run after each of the commands, which may take what these refuse
    checks: int = 0  # see Case
    absent: str = ""  # why the command may do without the file
    only: str = ""  # "bytes": nothing of the file's kind; "places": only what stands in its place


# what the stage fetch takes is judged by what reads it next
PREPARED: tuple[Command, ...] = (("data", "check"), ("prepare",), ("captions",))
PLAN: Command = ("experiments", "plan", "--grid", "g")
ABSENT = ("missing", "a link to itself", "a link to nothing", "below a file")
ESTIMATED = "an estimate of the cost, of the variants that are there"

ROWS = (
    Row("archives", "demo", "data/tiny/archives/*.zip", (("prepare",),)),
    Row("archives", "demo", "data/tiny/archives/annotations*.zip", (("captions",),)),
    Row("archives", "demo", "data/tiny/archives/*.tar.gz", (("prepare",),)),
    Row("archives", "demo", "data/tiny/archives/attributes.json", (("prepare",),), depth=4, most=80),
    Row("archives", "demo", "data/tiny/archives/train2017.zip", (("embed",), ("data", "check")), only="bytes"),
    Row("archives", "coco", "data/tiny/archives/*.zip", (("data", "check"),), (".jpg",)),
    Row("archives", "coco", "data/tiny/archives/train2017.zip", (("prepare",),)),
    Row("archives", "cifar", "data/tiny/archives/*.tar.gz", (("data", "check"),)),
    Row("folder", "own", "data/tiny/archives/pictures.zip", (("prepare",), ("data", "check")), ("train/", "test/")),
    Row("folder", "own", "pics/train/cat/0.png", (("fetch",),), then=PREPARED, checks=2, only="bytes"),
    Row("folder", "own", "pics/train/captions.jsonl", (("fetch",),), then=PREPARED, checks=2, only="bytes"),
    Row("folder", "own", "dvc.yaml", (("fetch",),)),
    Row("webdataset", "tars", "data/tiny/archives/train-0.tar", (("prepare",), ("data", "check"))),
    Row("webdataset", "tars", "pics/train-0.tar", (("fetch",),), then=PREPARED, checks=2),
    Row("dataset", "ready", "data/tiny/dataset/meta.json", (TRAIN,), per_key=4, most=80),
    Row("dataset", "ready", "data/tiny/dataset/meta.json", (EVALUATE,), most=20),
    Row("dataset", "ready", "data/tiny/dataset/train_images.npy", (TRAIN, ("judge",))),
    Row("dataset", "ready", "data/tiny/dataset/train_ids.npy", (TRAIN,)),
    Row("dataset", "ready", "data/tiny/dataset/train_[al]*.npy", (("judge",),)),
    Row("dataset", "ready", "data/tiny/dataset/test_[aim]*.npy", (EVALUATE,)),
    Row("dataset", "ready", "data/tiny/dataset/test_labels.npy", (("evaluate", "class_v1"),)),
    Row("captions", "ready", "data/tiny/captions/train.json", (("encode",), ("embed",))),
    Row("captions", "ready", "data/tiny/captions/test.json", (EVALUATE,), most=20),
    Row("captions", "ready", "data/tiny/generated/train.json", (("embed",),)),
    Row("captions", "ready", "data/tiny/generated/test.json", (EVALUATE,), most=20),
    Row("cache", "ready", "data/tiny/embeddings/train/caption_1.safetensors", (PACK,), ("perspective",)),
    Row("cache", "ready", "data/tiny/embeddings/train/caption_1.safetensors", (("embed",),), made_again=True),
    Row("cache", "ready", "data/tiny/embeddings/train/dino_1.safetensors", (("embed",),), made_again=True),
    Row("cache", "ready", "data/tiny/embeddings/test/generated_1.safetensors", (PACK,)),
    Row(
        "cache",
        "ready",
        "data/tiny/embeddings/train/image.safetensors",
        (("prior",), ("pack", "class_v1")),
        ("perspective",),
    ),
    Row("cache", "shards", "data/tiny/partial/embeddings/*/00000.*", (("embed",),), first=True),
    Row("cache", "ready", "data/tiny/statistics/*.safetensors", (EVALUATE,)),
    Row("packed", "ready", "data/tiny/packed/experiment/variant.json", (TRAIN,), per_key=4, most=120, depth=3),
    Row("packed", "ready", "data/tiny/packed/experiment/variant.json", (EVALUATE,), most=20),
    Row("packed", "ready", "data/tiny/packed/experiment/train.safetensors", (TRAIN,)),
    Row("packed", "ready", "data/tiny/packed/experiment/test.safetensors", (EVALUATE,)),
    Row("models", "ready", "models/experiment/model.json", (CAPTION,), most=150),
    Row("models", "ready", "models/experiment/model.json", (EVALUATE,), most=60),
    Row("models", "ready", "models/experiment/model.safetensors", (CAPTION, EVALUATE)),
    Row("models", "ready", "models/clip/*", (CAPTION, ("embed",))),
    Row("models", "ready", "models/judge/*", (EVALUATE,), most=60),
    Row("models", "ready", "models/prior/*", (PRIOR,)),
    Row("models", "ready", "scorer/*", (EVALUATE,), ("scorer",), setting="evaluate.scorer", most=20),
    Row("models", "ready", "t5/*config.json", (("embed",),), ("t5",), most=20, setting="embed.t5.model"),
    Row("models", "ready", "t5/model.safetensors", (("embed",),), ("t5",), setting="embed.t5.model"),
    Row("models", "ready", "t5/tokenizer.json", (("embed",),), ("t5",), most=20, setting="embed.t5.model"),
    Row("models", "blip", "blip/config.json", (("generate_captions",),), ("blip",), most=20, setting="generated.model"),
    Row(
        "models", "blip", "blip/[gptv]*", (("generate_captions",),), ("blip",), only="bytes", setting="generated.model"
    ),
    Row("models", "blip", "blip/model.safetensors", (("generate_captions",),), ("blip",), setting="generated.model"),
    Row("checkpoint", "demo", ".checkpoints/*/state.safetensors", (TRAIN,)),
    Row("checkpoint", "demo", ".checkpoints/captions-*/captioner/*", (("generate_captions",),), ("captioner",)),
    Row("checkpoint", "demo", ".checkpoints/captions-*/*/train-000000000.json", (("generate_captions",),)),
    Row("checkpoint", "demo", ".checkpoints/*/lock", (TRAIN, ("generate_captions",)), ("lock",), only="places"),
    Row("report", "ready", "metrics/experiment.json", (("summary",),), most=150),
    Row("report", "ready", "metrics/experiment.json", (("report",),), most=20),
    Row("report", "ready", "metrics/class_v1.json", (("summary",),), most=60),
    Row("report", "ready", "metrics/encode.json", (("report",),)),
    Row("report", "ready", "metrics/judge.json", (("report",),)),
    Row("report", "ready", "metrics/details/experiment/details.json", (("report",),), most=80),
    Row("report", "ready", "metrics/details/experiment/*.npy", (("report",),)),
    Row("report", "ready", "metrics/losses/experiment.csv", (("report",),)),
    Row("settings", "own", "params.yaml", (("check",),)),
    Row("settings", "own", "conf/tiny.yaml", (("check",),), ("profile",)),
    Row("grids", "grid", "conf/experiments/g.yaml", (PLAN,)),
    Row("grids", "grid", "models/experiment/model.json", (PLAN,), most=30, absent=ESTIMATED),
    Row("grids", "grid", "metrics/experiment.json", (PLAN,), most=20, absent=ESTIMATED),
    Row("generate", "ready", "picture.png", ((*DRAW, "--variant", "class_v1", "--image", "picture.png"),)),
)
# Files that nobody wrote, beside those that a command reads.
BESIDE = (
    ("cache", "data/tiny/embeddings/train/caption_x.safetensors", PACK),
    ("cache", "data/tiny/embeddings/train/caption_99.safetensors", PACK),
    ("cache", "data/tiny/embeddings/train/notes.txt", PACK),
    ("cache", "data/tiny/embeddings/val/caption_1.safetensors", PACK),
    ("dataset", "data/tiny/dataset/train_depth.npy", TRAIN),
    ("report", "metrics/another.json", ("summary",)),
    ("report", "metrics/details/another/details.json", ("report",)),
    ("models", "models/clip/notes.txt", CAPTION),
)
# Files that a command writes: something stands in their place.
OUTPUTS = (
    ("data/params.ok", ("check",)),
    ("data/tiny/archives/attributes.json", ("fetch",)),
    ("data/tiny/partial", ("fetch",)),
    ("data/tiny/dataset/meta.json", ("prepare",)),
    ("data/tiny/captions/train.json", ("captions",)),
    ("data/tiny/generated/train.json", ("generate_captions",)),
    ("metrics/generated.json", ("generate_captions",)),
    ("models/clip/open_clip_config.json", ("encode",)),
    ("metrics/encode.json", ("encode",)),
    ("models/judge/model.safetensors", ("judge",)),
    ("metrics/judge.json", ("judge",)),
    ("data/tiny/embeddings/train/image.safetensors", ("embed",)),
    ("data/tiny/partial/embeddings", ("embed",)),
    ("models/prior/prior.json", ("prior",)),
    ("metrics/prior.json", ("prior",)),
    ("data/tiny/packed/experiment/train.safetensors", PACK),
    ("models/experiment/model.json", TRAIN),
    ("models/experiment/model.safetensors", TRAIN),
    ("metrics/losses/experiment.csv", TRAIN),
    (".checkpoints", TRAIN),
    ("data/tiny/drawn/experiment", EVALUATE),
    ("metrics/experiment.json", EVALUATE),
    ("metrics/details/experiment/details.json", EVALUATE),
    ("metrics/report/index.html", ("report",)),
    ("o.png", CAPTION),
)


def cases(folder: Path, worlds: Sequence[str] = ()) -> Iterator[Case]:
    """The cases of ROWS and OUTPUTS, for the worlds in `folder`; or only of some worlds."""
    for row in ROWS:
        if worlds and row.world not in worlds:
            continue
        world = folder / row.world
        found = sorted(path for path in world.glob(row.pattern) if path.is_file())
        if not found:
            raise ValueError(f"{row.world} has no {row.pattern}")
        for path in found[:1] if row.first else found:
            relative = path.relative_to(world).as_posix()
            for name, damage in damages(path, relative, row).items():
                for command in row.commands:
                    yield _case(row, relative, name, damage, command)
    for area, relative, command in () if worlds else BESIDE:
        name = f"{relative} beside"
        yield Case(area, name, "ready", _on(relative, d.replaced("x")), (command,), relative, (Path(relative).name,))
    for relative, command in () if worlds else OUTPUTS:
        for name, damage in _places(relative).items():
            yield Case(
                "outputs", f"{relative}: {name}", "ready", _on(relative, damage), (command,), relative,
                (Path(relative).name, Path(relative).parent.name or relative), made_again=True,
            )  # fmt: skip


def _places(relative: str) -> dict[str, d.Damage]:
    """Something else stands in the place of the file, or of its folder, which is not the project itself."""
    a_file = {"a file": d.replaced(b"x")} if not Path(relative).suffix else {}
    return d.places() | a_file | (d.places_below() if "/" in relative else {})


def damages(path: Path, relative: str, row: Row) -> dict[str, d.Damage]:
    """What can happen to a file of this kind, at this path in its world."""
    if row.only == "places":
        return _places(relative)
    found = d.bytewise(path) | _places(relative)
    if row.only == "bytes":
        return found
    name = path.name
    if name.endswith(".json"):
        found |= d.json_damages(path, row.depth, row.per_key, row.most)
    elif name.endswith(".npy"):
        found |= d.npy_damages(path)
    elif name.endswith(".safetensors"):
        found |= d.safetensors_damages(path)
    elif name.endswith(".zip"):
        found |= d.zip_damages(path)
    elif name.endswith((".tar", ".tar.gz")):
        found |= d.tar_damages(path, name.endswith(".gz"))
    elif name.endswith(".yaml"):
        found |= yaml_damages()
    return found


def yaml_damages() -> dict[str, d.Damage]:
    """Of any YAML file of settings."""
    alias = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join(9 * [f'*{old}'])}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )

    def added(text: str | bytes) -> d.Damage:
        extra = text.encode() if isinstance(text, str) else text
        return d.edited(lambda data: data.rstrip(b"\n") + b"\n" + extra + b"\n")

    texts = {
        "a list": "[1, 2]", "a number": "5", "a text": "just words", "null": "null", "only a comment": "# nothing\n",
        "deep": d.DEEP, "deep flow": "{a: " * 10_000 + "1" + "}" * 10_000, "deep nesting": _nested(2000),
        "a tab": "a:\n\tb: 1\n", "broken": "a: [1\n", "an alias bomb": alias, "an alias to nothing": "a: *nothing\n",
        "an alias of itself": "a: &a [*a]\n", "a Python object": "a: !!python/object/apply:os.getcwd []\n",
        "two documents": "a: 1\n---\nb: 2\n", "a tag unknown": "a: !x 1\n",
    }  # fmt: skip
    found = {name: d.replaced(text) for name, text in texts.items()}
    return found | {
        "a number as key": added("1: 2"),
        "null as key": added("~: 2"),
        "a boolean as key": added("yes: 2"),
        "a list as key": added("? [1, 2]\n: 3"),
        "a date as key": added("2020-01-01: 2"),
        "a key root": added("root: /tmp"),
        "a key name": added("name: x"),
        "a key twice": d.edited(lambda data: data + b"\n" + data.split(b"\n")[0] + b"\n"),
        "a key unknown": added("nonsense: 1"),
        "a key misspelt": d.edited(lambda data: data.replace(b":", b"x:", 1)),
        "a merge of a list": added("<<: [1]"),
        "an alias bomb as value": added(alias.replace("a: &a", "aa: &a")),
    }


def _nested(depth: int) -> str:
    return "".join(f"{' ' * i}a:\n" for i in range(depth)) + " " * depth + "b: 1\n"


def _case(row: Row, relative: str, name: str, damage: d.Damage, command: Command) -> Case:
    reason = next(
        (why for (path, what), why in ALLOWED.items()
         if fnmatch.fnmatch(relative, path) and fnmatch.fnmatch(name, what)),
        row.absent if name in ABSENT else "",
    )  # fmt: skip
    path = Path(relative)
    named = (path.name, path.parent.name, *row.named) if path.parent.name else (path.name, *row.named)
    whole = _on(relative, damage, row.setting)
    own = relative if name not in d.places_below() else path.parent.as_posix()
    return Case(
        row.area, f"{relative}: {name}", row.world, whole, (command, *row.then), own, named, reason,
        row.made_again, row.checks,
    )  # fmt: skip


def _on(relative: str, damage: d.Damage, setting: str = "") -> Callable[[Path], None]:
    def whole(project: Path) -> None:
        damage(project / relative)
        if setting:
            path = project / relative
            if path.is_symlink() or (path.exists() and not path.is_file()):
                return  # a FIFO or a device has no checksum
            with contextlib.suppress(CondmixError, OSError):
                _named_anew(project, setting)

    return whole


def _named_anew(project: Path, setting: str) -> None:
    conf = yaml.safe_load((project / "conf/tiny.yaml").read_text())
    given = d.at(conf, tuple(setting.split(".")))
    given["sha256"] = content_sha256(project / given["path"])
    (project / "conf/tiny.yaml").write_text(yaml.safe_dump(conf, sort_keys=False))
