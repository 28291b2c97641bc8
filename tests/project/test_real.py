"""Profiles cifar10 and coco on real files, from fetch to report, small: `make test-slow`."""

import hashlib
from pathlib import Path

import pytest
import yaml

from dvc_project import ROOT, Project
from real_data import build

SMALL = {
    "clip": {
        "model": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
            "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
        },
        "pretrained": None, "weights": None, "steps": 40, "batch_size": 64, "lr": 2e-3,
    },
    "judge": {"steps": 60, "batch_size": 64, "lr": 2e-3},
    "model": {"channels": 16, "multipliers": [1, 2, 2], "blocks": 1, "attention": [8], "position_map": True},
    "train": {"images": 1280, "batch_size": 32, "lr": 1e-3, "compile": False},
    "evaluate": {"n": 40, "steps": 4, "sweep": [1.0, 3.0], "sweep_n": 20, "batch_size": 20},
}  # fmt: skip

pytestmark = pytest.mark.slow


def settings(profile: str, archives: Path, **data) -> dict:
    """The profile's own settings, made small, with its files at file:// URLs and their checksums."""
    whole = yaml.safe_load((ROOT / "conf" / f"{profile}.yaml").read_text())
    files = [
        {
            "name": file["name"],
            "url": (archives / file["name"]).as_uri(),
            "size": (archives / file["name"]).stat().st_size,
            "checksum": "md5:" + hashlib.md5((archives / file["name"]).read_bytes()).hexdigest(),
        }
        for file in whole["data"]["files"]
    ]
    changes = SMALL | {"data": {"files": files} | data}
    return whole | {section: whole[section] | values for section, values in changes.items()}


def test_cifar10(tmp_path):
    archives = tmp_path / "archives"
    archives.mkdir()
    build("cifar10/build_archive.py", archives / "cifar-10-python.tar.gz", "--per-class", 100)
    conf = settings("cifar10", archives)
    conf["evaluate"]["features"] = ["judge", "clip"]
    project = Project.create(tmp_path / "project", "cifar10", conf, variants=["class_v1", "class_v2", "experiment"])
    project.run("dvc", "repro")
    for variant in ("class_v1", "class_v2", "experiment"):
        metrics = project.metrics(variant)
        assert 0 <= metrics["class_accuracy"] <= 1 and metrics["n"] == 40
        assert "fid" not in metrics and metrics["fd_judge"] > 0
    assert "oracle" in project.metrics("class_v1")


def test_coco(tmp_path):
    archives = tmp_path / "archives"
    build("coco/build_archives.py", archives)
    conf = settings("coco", archives, image_size=32)
    conf["evaluate"]["features"] = ["clip"]
    project = Project.create(tmp_path / "project", "coco", conf, variants=["caption", "experiment"])
    project.run("dvc", "repro")
    for variant in ("caption", "experiment"):
        metrics = project.metrics(variant)
        assert metrics["fd_clip"] > 0 and "class_accuracy" not in metrics
    project.change(variants=["class_v1"])
    said = project.run("dvc", "repro", fails=True)
    sentence = 'profile coco has no perspective "class" (variant class_v1 needs it); it has: caption_1'
    assert sentence in said.stderr + said.stdout
