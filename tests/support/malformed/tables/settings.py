"""Every setting with every kind of value, and values that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    EVALUATE,
    PACK,
    TRAIN,
    VALUES,
    Command,
    conf_changed,
    set_to,
)
from malformed.worlds import content

# What reads a section; where `check` accepts a value, these must end well too.
READERS: dict[str, tuple[Command, ...]] = {
    "captions": (("captions",),),
    "clip": (("encode",),),
    "judge": (("judge",),),
    "model": (TRAIN,),
    "diffusion": (TRAIN, EVALUATE),
    "train": (TRAIN,),
    "evaluate": (EVALUATE,),
    "prior": (("prior",),),
    "generated": (("generate_captions",),),
    "embed": (("embed",), PACK),
    "mixed_any": (PACK,),
    "data": (),
    "fusion": (PACK, TRAIN),
    "perspectives": (PACK, TRAIN),
    "guidance": (EVALUATE,),
    "seed": (TRAIN,),
    "variants": (),
    "profile": (),
}
COSTLY = {"2^64", "10^30"}  # a number of steps may be that large: `check` alone is run


def cases(folder: Path) -> Iterator[Case]:
    """Every setting with every kind of value."""
    for name in ("params.yaml", "conf/tiny.yaml"):
        content = yaml.safe_load((folder / "ready" / name).read_text())
        paths = [path for path in d.keys_of(content, 3) if "model" not in path[:1] or len(path) < 3]
        for path in paths:
            if path[:2] in (("generated", "model"), ("clip", "model")) and len(path) > 2 or path[0] == "files":
                continue
            key = ".".join(map(str, path))
            for what, value in VALUES.items():
                if value is ... and not isinstance(path[-1], str):
                    continue
                yield _setting(name, path, f"{key} {what}", value, what not in COSTLY)
            if isinstance(path[-1], str):
                yield _misspelt(name, path, key)
    yield from together()
    yield from contents()


def _setting(name: str, path: tuple, what: str, value: Any, run: bool) -> Case:
    def change(content: dict) -> None:
        if value is ...:
            del d.at(content, path[:-1])[path[-1]]
        else:
            d.at(content, path[:-1])[path[-1]] = value

    readers = READERS.get(path[0], ()) if run else ()
    return Case(
        "settings",
        what,
        "ready",
        conf_changed(change, name),
        (("check",), *readers),
        name,
        (str(path[-1]), path[0], ", line "),
        "a valid value",
        checks=1,
        compared=False,
    )


def _misspelt(name: str, path: tuple, key: str) -> Case:
    def change(content: dict) -> None:
        section = d.at(content, path[:-1])
        section[f"{path[-1]}x"] = section.pop(path[-1])

    return Case(
        "settings",
        f"{key} misspelt",
        "ready",
        conf_changed(change, name),
        (("check",),),
        name,
        (path[-1],),
        compared=False,
    )


# Settings that name a file or folder by its checksum, and what opens it.
NAMED: dict[str, Command] = {
    "clip.weights": ("encode",), "judge.weights": ("judge",), "evaluate.scorer": EVALUATE,
    "evaluate.inception_weights": EVALUATE, "embed.t5.model": ("embed",), "generated.model": ("generate_captions",),
}  # fmt: skip


def contents() -> Iterator[Case]:
    """Files and folders of another kind, and checksums that are wrong."""
    for key, stage in NAMED.items():
        for path in (
            "picture.png",
            "models/judge",
            "models/clip",
            "params.yaml",
            "nowhere",
            "conf",
            "a\0b",
            "",
            ".",
            "..",
        ):
            for right in (True, False):

                def damage(project: Path, key=key, path=path, right=right) -> None:
                    value = {"path": path, "sha256": "0" * 64}
                    if right:
                        value = content(project / path, project)
                    conf_changed(set_to(key, value))(project)
                    if key == "clip.weights" and path != "picture.png":
                        conf_changed(set_to("clip.model", None))(project)
                    if key == "evaluate.inception_weights":
                        conf_changed(set_to("evaluate.features", ["inception"]))(project)

                if right and path in ("nowhere", "a\0b", "", ".", ".."):
                    continue
                what = f"{key} {path!r}, its checksum {'right' if right else 'wrong'}"
                fine = "a CLIP of ours" if right and path == "models/clip" else ""
                yield Case(
                    "settings", what, "ready", damage, (("check",), stage), "conf/tiny.yaml",
                    (key, key.split(".")[-1], path or "path", ", line "), fine, checks=1, compared=False,
                )  # fmt: skip


def together() -> Iterator[Case]:
    """Values that are each valid, and not together or not for these networks and data."""
    chains: list[tuple[str, str, Any, tuple[Command, ...]]] = [
        ("evaluate.steps above the schedule's", "evaluate.steps", 2000, (EVALUATE,)),
        ("evaluate.interval reversed", "evaluate.interval", [0.8, 0.2], (EVALUATE,)),
        ("model.attention at no size", "model.attention", [7], (TRAIN,)),
        ("model.attention above the size", "model.attention", [64], (TRAIN,)),
        ("model.multipliers empty", "model.multipliers", [], (TRAIN,)),
        ("model.multipliers too many", "model.multipliers", [1, 2, 2, 2, 2, 2, 2], (TRAIN,)),
        ("model.channels odd", "model.channels", 7, (TRAIN,)),
        ("model.dropout 1", "model.dropout", 1.0, (TRAIN,)),
        ("captions.templates without a place", "captions.templates", ["a photo"], (("captions",),)),
        ("captions.templates of a name", "captions.templates", ["a photo of a {c}."], (("captions",), ("encode",))),
        ("captions.templates of an index", "captions.templates", ["{0.__class__}"], (("captions",), ("encode",))),
        ("captions.templates broken", "captions.templates", ["a {"], (("captions",), ("encode",))),
        ("judge.batch_size 1", "judge.batch_size", 1, (("judge",),)),
        ("clip.batch_size 1", "clip.batch_size", 1, (("encode",),)),
        ("clip.batch_size above the pictures", "clip.batch_size", 5000, (("encode",),)),
        ("train.batch_size above the pictures", "train.batch_size", 5000, (TRAIN,)),
        ("train.micro_batch above the batch", "train.micro_batch", 5000, (TRAIN,)),
        ("train.warmup and decay above 1", "train.warmup", 0.9, (TRAIN,)),
        ("diffusion.min_snr_gamma negative", "diffusion.min_snr_gamma", -5, (TRAIN,)),
        ("diffusion.steps 1", "diffusion.steps", 1, (TRAIN, EVALUATE)),
        ("diffusion.steps below evaluate's", "diffusion.steps", 1, (EVALUATE,)),
        ("embed.encoders of texts alone", "embed.encoders", ["clip_text"], (("embed",), PACK)),
        ("embed.encoders empty", "embed.encoders", [], (("embed",), PACK)),
        ("embed.encoders twice", "embed.encoders", ["clip_text", "clip_text"], (("embed",), PACK)),
        ("clip vocabulary too small", "clip.model.text_cfg.vocab_size", 100, (("encode",),)),
        ("clip context of 1", "clip.model.text_cfg.context_length", 1, (("encode",),)),
        ("clip heads that do not divide", "clip.model.text_cfg.heads", 7, (("encode",),)),
        ("clip patch above the picture", "clip.model.vision_cfg.patch_size", 64, (("encode",),)),
        ("clip model a name", "clip.model", "ViT-X", (("encode",),)),
        ("clip pretrained of no model", "clip.pretrained", "nothing", (("encode",),)),
        ("evaluate.n 1", "evaluate.n", 1, (EVALUATE,)),
        ("evaluate.n 3", "evaluate.n", 3, (EVALUATE,)),
        ("evaluate.other_n 1", "evaluate.other_n", 1, (("evaluate", "class_v1"),)),
        ("evaluate.sweep_n 1", "evaluate.sweep_n", 1, (EVALUATE,)),
        ("evaluate.sweep empty", "evaluate.sweep", [], (EVALUATE,)),
        ("evaluate.sweep NaN", "evaluate.sweep", [float("nan")], (EVALUATE,)),
        ("evaluate.sweep infinite", "evaluate.sweep", [1.0, float("inf")], (EVALUATE,)),
        ("evaluate.sweep twice", "evaluate.sweep", [2.0, 2.0], (EVALUATE,)),
        ("evaluate.features empty", "evaluate.features", [], (EVALUATE,)),
        ("evaluate.features twice", "evaluate.features", ["judge", "judge"], (EVALUATE,)),
        ("evaluate.resamples 1", "evaluate.resamples", 1, (EVALUATE,)),
        ("prior.clusters above the pictures", "prior.clusters", 5000, (("prior",),)),
        ("prior.sample_steps 0", "prior.sample_steps", 0, (("prior",),)),
        ("generated.batch_size 1", "generated.batch_size", 1, (("generate_captions",),)),
        ("generated.better_than 1", "generated.better_than", 1.0, (("generate_captions",),)),
        ("generated.training null", "generated.training", None, (("generate_captions",),)),
        ("data.image_size 7", "data.image_size", 7, (("fetch",), ("prepare",))),
        ("data.image_size 1", "data.image_size", 1, ()),
        ("data.world of text", "data.world.train", "x", (("fetch",),)),
        ("data.world 10^12", "data.world.train", 10**12, (("fetch",),)),
        ("data.world 0", "data.world.train", 0, (("fetch",),)),
        ("data.world seed 2^70", "data.world.seed", 2**70, (("fetch",),)),
        ("data.dataset own without a folder", "data.dataset", "folder", (("fetch",),)),
        ("data.dataset coco without files", "data.dataset", "coco", (("fetch",),)),
        ("data.folder of the demo", "data.folder", "pics", (("fetch",),)),
    ]
    chains += [(f"{key} without a checksum", key, "nothing.pt", (stage,)) for key, stage in NAMED.items()]
    for what, key, value, readers in chains:
        yield Case(
            "settings",
            what,
            "ready",
            conf_changed(set_to(key, value)),
            (("check",), *readers),
            "conf/tiny.yaml",
            (key.split(".")[-1], key.rsplit(".", 1)[0]),
            "a valid value",
            checks=1,
            compared=False,
        )
    params: list[tuple[str, str, Any, tuple[Command, ...]]] = [
        ("perspectives empty", "perspectives", [], ()),
        ("perspectives twice", "perspectives", ["caption_1", "caption_1"], (PACK,)),
        ("perspectives a text", "perspectives", "caption_1", ()),
        ("perspectives of no kind", "perspectives", ["cap tion"], (PACK,)),
        ("perspectives of number 0", "perspectives", ["caption_0"], (PACK,)),
        ("perspectives of number 99", "perspectives", ["caption_99"], (PACK,)),
        ("perspectives with a path", "perspectives", ["../x"], (PACK,)),
        ("variants twice", "variants", ["caption", "caption"], ()),
        ("variants of no kind", "variants", ["nothing"], ()),
        ("variants empty", "variants", [], ()),
        ("variants null", "variants", None, ()),
        ("fusion a path", "fusion", "../x", (PACK,)),
        ("fusion hidden", "fusion", "__init__", (PACK,)),
        ("seed 2^63", "seed", 2**63, (TRAIN, EVALUATE)),
        ("seed 2^64", "seed", 2**64, (TRAIN,)),
        ("seed 2^62", "seed", 2**62, (TRAIN, EVALUATE)),
        ("guidance 10^300", "guidance", 1e300, (EVALUATE,)),
        ("guidance 10^39", "guidance", 1e39, (EVALUATE,)),
        ("profile a path", "profile", "../conf/tiny", ()),
        ("profile empty", "profile", "", ()),
        ("profile of no kind", "profile", "nothing", ()),
    ]
    for what, key, value, readers in params:
        yield Case(
            "settings",
            what,
            "ready",
            conf_changed(set_to(key, value), "params.yaml"),
            (("check",), *readers),
            "params.yaml",
            (key,),
            "a valid value",
            checks=1,
            compared=False,
        )
    for key, stage in (
        ("clip.seed", ("encode",)),
        ("judge.seed", ("judge",)),
        ("prior.seed", ("prior",)),
        ("generated.seed", ("generate_captions",)),
        ("data.world.seed", ("fetch",)),
    ):
        for value in (2**63, 2**64, -1):
            yield Case(
                "settings",
                f"{key} {value}",
                "ready",
                conf_changed(set_to(key, value)),
                (("check",), stage),
                "conf/tiny.yaml",
                ("seed",),
                "a valid value",
                checks=1,
                compared=False,
            )
