"""CIFAR-10N's two files, small."""

from pathlib import Path

import numpy as np
import torch

from condmix.datasets._cifar_format import write_cifar
from condmix.datasets.cifar10n import LABELS, OFFICIAL, PEOPLE

CLASSES = ["airplane", "cat", "ship"]


def labels_of(count: int) -> dict[str, np.ndarray]:
    """Official labels, and three people's, each wrong for one picture in five or so; besides, what nobody reads."""
    rng = np.random.default_rng(0)
    official = rng.integers(0, len(CLASSES), count)
    wrong = [(official + 1) % len(CLASSES) * (told := rng.random(count) < 0.2) + official * ~told for _ in PEOPLE]
    return {OFFICIAL: official, **dict(zip(PEOPLE, wrong, strict=True)), "worse_label": wrong[0]}


def write_labels(folder: Path, labels: object) -> Path:
    """As its authors write the file."""
    torch.save(labels, folder / LABELS)
    return folder / LABELS


def write_people(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Both files, of `count` training pictures and a test picture; returns the labels."""
    labels = labels_of(count)
    rng = np.random.default_rng(1)
    images = {split: rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in (("train", count), ("test", 1))}
    write_cifar(folder, images, {"train": labels[OFFICIAL].tolist(), "test": [0]}, CLASSES)
    write_labels(folder, labels)
    return labels
