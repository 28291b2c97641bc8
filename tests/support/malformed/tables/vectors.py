"""Vectors that someone else computed, and weights."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    CAPTION,
    EVALUATE,
    conf_changed,
    set_to,
)
from malformed.worlds import FACTS, content, sha256


def cases() -> Iterator[Case]:
    yield from imports()
    yield from weights()


def imports() -> Iterator[Case]:
    train = "vectors/train.npz"

    def case(name: str, write: Callable[[Path], None], file: str = train, allowed: str = "") -> Case:
        """`write` makes the file; the profile's checksum is made right, so that it is opened."""

        def damage(project: Path) -> None:
            path = project / file
            write(path)
            if path.is_file() and not path.is_symlink():
                conf_changed(lambda content: content["embed"]["imports"][0].update(path=file, sha256=sha256(path)))(
                    project
                )

        return Case(
            "imports", name, "ready", damage, (("embed",),), file, (Path(file).name, "imports", "dino_1"), allowed
        )

    rng = np.random.default_rng(60)
    vectors, ids = rng.normal(size=(60, 6)).astype(np.float32), np.arange(60) + 1
    facts = FACTS | {"split": "train"}

    def npz(**changes: Any) -> Callable[[Path], None]:
        arrays = {"vectors": vectors, "ids": ids, **facts} | changes
        arrays = {key: value for key, value in arrays.items() if value is not None}
        return lambda path: (d.remove(path), np.savez(path, **arrays))

    with tempfile.TemporaryDirectory() as scratch:
        whole_npz, whole_tensors = Path(scratch, "a.npz"), Path(scratch, "a.safetensors")
        np.savez(whole_npz, vectors=vectors, ids=ids, **facts)
        whole = save({"vectors": vectors, "ids": ids}, facts)
        whole_tensors.write_bytes(whole)
        of_npz = d.bytewise(whole_npz) | d.places() | d.places_below() | d.zip_damages(whole_npz, "vectors.npy")
        for member in ("vectors.npy", "ids.npy"):
            of_npz |= d.npz_damages(whole_npz, member)
        of_tensors = d.safetensors_damages(whole_tensors)
    for name, damage in of_npz.items():
        beside = "its" in name or name.startswith(("a bit flipped", "ends in noise"))
        fine = {"vectors.npy: float64": "floats", "ids.npy: flat": "they are"}.get(name, "")
        yield case(f"npz: {name}", damage, allowed="the arrays are whole by their checksums" if beside else fine)
    nan, infinite, zero = vectors.copy(), vectors.copy(), vectors.copy()
    nan[3, 2], infinite[3, 2], zero[3] = np.nan, np.inf, 0
    changes: dict[str, dict[str, Any]] = {
        "vectors missing": {"vectors": None},
        "ids missing": {"ids": None},
        "split missing": {"split": None},
        "encoder missing": {"encoder": None},
        "of missing": {"of": None},
        "perspective missing": {"perspective": None},
        "encoder empty": {"encoder": ""},
        "encoder a number": {"encoder": 5},
        "of something": {"of": "x"},
        "of an array": {"of": np.array(["image", "image"])},
        "split test": {"split": "test"},
        "perspective another": {"perspective": "dino_2"},
        "NaN": {"vectors": nan},
        "infinite": {"vectors": infinite},
        "zeros": {"vectors": zero},
        "integers": {"vectors": vectors.astype(int)},
        "complex": {"vectors": vectors.astype(complex)},
        "booleans": {"vectors": vectors > 0},
        "objects": {"vectors": vectors.astype(object)},
        "text": {"vectors": vectors.astype("U3")},
        "of one axis": {"vectors": vectors[:, 0]},
        "of three axes": {"vectors": vectors[..., None]},
        "of no rows": {"vectors": vectors[:0], "ids": ids[:0]},
        "of no columns": {"vectors": vectors[:, :0]},
        "one row less": {"vectors": vectors[:-1]},
        "one column less": {"vectors": vectors[:, :-1]},
        "ids twice": {"ids": ids * 0 + 1},
        "ids foreign": {"ids": ids + 900},
        "ids negative": {"ids": -ids},
        "ids floats": {"ids": ids.astype(float)},
        "ids text": {"ids": ids.astype("U3")},
        "ids of two axes": {"ids": ids[:, None]},
        "ids huge": {"ids": ids.astype(np.uint64) + np.uint64(2**63)},
        "ids objects": {"ids": ids.astype(object)},
        "records": {"vectors": np.zeros(60, [("a", "f4")])},
        "huge values": {"vectors": vectors * 1e38},
        "tiny values": {"vectors": vectors * 1e-44},
        "float64 beyond float32": {"vectors": vectors.astype(np.float64) * 1e300},
        "bytes as encoder": {"encoder": np.bytes_(b"x")},
    }
    for name, change in changes.items():
        fine = "norms do not matter" if "values" in name or "beyond" in name else ""
        yield case(name, npz(**change), allowed=fine)
    for name, damage in of_tensors.items():
        fine = {
            "one value changed": "other vectors",
            "a tensor more": "nobody reads it",
            "float64": "floats",
            "metadata encoder 'x'": "another encoder",
            "metadata encoder '[1]'": "another encoder",
        }.get(name, "")
        yield case(
            f"safetensors: {name}",
            lambda path, damage=damage: (d.replaced(whole)(path), damage(path)),
            "vectors/train.safetensors",
            fine,
        )
    yield case("a file of another ending", d.replaced(whole), "vectors/train.pt")
    entry = {"perspective": "dino_1", "split": "train", "path": train}
    for name, change in {
        "checksum of another": {"sha256": "0" * 64},
        "path missing": {"path": "nowhere.npz"},
        "path a folder": {"path": "vectors"},
        "path with a NUL": {"path": "a\0b.npz"},
        "path of 300 letters": {"path": "a" * 300 + ".npz"},
        "path empty": {"path": ""},
        "perspective image": {"perspective": "image"},
        "perspective caption_1": {"perspective": "caption_1"},
        "perspective no name": {"perspective": "../x"},
        "split x": {"split": "x"},
        "sha256 short": {"sha256": "12"},
    }.items():
        yield Case(
            "imports",
            name,
            "ready",
            conf_changed(lambda content, change=change: content["embed"]["imports"][0].update(entry | change)),
            (("check",), ("embed",)),
            "conf/tiny.yaml",
            ("imports", "vectors", "nowhere"),
        )
    yield Case(
        "imports",
        "one file twice",
        "ready",
        conf_changed(lambda content: content["embed"]["imports"].append(content["embed"]["imports"][0])),
        (("check",), ("embed",)),
        "conf/tiny.yaml",
        ("imports",),
    )


def weights() -> Iterator[Case]:
    """clip.weights and judge.weights: torch's pickles."""
    import torch

    def saved(value: Any) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            torch.save(value, path)

        return write

    files: dict[str, Callable[[Path], None]] = {
        "an empty dict": saved({}),
        "a list": saved([1, 2]),
        "a tensor": saved(torch.zeros(3)),
        "a number": saved(5),
        "other names": saved({"x": torch.zeros(3)}),
        "of text": saved({"x": "y"}),
        "a module": saved(torch.nn.Linear(2, 2)),
        "a pickle that runs": d.pickled,
        "numbers as keys": saved({1: torch.zeros(2)}),
        "empty": d.replaced(b""),
        "noise": d.replaced(bytes(range(256)) * 8),
        "a state_dict of nothing": saved({"state_dict": {}}),
        "a state_dict of text": saved({"state_dict": "x"}),
        "a zip": lambda path: path.write_bytes(d._empty_zip()),
        "a legacy pickle": lambda path: torch.save({}, path, _use_new_zipfile_serialization=False),
        "a protocol of its own": lambda path: path.write_bytes(pickle.dumps({"x": 1}, protocol=5)),
    }
    for ending in (".pt", ".safetensors"):
        for what, write in files.items():
            for key, stage in (("clip.weights", "encode"), ("judge.weights", "judge")):
                if ending == ".safetensors" and key == "judge.weights":
                    continue

                def damage(project: Path, write=write, key=key, ending=ending) -> None:
                    write(project / f"w{ending}")
                    conf_changed(set_to(key, content(project / f"w{ending}", project)))(project)
                    if key == "clip.weights":
                        conf_changed(set_to("clip.model", "RN50"))(project)

                yield Case(
                    "models",
                    f"{key} w{ending}: {what}",
                    "ready",
                    damage,
                    (("check",), (stage,)),
                    f"w{ending}",
                    (f"w{ending}", key),
                    compared=False,
                )
    for what, change in {
        "tokenizer_kwargs trust_remote_code": set_to(
            "model_cfg.text_cfg.tokenizer_kwargs", {"trust_remote_code": True}
        ),
        "hf_model_name": set_to("model_cfg.text_cfg.hf_model_name", "x/y"),
        "custom_text": set_to("model_cfg.custom_text", True),
        "preprocess size 0": set_to("preprocess_cfg.size", 0),
        "preprocess size negative": set_to("preprocess_cfg.size", -16),
        "preprocess size of lists": set_to("preprocess_cfg.size", [[16], 16]),
        "preprocess size huge": set_to("preprocess_cfg.size", 10**9),
        "preprocess mean of two": set_to("preprocess_cfg.mean", [0.5, 0.5]),
        "preprocess std 0": set_to("preprocess_cfg.std", [0, 0, 0]),
        "preprocess interpolation unknown": set_to("preprocess_cfg.interpolation", "x"),
        "preprocess resize_mode unknown": set_to("preprocess_cfg.resize_mode", "x"),
        "embed_dim 0": set_to("model_cfg.embed_dim", 0),
        "embed_dim huge": set_to("model_cfg.embed_dim", 10**9),
        "patch_size 0": set_to("model_cfg.vision_cfg.patch_size", 0),
        "heads 0": set_to("model_cfg.text_cfg.heads", 0),
    }.items():

        def damage(project: Path, change=change) -> None:
            path = project / "models/clip/open_clip_config.json"
            config = json.loads(path.read_text())
            change(config)
            path.write_text(json.dumps(config))

        yield Case(
            "models",
            f"open_clip_config.json: {what}",
            "ready",
            damage,
            (CAPTION,),
            "models/clip/open_clip_config.json",
            ("clip",),
            compared=False,
        )
    for folder, stage in (("t5", ("embed",)), ("scorer", EVALUATE)):

        def remote(project: Path, folder=folder) -> None:
            path = next(iter((project / folder).glob("*config.json")))
            config = json.loads(path.read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
            path.write_text(json.dumps(config))
            (project / folder / "evil.py").write_text(f"open({d.RAN!r}, 'w')\n")
            key = {"t5": "embed.t5.model", "scorer": "evaluate.scorer"}[folder]
            conf_changed(set_to(key, content(project / folder, project)))(project)

        yield Case(
            "models",
            f"{folder}: auto_map",
            "ready",
            remote,
            (stage,),
            f"{folder}/config.json",
            (folder,),
            compared=False,
        )
