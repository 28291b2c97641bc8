"""Pictures drawn for the first n test conditions -> distances, attribute and class accuracy, diversity, copying.

Axes: N pictures of the split, n of them drawn, A attributes, S image size, F features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError, pipeline
from condmix.data.prepared import Split, load_meta
from condmix.evaluation import distances
from condmix.evaluation.features import Features, metric_name
from condmix.evaluation.frechet import Statistics, frechet_distance
from condmix.evaluation.judges import read_card
from condmix.evaluation.observers import Observer, Seen
from condmix.files.artifacts import read_checked_tensors, require, write_checked_tensors
from condmix.settings.load import Params


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
    """Everything that is measured on pictures drawn for the first n test conditions."""

    def __init__(self, params: Params, split: Split, observer: Observer | None = None):
        """`observer`, or one of its own, looks at the real pictures; drawn ones come as an `Observer` saw them."""
        self.split, self.params = split, params
        self.observer = observer = observer or Observer(params)
        card = read_card(params.paths.judge)
        self.judge_accuracy, self.judge_n = card.get("accuracy"), card.get("n")
        self.features = [network.name for network in observer.networks]
        self.reference = {"split": "test", "n": len(split.images)}
        self._real = {network.name: reference_features(network, split, params) for network in observer.networks}
        self._statistics = {name: Statistics.of(real) for name, real in self._real.items()}

    def __call__(self, seen: Seen, named: np.ndarray | None) -> dict[str, Any]:
        """Distances, and what the judge sees, of pictures whose conditions name `named` (N, A)."""
        found: dict[str, Any] = {}
        for name in self.features:
            distance = frechet_distance(Statistics.of(seen.features[name]), self._statistics[name])
            found[metric_name(name)] = round(distance, 4)
        right = self.right(seen)
        return found if right is None else found | self.judged(right, named)

    def closely(self, seen: Seen, pictures: np.ndarray) -> dict[str, Any]:
        """What only the headline pictures are asked: intervals, further distances, and whether they are copies.

        Precision and recall are left out where there are too few pictures to have so many neighbours.
        `pictures` (n, S, S, 3) uint8 are those that were seen.
        """
        found: dict[str, Any] = {}
        for name in self.features:
            real, drawn = self._real[name], seen.features[name]
            if self.params.evaluate.resamples:
                ends = distances.frechet_interval(
                    drawn, self._statistics[name], self.params.seed, self.params.evaluate.resamples
                )
                found[f"{metric_name(name)}_interval"] = [round(end, 4) for end in ends]
            found["kid" if name == "inception" else f"kid_{name}"] = round(distances.kernel_distance(real, drawn), 6)
            if min(len(real), len(drawn)) > distances.NEIGHBOURS:
                precision, recall = distances.precision_recall(real, drawn)
                found |= {f"precision_{name}": round(precision, 4), f"recall_{name}": round(recall, 4)}
            else:
                print(f"precision_{name} and recall_{name} need more than {distances.NEIGHBOURS} pictures: left out")
            if name == "clip":
                found["mmd_clip"] = round(distances.gaussian_mmd(real, drawn), 4)
        training = Split.load(self.params.paths.dataset, "train").images
        real = self.split.images[: len(pictures)]
        found["nearest_training"] = {
            "of": "root mean square difference of pixels, in 0..1",
            "median": round(float(distances.nearest(pictures, training).median()), 4),
            "median_of_real": round(float(distances.nearest(real, training).median()), 4),
        }
        return found

    def diversity(self, seen: Seen, per_condition: int) -> dict[str, float]:
        """Mean distance between the C M pictures of C conditions, M = `per_condition` neighbours of each."""
        return {
            name: round(distances.diversity(seen.features[name].unflatten(0, (-1, per_condition))), 4)
            for name in self.features
        }

    def right(self, seen: Seen) -> np.ndarray | None:
        """(n, A) bool: does the judge see the real picture's value of each attribute? The class is one (n, 1) if no
        attributes are known; None without a judge."""
        if seen.values is None:
            return None
        heads = list(self.observer.judge.heads)
        values = seen.values[:, [heads.index(name) for name in self.names()]].numpy()
        known = self.split.labels[:, None] if self.split.attributes is None else self.split.attributes
        return values == known[: len(values)]

    def names(self) -> list[str]:
        """What the columns of `right` are."""
        return ["class"] if self.split.attributes is None else list(self.split.attribute_names)

    def judged(self, right: np.ndarray, named: np.ndarray | None) -> dict[str, Any]:
        """How often the judge sees what was asked for, and the whole scene: per attribute, and for the class.

        Where only classes are judged and none of these pictures has one, nothing is said.
        """
        if self.split.attributes is None:
            known = self.split.labels[: len(right)] >= 0
            return {"class_accuracy": _share(right[known, 0])} if known.any() else {}
        told = named[: len(right)]
        accuracy = _per_attribute(right, told, self.names())
        return {
            "scene_accuracy": _share(right),
            "attribute_accuracy": accuracy,
            "attribute_accuracy_mean": round(float(np.mean(list(accuracy.values()))), 4),
            "attribute_n": {name: int(told[:, i].sum()) for i, name in enumerate(self.names()) if name in accuracy},
            "attribute_accuracy_unnamed": _per_attribute(right, ~told, self.names()),
            "class_accuracy": _share(right[:, class_attribute(self.split)]),
        }

    def by_caption(self, right: np.ndarray) -> dict[str, Any]:
        """Accuracy per attribute by which of the picture's first two captions names it, whatever was told.

        The groups are the same for every variant, so that they show what each caption brought.
        """
        if self.split.mentions is None or self.split.mentions.shape[1] < 2:
            return {}
        first, second = self.split.mentions[: len(right), 0], self.split.mentions[: len(right), 1]
        groups = {
            "caption_1 only": first & ~second,
            "caption_2 only": second & ~first,
            "both": first & second,
            "neither": ~first & ~second,
        }
        return {
            "attribute_accuracy_by_caption": {
                group: _per_attribute(right, chosen, self.names()) | {"all": _share(right[chosen])}
                for group, chosen in groups.items()
                if chosen.any()
            },
            "attribute_n_by_caption": {group: int(chosen.sum()) for group, chosen in groups.items() if chosen.any()},
        }


def reference_features(network: Features, split: Split, params: Params) -> Tensor:
    """Features (N, F) of the whole test split, computed once per feature network and data."""
    key = {
        "features": network.id,
        "code": pipeline.code_sha256(pipeline.closure("evaluation/features.py", pipeline.NEUTRAL)),
        "data": load_meta(params.paths.dataset)["splits"]["test"]["images_sha256"],
        "n": str(len(split.images)),
    }
    path = params.paths.statistics / f"{network.name}.safetensors"
    found = _cached(path, key)
    if found is None:
        size = params.evaluate.batch_size
        batches = (torch.from_numpy(np.array(split.images[i : i + size])) for i in range(0, len(split.images), size))
        found = torch.cat([network(batch).float().cpu() for batch in batches])
        write_checked_tensors(path, {"features": found}, key)
    return found


def _cached(path: Path, key: dict[str, str]) -> Tensor | None:
    """What was saved under this very key; anything else is made again, as it is a cache."""
    if not path.exists():
        return None
    try:
        tensors, metadata = read_checked_tensors(path, "dvc repro")
        return require(tensors, "features", torch.float32, (None, None), path, "dvc repro") if metadata == key else None
    except CondmixError:
        return None


def _share(right: np.ndarray) -> float:
    return round(float(right.mean()), 4)


def _per_attribute(right: np.ndarray, chosen: np.ndarray, names: list[str]) -> dict[str, float]:
    """Share of the chosen (n, A) that are right (n, A), for each attribute of which any is chosen."""
    return {name: _share(right[chosen[:, i], i]) for i, name in enumerate(names) if chosen[:, i].any()}
