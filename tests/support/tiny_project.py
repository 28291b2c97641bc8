"""A project small enough to train in a second: 48 random 8x8 pictures, three perspectives, every file real."""

import hashlib
import json
import shutil
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from condmix.files.artifacts import write_checked_json
from condmix.settings.load import load
from condmix.settings.schema import Params
from profiles import profile

CLASSES = ["round", "square", "long"]
DIM = 16

PARAMS = {
    "profile": "tiny",
    "fusion": "concat",
    "perspectives": ["caption_1", "class"],
    "guidance": 2.0,
    "seed": 0,
    "variants": ["class_v1", "class_v2", "caption", "experiment"],
}
CONF = profile(
    data={"image_size": 8},
    model={"channels": 8, "multipliers": [1, 2], "attention": [4], "dropout": 0.1, "position_map": False,
           "scale_shift": False},
    train={"images": 96, "batch_size": 8, "lr": 1e-3, "precision": "fp32", "checkpoint_seconds": 600, "log_every": 4,
           "ema": 0.9995, "pseudo_noise": 3.0, "logit_normal_times": None},
    evaluate={"n": 6, "other_n": None, "interval": None, "threshold": 0.0, "steps": 2, "sweep": [1.0, 2.0],
              "sweep_n": 2, "batch_size": 4, "features": ["judge"]},
)  # fmt: skip


def write_project(root: Path, **params) -> None:
    """params.yaml, conf/tiny.yaml and the pipeline in `root`."""
    (root / "conf").mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parents[2] / "dvc.yaml", root)  # which settings a stage may read
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS | params))
    (root / "conf" / "tiny.yaml").write_text(yaml.safe_dump(CONF))


def make_project(root: Path) -> Params:
    """The parameters of a project in `root` whose data are prepared and packed."""
    write_project(root)
    params = load(root)
    write_dataset(params.paths.dataset)
    write_packed(params.paths.packed("experiment"), "experiment", "concat", ["caption_1", "class"])
    write_packed(params.paths.packed("class_v1"), "class_v1", "concat", ["image", "class"])
    return params


def write_dataset(folder: Path, train: int = 48, test: int = 8) -> None:
    """A prepared data set with classes and one attribute, which is the class."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        labels = generator.integers(0, len(CLASSES), count)
        arrays = {
            "images": generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8),
            "ids": np.arange(count),
            "labels": labels,
            "attributes": labels[:, None],
            "mentions": np.ones((count, 5, 1), bool),
        }
        for name, array in arrays.items():
            np.save(folder / f"{split}_{name}.npy", array)
    write_meta(folder, {"dataset": "tiny", "image_size": 8, "class_names": CLASSES, "attributes": {"shape": CLASSES}})


def write_meta(folder: Path, meta: dict) -> None:
    """meta.json, with the counts and checksums of the arrays that lie beside it."""
    splits = {}
    for split in ("train", "test"):
        arrays = {path.stem.partition("_")[2]: np.load(path) for path in folder.glob(f"{split}_*.npy")}
        sums = {name: hashlib.sha256(array).hexdigest() for name, array in sorted(arrays.items())}
        splits[split] = {"count": len(arrays["ids"]), "images_sha256": sums.pop("images"), "sha256": sums}
    (folder / "meta.json").write_text(json.dumps(meta | {"splits": splits}))


def write_packed(folder: Path, variant: str, fusion: str, perspectives: list[str], train: int = 48, test: int = 8):
    """Packed perspectives with random vectors, a few of them absent."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    for split, count in (("train", train), ("test", test)):
        tensors = {}
        names = [*perspectives, "prompt"] if split == "test" and "image" in perspectives else perspectives
        for name in names:
            dim = len(CLASSES) if name == "class" else DIM
            tensors[name] = torch.randn(count, dim, generator=generator).half()
            tensors[f"{name}.present"] = torch.rand(count, generator=generator) < 0.9
        save_file(tensors, folder / f"{split}.safetensors")
    card = {
        "variant": variant,
        "fusion": fusion,
        "fusion_sha256": "0",
        "perspectives": [{"name": p, "dim": len(CLASSES) if p == "class" else DIM} for p in perspectives],
        "dim": DIM,
        "encoder": "random",
    }
    write_packed_card(folder, card)


def train_to(params: Params, last: int, reached: Event) -> None:
    """Train until a step is done, and wait there to be killed."""
    from condmix.stages.train import Trainer, run

    advance = Trainer.advance

    def advance_or_wait(self: Trainer, step: int) -> object:
        done = advance(self, step)
        if step == last:
            reached.set()
            time.sleep(600)
        return done

    Trainer.advance = advance_or_wait
    torch.set_num_threads(1)
    run(params, "experiment")


def write_packed_card(folder: Path, card: dict) -> None:
    """variant.json, with the checksums of what lies beside it."""
    sums = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    write_checked_json(folder / "variant.json", card | {"sha256": sums})
