"""Pictures drawn for the first n test conditions -> Fréchet distances, attribute and class accuracy.

Axes: N pictures of the split, n of them drawn, A attributes, S image size, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.config import Params
from condmix.datasets import Split, load_meta
from condmix.features import extractors, metric_name
from condmix.frechet import Statistics, frechet_distance
from condmix.judges import Judge, read_card


def class_attribute(split: Split) -> int:
    """Column of the attribute that is the class: the one whose values are the class names."""
    for column, values in enumerate(split.attribute_names.values()):
        if values == split.class_names:
            return column
    raise CondmixError(
        f"no attribute has the classes as its values; attributes: {', '.join(split.attribute_names)}; "
        f"classes: {', '.join(split.class_names)}"
    )


class Measure:
    """Everything that is measured on a set of pictures drawn for the first n test conditions."""

    def __init__(self, params: Params, split: Split):
        self.split, self.batch_size = split, params.evaluate.batch_size
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.judge = Judge.load(params.paths.judge, device)
        card = read_card(params.paths.judge)
        self.judge_accuracy, self.judge_n = card.get("accuracy"), card.get("n")
        self.networks = extractors(
            params.evaluate.features, self.judge, params.paths.clip, params.evaluate.inception_weights, device
        )
        self.reference = {"split": "test", "n": len(split.images)}
        self._statistics = {
            network.name: reference_statistics(network, split, params, self.batch_size) for network in self.networks
        }

    def __call__(self, pictures: np.ndarray, named: np.ndarray | None) -> dict[str, Any]:
        """Measurements of pictures (n, S, S, 3) uint8, whose conditions name the attributes `named` (n, A)."""
        found: dict[str, Any] = {}
        for network in self.networks:
            statistics = Statistics.of_batches(features(network, pictures, self.batch_size))
            distance = frechet_distance(statistics, self._statistics[network.name])
            found[metric_name(network.name)] = round(distance, 4)
        if self.judge is not None:
            found |= self.judged(pictures, named)
        return found

    @torch.no_grad()
    def judged(self, pictures: np.ndarray, named: np.ndarray | None) -> dict[str, Any]:
        """How often the judge sees what was asked for: per attribute, and for the class."""
        batches = [self.judge(part) for part in _batches(pictures, self.batch_size)]
        seen = {name: torch.cat([b[name].argmax(1) for b in batches]).cpu().numpy() for name in self.judge.heads}
        labels = self.split.labels
        if self.split.attributes is None:
            known = labels[: len(pictures)] >= 0
            return {"class_accuracy": _share((seen["class"] == labels[: len(pictures)])[known])}
        right = {
            name: seen[name] == self.split.attributes[: len(pictures), column]
            for column, name in enumerate(self.split.attribute_names)
        }
        told = {name: named[: len(pictures), column] for column, name in enumerate(right)}
        accuracy = {name: _share(right[name][told[name]]) for name in right if told[name].any()}
        return {
            "attribute_accuracy": accuracy,
            "attribute_accuracy_mean": round(float(np.mean(list(accuracy.values()))), 4),
            "attribute_n": {name: int(told[name].sum()) for name in accuracy},
            "attribute_accuracy_unnamed": {
                name: _share(right[name][~told[name]]) for name in right if not told[name].all()
            },
            "class_accuracy": _share(right[list(right)[class_attribute(self.split)]]),
        }


def reference_statistics(network: Any, split: Split, params: Params, batch_size: int) -> Statistics:
    """Feature statistics of the whole test split, computed once per feature network and data."""
    sha256 = load_meta(params.paths.dataset)["splits"]["test"]["images_sha256"]
    key = {"features": network.id, "data": sha256, "split": "test", "n": len(split.images)}
    path = params.paths.statistics / f"{network.name}.safetensors"
    if path.exists():
        try:
            return Statistics.load(path, key)
        except CondmixError:  # of other data or another network; it is a cache, so it is made again
            path.unlink()
    statistics = Statistics.of_batches(features(network, split.images, batch_size))
    statistics.save(path, key)
    return statistics


@torch.no_grad()
def features(network: Any, pictures: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """Features (B, F) of pictures (N, S, S, 3), batch by batch."""
    for part in _batches(pictures, batch_size):
        yield network(part)


def _batches(pictures: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    for first in range(0, len(pictures), batch_size):
        yield torch.from_numpy(np.array(pictures[first : first + batch_size]))


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4)
