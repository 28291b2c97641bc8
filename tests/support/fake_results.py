"""The files that evaluation and training leave behind, invented: for the tests of what reads them."""

import json
from copy import deepcopy
from types import SimpleNamespace

import numpy as np

from condmix.files.artifacts import write_checked_json
from condmix.settings.load import Paths

NAMES = ("shape", "colour")
BASE = {
    "profile": "demo", "guidance": 3.0, "sampler": "ddim", "steps": 12, "n": 500, "seed": 4, "split": "test",
    "reference": {"split": "test", "n": 2000}, "features": ["judge", "clip"], "ema": 0.995, "commit": "abc123",
    "images_per_second_sampling": 88.4, "seconds": 41.25,
}  # fmt: skip
CARD = {
    "encoder": "small clip 1f2e", "parameters": 1512345, "images_seen": 56000, "images_per_second": 312.4,
    "seconds": 179.6, "processes": 2, "final_loss": 0.0921, "dataset_sha256": "d5" * 32, "mlflow_run": None,
    "environment": {"commit": "abc123", "date": "2026-11-23 04:10 UTC", "python": "3.11.2", "torch": "2.15.0",
                    "cpu": "a processor", "cores": 2, "gpus": []}, "sha256": "a1" * 32,
}  # fmt: skip
ENCODE = {
    "n": 2000, "model": "custom", "source": "trained", "encoder": "clip", "split": "test", "seed": 0, "environment": {},
    "zero_shot_accuracy": {"shape": 0.91234, "size": 1.0}, "probe_image": {"shape": 0.97, "size": 0.99},
}  # fmt: skip


def captions_variant(name="caption", mean=0.93, perspectives=("caption_1",)):
    """Metrics of a variant that was told captions, in a world with attributes."""
    accuracy = {"shape": mean - 0.0171, "colour": mean + 0.0171}
    return {
        **BASE, "variant": name, "fusion": "additive", "perspectives": list(perspectives), "condition": "captions",
        "fd_judge": 3.456 - mean, "fd_clip": 0.0222, "attribute_accuracy": accuracy, "attribute_accuracy_mean": mean,
        "attribute_n": {"shape": 277, "colour": 285}, "attribute_accuracy_unnamed": {"shape": 0.161, "colour": 0.172},
        "judge_accuracy": {"shape": 0.9811, "colour": 0.9933}, "judge_accuracy_n": 2000,
        "sweep": [{"guidance": s, "n": 200, "fd_judge": 7.0 + s, "attribute_accuracy_mean": mean - 0.2 / s}
                  for s in (1.0, 2.0, 5.0)],
    }  # fmt: skip


def image_variant(name="class_v1", mean=0.86):
    """Metrics of a variant that was trained on images and classes: asked by prompt, and with an oracle row."""
    oracle = {
        "condition": "oracle", "fd_judge": 0.777,
        "attribute_accuracy": {"shape": 0.9876, "colour": 0.9654}, "attribute_accuracy_mean": 0.9765,
    }  # fmt: skip
    told = captions_variant(name, mean, ["image", "class"])
    return {**told, "condition": "prompt", "oracle": oracle, "class_accuracy": 0.8123}


def without(metrics, *keys):
    """A deep copy that lacks these keys, also in its oracle row and its sweep."""
    copy = deepcopy(metrics)
    for place in [copy, copy.get("oracle", {}), *copy.get("sweep", [])]:
        for key in keys:
            place.pop(key, None)
    return copy


def change_card(path, changes):
    """Change a card and its own checksum with it."""
    write_checked_json(path, json.loads(path.read_text()) | changes)


def project(root, *metrics, captions=("a red ring", "a <b>big</b> & round thing"), scenes=3, side=16, profile="demo"):
    """Write everything that evaluate and train write for these metrics; returns params for the report."""
    paths = Paths(root, profile)
    random = np.random.default_rng(0)
    for facts in metrics:
        folder = paths.details(facts["variant"])
        folder.mkdir(parents=True)
        sample = {"captions": list(captions), "condition_captions": list(captions[:1]), "class": None}
        samples = [{**sample, "id": 100 + i, "seed": 70 + i} for i in range(scenes)]
        details = {"metrics": facts, "card": CARD, "samples": samples}
        write_checked_json(folder / "details.json", details)
        for name in ["real", facts["condition"], *(["oracle"] if "oracle" in facts else [])]:
            np.save(folder / f"{name}.npy", random.integers(0, 256, (scenes, side, side, 3), np.uint8))
        write_checked_json(paths.metrics / f"{facts['variant']}.json", facts)
        (paths.metrics / "losses").mkdir(exist_ok=True)
        rows = "".join(f"{64 * k},{1 / k},0.5,0.002\n" for k in range(1, 11))
        (paths.metrics / "losses" / f"{facts['variant']}.csv").write_text("images,loss,gradient_norm,lr\n" + rows)
    accuracy = metrics[0].get("judge_accuracy", {})
    drawn_by = {"n": 2000, "split": "test", "seed": 0, "network": "small_cnn", "steps": 200, "seconds": 14.7}
    judge = {"accuracy": accuracy, **(drawn_by if accuracy else {"reason": "nothing to judge by"})}
    write_checked_json(paths.metrics / "judge.json", judge)
    write_checked_json(paths.metrics / "encode.json", ENCODE)
    variants = tuple(facts["variant"] for facts in metrics)
    return SimpleNamespace(paths=paths, profile=profile, variants=variants, data=SimpleNamespace(dataset="demo"))
