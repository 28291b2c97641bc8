"""Finished tiny projects, made by the commands themselves: what the cases damage copies of."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import own_data
from dvc_project import ROOT
from malformed.runner import condmix, forked, git

VARIANTS = ["class_v1", "class_v2", "caption", "experiment"]
FACTS = {"perspective": "dino_1", "encoder": "random", "of": "image"}
WORLDS: dict[str, Callable[[Path], None]] = {}


def world(function: Callable[[Path], None]) -> Callable[[Path], None]:
    WORLDS[function.__name__] = function
    return function


def make(name: str, folder: Path) -> Path:
    """The world `name` in `folder`/<name>; a finished one is kept."""
    target = folder / name
    if not target.exists():
        part = folder / f".{name}"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        WORLDS[name](part)
        os.replace(part, target)
    return target


def run(folder: Path, *command: str, patch: Callable[[], None] | None = None, tracking: str = "off") -> None:
    """`condmix <command>`; `patch` is called before, and makes it stop midway."""

    def act() -> int:
        if patch is not None:
            patch()
        return condmix(command)

    code, said = forked(act, folder, {"CONDMIX_TRACKING": tracking})
    if (code != 0) == (patch is None):
        raise RuntimeError(f"condmix {' '.join(command)} in {folder}:\n{said[-4000:]}")


def profile(**changes: Any) -> dict[str, Any]:
    """conf/tiny.yaml: that of the pipeline's tests, with changed keys of its sections."""
    from dvc_project import TINY
    from profiles import profile as complete

    whole = complete(**changes)
    for name, change in changes.items():
        if isinstance(change, dict) and TINY[name] is not None:
            whole[name] = TINY[name] | change
    return TINY | {name: whole[name] for name in changes}


def content(path: Path, root: Path) -> dict[str, str]:
    """A file or folder as the settings name it."""
    from condmix.settings.content import content_sha256

    return {"path": path.relative_to(root).as_posix(), "sha256": content_sha256(path)}


def start(folder: Path, conf: dict[str, Any], **params: Any) -> None:
    """params.yaml, conf/tiny.yaml and dvc.yaml."""
    (folder / "conf" / "experiments").mkdir(parents=True)
    given = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"profile": "tiny", "variants": VARIANTS} | params
    (folder / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    (folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(conf, sort_keys=False))
    shutil.copy(ROOT / "dvc.yaml", folder)


def watch(folder: Path, name: str) -> None:
    """Adds data.folder to what the stage fetch depends on."""
    path = folder / "dvc.yaml"
    content = yaml.safe_load(path.read_text())
    content["stages"]["fetch"]["deps"].append(name)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@world
def demo(folder: Path) -> None:
    """Every stage, four variants, a trained captioner, a prior, imports, T5, a scorer; training stopped midway."""
    from captioner_helpers import COCA
    from t5_helpers import save_tiny_t5

    captioner = {
        "captioner": "trained_coca",
        "captions": 2,
        "batch_size": 20,
        "max_tokens": 8,
        "shard": 40,
        "model": COCA,
        "training": {"steps": 2, "batch_size": 8, "lr": 1e-3},
        "better_than": 0.5,
    }
    for name, save in (("t5", save_tiny_t5), ("scorer", save_scorer)):
        forked(lambda name=name, save=save: save(folder / name) and 0, folder)
    (folder / "vectors").mkdir()
    imports = [import_of(folder, split, rows) for split, rows in (("train", 60), ("test", 20))]
    conf = profile(
        generated=captioner,
        prior={"clusters": 2, "width": 16, "blocks": 1, "steps": 2, "batch_size": 8, "sample_steps": 2, "lr": 1e-3},
        embed={
            "encoders": ["clip_image", "clip_text", "class_label", "t5_text"],
            "t5": {"model": content(folder / "t5", folder), "max_tokens": 16, "precision": "fp32", "revision": None},
            "imports": imports,
            "captions": 2,
            "joined": [2],
        },
        train={"checkpoint_seconds": 0},
        evaluate={"scorer": content(folder / "scorer", folder)},
    )
    start(folder, conf, perspectives=["caption_1", "generated_1"])
    run(folder, "check")
    for stage in ("fetch", "prepare", "captions", "encode"):
        run(folder, stage)
    for stage in ("generate_captions", "judge", "embed", "prior"):
        run(folder, stage)
    for variant in VARIANTS:
        for stage in ("pack", "train", "evaluate"):
            run(folder, stage, variant)
    run(folder, "report")
    for path in (folder / ".checkpoints").iterdir():  # of trainings; the captions' stays
        if (path / "state.safetensors").exists():
            shutil.rmtree(path)
    run(folder, "train", "experiment", patch=stop_training)
    from PIL import Image

    Image.fromarray(np.full((40, 32, 3), 90, np.uint8)).save(folder / "picture.png")


def save_scorer(folder: Path) -> None:
    """A CLIP that conditions nothing."""
    from clip_helpers import save_tiny_clip

    save_tiny_clip(folder, seed=1)


def stop_training() -> None:
    """The second checkpoint is the last."""
    from condmix.training.checkpoint import Checkpoint

    save, saved = Checkpoint.save, []

    def stop(self: Checkpoint, *arguments: Any) -> None:
        save(self, *arguments)
        saved.append(1)
        if len(saved) == 2:
            raise KeyboardInterrupt

    Checkpoint.save = stop


def stop_embedding() -> None:
    """Every shard is written, and no cache."""
    from condmix.stages import embed

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    embed.join = stop


def import_of(folder: Path, split: str, rows: int, kind: str = "npz") -> dict[str, str]:
    """Writes an import of the demo world's split, and returns its entry in embed.imports."""
    vectors = np.random.default_rng(rows).normal(size=(rows, 6)).astype(np.float32)
    ids = np.arange(rows) + (1 if split == "train" else 61)
    path = folder / "vectors" / f"{split}.{kind}"
    np.savez(path, vectors=vectors, ids=ids, **FACTS, split=split)
    return {"perspective": "dino_1", "split": split, "path": f"vectors/{path.name}", "sha256": sha256(path)}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@world
def shards(folder: Path) -> None:
    """The demo world in the middle of `embed`: every shard is written and no cache."""
    base = make("demo", folder.parent)
    shutil.copytree(base, folder, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(folder / "data" / "tiny" / "embeddings")
    run(folder, "embed", patch=stop_embedding)


@world
def blip(folder: Path) -> None:
    """The demo world before `generate_captions`, with a captioner of transformers in a local folder."""
    from captioner_helpers import save_tiny_blip

    base = make("demo", folder.parent)
    shutil.copytree(base, folder, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(folder / ".checkpoints")
    forked(lambda: save_tiny_blip(folder / "blip") and 0, folder)
    conf = yaml.safe_load((folder / "conf/tiny.yaml").read_text())
    conf["generated"] |= {"captioner": "blip", "model": content(folder / "blip", folder), "training": None}
    (folder / "conf/tiny.yaml").write_text(yaml.safe_dump(conf, sort_keys=False))
    run(folder, "generate_captions")
    shutil.rmtree(folder / ".checkpoints")


@world
def ready(folder: Path) -> None:
    """The demo world with no training in progress."""
    shutil.copytree(make("demo", folder.parent), folder, dirs_exist_ok=True, symlinks=True)
    for path in (folder / ".checkpoints").iterdir():
        if (path / "state.safetensors").exists():
            shutil.rmtree(path)


@world
def tracked(folder: Path) -> None:
    """The demo world, training midway, with a store of MLflow's."""
    shutil.copytree(make("demo", folder.parent), folder, dirs_exist_ok=True, symlinks=True)
    run(folder, "train", "class_v1", tracking="on")


@world
def own(folder: Path) -> None:
    """A folder of pictures with classes and captions, as far as `captions`."""
    own_data.write(folder / "pics", pictures())
    _own(folder, "folder")


def pictures() -> dict[str, bytes | str]:
    """train/ and test/ with two classes, and captions of both kinds."""
    files: dict[str, bytes | str] = {}
    for split, count in (("train", 12), ("test", 8)):
        lines = []
        for number in range(count):
            name = f"{('cat', 'dog')[number % 2]}/{number}.png"
            files[f"{split}/{name}"] = own_data.random_picture(number + 100 * (split == "test"))
            lines.append(f'{{"file": "{name}", "captions": ["a {number} thing", "it is {number}"]}}')
        files[f"{split}/captions.jsonl"] = "\n".join(lines)
    return files


@world
def tars(folder: Path) -> None:
    """Webdataset shards, as far as `captions`."""
    for split, count in (("train", 12), ("test", 8)):
        rows = [
            (np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8), i % 2, [f"a thing {i}"])
            for i in range(count)
        ]
        own_data.write_shard(folder / "pics" / f"{split}-0.tar", rows)
    _own(folder, "webdataset")


def _own(folder: Path, dataset: str) -> None:
    data = {"dataset": dataset, "folder": "pics", "world": {}, "image_size": 16, "flip": False}
    conf = profile(data=data, captions={"templates": ["a photo of a {}."]})
    start(folder, conf, perspectives=["caption_1"])
    watch(folder, "pics")
    for stage in ("check", "fetch", "prepare", "captions"):
        run(folder, stage)


@world
def coco(folder: Path) -> None:
    """COCO's zips with instances, fetched by file:// URLs, as far as `captions`."""
    from condmix.datasets._coco_format import ANNOTATIONS, write_annotations, write_coco

    source = folder / "source"
    source.mkdir()
    ids = {"train": list(range(1, 13)), "test": list(range(21, 29))}
    rng = np.random.default_rng(0)
    for split, numbers in ids.items():
        write_coco(source, split, numbers, [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in numbers])
    texts = {split: {n: [f"caption {k} of {n}" for k in range(5)] for n in numbers} for split, numbers in ids.items()}
    write_annotations(source, texts, 20, "a test")
    from malformed.damage import rewrite_zip

    rewrite_zip(
        source / ANNOTATIONS,
        {
            f"annotations/instances_{name}.json": _instances(ids[split])
            for split, name in (("train", "train2017"), ("test", "val2017"))
        },
    )
    names = ["train2017.zip", "val2017.zip", ANNOTATIONS]
    _fetched(folder, "coco", names)


def _instances(ids: list[int]) -> bytes:
    import json

    return json.dumps(
        {
            "info": {},
            "licenses": [],
            "images": [],
            "annotations": [
                {
                    "id": n,
                    "image_id": n,
                    "category_id": 3 + 2 * (n % 2),
                    "area": 9.5,
                    "iscrowd": 0,
                    "bbox": [0, 0, 3, 3],
                }
                for n in ids
            ],
            "categories": [
                {"id": 3, "name": "cat", "supercategory": "x"},
                {"id": 5, "name": "dog", "supercategory": "x"},
            ],
        }
    ).encode()


@world
def cifar(folder: Path) -> None:
    """CIFAR-10's archive, fetched by a file:// URL, as far as `captions`."""
    from condmix.datasets._cifar_format import ARCHIVE, write_cifar

    source = folder / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    counts = {"train": 20, "test": 8}
    images = {split: rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in counts.items()}
    labels = {split: [i % 3 for i in range(n)] for split, n in counts.items()}
    write_cifar(source, images, labels, ["cat", "dog", "ship"])
    _fetched(folder, "cifar10", [ARCHIVE])


def _fetched(folder: Path, dataset: str, names: list[str]) -> None:
    files = [
        {
            "name": name,
            "url": (folder / "source" / name).absolute().as_uri(),
            "size": (folder / "source" / name).stat().st_size,
            "checksum": f"sha256:{sha256(folder / 'source' / name)}",
        }
        for name in names
    ]
    data = {"dataset": dataset, "world": {}, "image_size": 16, "flip": False, "files": files}
    start(folder, profile(data=data, captions={"templates": ["a photo of a {}."]}), perspectives=["caption_1"])
    for stage in ("check", "fetch", "prepare", "captions"):
        run(folder, stage)
    shutil.rmtree(folder / "source")


@world
def grid(folder: Path) -> None:
    """The demo world in a git repository with the pipeline's code, its lock file and a grid, all committed."""
    base = make("demo", folder.parent)
    shutil.copytree(base, folder, dirs_exist_ok=True, symlinks=True)
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "src", ".dvc", ".gitignore", ".dvcignore"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    experiments = {
        "one": {"says": "one caption", "perspectives": ["caption_1"], "fusion": "concat"},
        "two": {"says": "two captions", "perspectives": ["caption_1", "caption_2"], "fusion": "mean", "against": "one"},
    }
    written = {"profile": "tiny", "seeds": [0, 1], "baseline": "one", "settings": {"train.images": 32}}
    text = yaml.safe_dump(written | {"experiments": experiments}, sort_keys=False)
    (folder / "conf/experiments/g.yaml").write_text(text)
    git(folder, "init", "-q", "-b", "main")
    for key, value in (("user.name", "t"), ("user.email", "t@t")):
        git(folder, "config", key, value)
    committed = subprocess.run(
        [sys.executable, "-m", "dvc", "commit", "-f", "-q"], cwd=folder, capture_output=True, text=True
    )
    if committed.returncode:
        raise RuntimeError(committed.stderr)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "reproduced")
    shutil.rmtree(folder / ".dvc" / "cache", ignore_errors=True)
    run(folder, "experiments", "plan", "--grid", "g")


def downloads(folder: Path, server: str, flags: tuple[str, ...]) -> None:
    """A list, and the folder into which it was fetched from the tests' misbehaving server."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    listed = "".join(f"caption {i}\t{server}/w/ok/{i}\n" for i in range(4))
    for name in ("finished.tsv", "l.tsv"):
        (folder / name).write_text(listed)
    run(folder, "download", "finished.tsv", "finished", *flags)
