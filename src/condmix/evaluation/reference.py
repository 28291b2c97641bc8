"""Pictures drawn for the first n test conditions -> what is known of them, from which condmix.metrics computes.

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
from condmix.evaluation.features import Features
from condmix.evaluation.frechet import Statistics
from condmix.evaluation.judges import read_card
from condmix.evaluation.observations import Observations, Space
from condmix.evaluation.observers import FIT, NETWORK, Observer, Seen
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


class Reference:
    """The held-out test pictures: what networks see in them, and what drawn pictures should show."""

    def __init__(self, params: Params, split: Split, observer: Observer | None = None):
        """`observer`, or one of its own, looks at the real pictures; drawn ones come as an `Observer` saw them."""
        self.split, self.params = split, params
        self.observer = observer = observer or Observer(params)
        self.judged = self._judged()
        self.features = [network.name for network in observer.networks]
        self.facts = {"split": "test", "n": len(split.images)}
        self._real = {network.name: reference_features(network, split, params) for network in observer.networks}
        self._statistics = {name: Statistics.of(real) for name, real in self._real.items()}

    def observations(
        self, seen: Seen, named: np.ndarray | None = None, per_condition: int = 1, **others: Any
    ) -> Observations:
        """Of n pictures, `per_condition` for each of the first test conditions, which name `named` (N, A).

        `others` are fields of Observations.
        """
        spaces = [Space(x, seen.features[x], self._real[x], self._statistics[x]) for x in self.features]
        rows = np.arange(len(spaces[0].drawn)) // per_condition
        right = self.right(seen, per_condition=per_condition)
        others |= {
            "held_out": None if self.split.held_out is None else self.split.held_out[rows],
            "residual": None if seen.residual is None else seen.residual.numpy(),
            "per_condition": per_condition,
        }
        if len(self.observer.heads) > 1:
            others["right_by_network"] = self.right(seen, NETWORK, per_condition)
        if right is None or self.split.attributes is None:
            labels = self.split.labels
            known = np.zeros(len(rows), bool) if labels is None else labels[rows] >= 0
            class_right = right[known, 0] if right is not None and known.any() else None
            return Observations(tuple(spaces), class_right=class_right, **others)
        return Observations(
            tuple(spaces), tuple(self.names()), right, None if named is None else named[rows],
            None if self.split.mentions is None else self.split.mentions[rows], right[:, class_attribute(self.split)],
            **others,
        )  # fmt: skip

    def headline(self, seen: Seen, named: np.ndarray | None, pictures: np.ndarray, **others: Any) -> Observations:
        """`observations` with all that only the headline pictures (n, S, S, 3) uint8 are measured by."""
        training = Split.load(self.params.paths.dataset, "train").images
        return self.observations(
            seen, named, pictures=pictures, real=self.split.images[: len(pictures)], training=training,
            resamples=self.params.evaluate.resamples, seed=self.params.seed, **others,
        )  # fmt: skip

    def right(self, seen: Seen, judge: str = "", per_condition: int = 1) -> np.ndarray | None:
        """(n, A) bool: does the judge, by default the best, see the real picture's value of each attribute?

        Picture i is compared with test picture i // per_condition. The class is one (n, 1) if no attributes are known;
        None without a judge.
        """
        if not self.observer.heads:
            return None
        judge = judge or next(iter(self.observer.heads))
        heads = self.observer.heads[judge]
        values = seen.values[judge][:, [heads.index(name) for name in self.names()]].numpy()
        classes: Any = self.split.labels  # known where a judge has heads and attributes are not
        known = classes[:, None] if self.split.attributes is None else self.split.attributes
        return values == known[np.arange(len(values)) // per_condition]

    def _judged(self) -> dict[str, Any]:
        """How right the judges are about real pictures, as metrics/<variant>.json says it."""
        card = read_card(self.params.paths.judge)
        by_network = {"judge_accuracy": card.get("accuracy"), "judge_accuracy_n": card.get("n")}
        if self.observer.fit is None:
            return by_network
        values, residual = self.observer.fit(self.split.images)
        accuracy = zip(self.observer.heads[FIT], (values == self.split.attributes).mean(0), strict=True)
        return {
            "judge_accuracy": {name: round(float(share), 4) for name, share in accuracy},
            "judge_accuracy_n": len(values),
            "residual_real": round(float(residual.mean()), 3),
            **{f"{key}_network": value for key, value in by_network.items()},
        }

    def names(self) -> list[str]:
        """What the columns of `right` are."""
        return ["class"] if self.split.attributes is None else list(self.split.attribute_names)


def reference_features(network: Features, split: Split, params: Params) -> Tensor:
    """Features (N, F) of the whole test split, computed once per feature network and data."""
    key = {
        "features": network.id,
        "code": pipeline.code_sha256(pipeline.closure("evaluation/features.py", pipeline.NEUTRAL)),
        "data": load_meta(params.paths.dataset)["splits"]["test"]["images_sha256"],
        "n": str(len(split.images)),
    }
    path = params.paths.statistics / f"{network.name}.safetensors"
    features = _cached(path, key)
    if features is None:
        size = params.evaluate.batch_size
        batches = (torch.from_numpy(np.array(split.images[i : i + size])) for i in range(0, len(split.images), size))
        features = torch.cat([network(batch).float().cpu() for batch in batches])
        write_checked_tensors(path, {"features": features}, key)
    return features


def _cached(path: Path, key: dict[str, str]) -> Tensor | None:
    """What was saved under this very key; anything else is made again, as it is a cache."""
    if not path.exists():
        return None
    try:
        tensors, metadata = read_checked_tensors(path, "dvc repro")
        return require(tensors, "features", torch.float32, (None, None), path, "dvc repro") if metadata == key else None
    except CondmixError:
        return None
