"""Pictures drawn for the first n test conditions -> what is known of them, from which condmix.metrics computes.

Axes: N pictures of the split, n of them drawn, A attributes, S image size, F features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from condmix.evaluation.observers import FIT, Observer, Seen
from condmix.files.artifacts import read_checked_tensors, write_checked_tensors
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
        self, seen: Seen, named: np.ndarray | None = None, per_condition: int = 1, first: int = 0, **others: Any
    ) -> Observations:
        """Of n pictures, `per_condition` for each of the test conditions from `first` on, which name `named` (N, A).

        `others` are fields of Observations.
        """
        spaces = self._spaces(seen)
        rows = first + np.arange(len(spaces[0].drawn)) // per_condition
        right = self.right(seen, rows=rows)
        others |= {
            "held_out": None if self.split.held_out is None else self.split.held_out[rows],
            "residual": None if seen.residual is None else seen.residual.numpy(),
            "per_condition": per_condition,
        }
        by_others = {judge: self._right(seen, judge, rows) for judge in list(self.observer.heads)[1:]}
        if right is None or self.split.attributes is None:
            labels = self.split.labels
            known = np.zeros(len(rows), bool) if labels is None else labels[rows] >= 0
            class_right = right[known, 0] if right is not None and known.any() else None
            if by_others and known.any():
                others["right_by_others"] = {judge: shown[known] for judge, shown in by_others.items()}
            return Observations(tuple(spaces), class_right=class_right, **others)
        others["right_by_others"] = by_others or None
        return Observations(
            tuple(spaces), tuple(self.names()), right, None if named is None else named[rows],
            None if self.split.mentions is None else self.split.mentions[rows], right[:, class_attribute(self.split)],
            **others,
        )  # fmt: skip

    def headline(self, seen: Seen, named: np.ndarray | None, pictures: np.ndarray, **others: Any) -> Observations:
        """`observations` with all that only the headline pictures (n, S, S, 3) uint8 are measured by."""
        training = Split.load(self.params.paths.dataset, "train")
        found = self.observations(
            seen, named, pictures=pictures, real=self.split.images[: len(pictures)], training=training.images,
            resamples=self.params.evaluate.resamples, seed=self.params.seed, **others,
        )  # fmt: skip
        if named is None or training.attributes is None:
            return found
        return replace(found, spaces=tuple(self._allowed(found.spaces, named, training)))

    def published(self, seen: Seen) -> Observations:
        """Of pictures for FID's published protocol: beside the training split, and nothing else is known of them."""
        spaces = zip(self._spaces(seen), self.observer.networks, strict=True)
        return Observations(
            tuple(replace(space, training=training_statistics(network, self.params)) for space, network in spaces)
        )

    def _spaces(self, seen: Seen) -> list[Space]:
        return [Space(x, seen.features[x], self._real[x], self._statistics[x]) for x in self.features]

    def _allowed(self, spaces: Sequence[Space], named: np.ndarray, training: Any) -> Iterator[Space]:
        """With the features of one real picture of either split for each test condition: it shows what that names.

        Test pictures alone would not do: in the demo world their combinations of attributes are none of the training
        split's, by which a model fills in what its condition leaves open.
        """
        own: Any = self.split.attributes
        known = np.concatenate([training.attributes, own])
        rows, trained = allowed(named, own, known), len(training.attributes)
        pictures, others = np.asarray(training.images[rows[rows < trained]]), rows[rows >= trained] - trained
        for space, network in zip(spaces, self.observer.networks, strict=True):
            seen = _features(network, pictures, self.params.evaluate.batch_size)
            yield replace(space, allowed=torch.cat([*seen, space.real[others]]))

    def right(self, seen: Seen, rows: np.ndarray | None = None) -> np.ndarray | None:
        """(n, A) bool: does the best judge see the real picture's value of each attribute?

        Picture i is compared with test picture rows[i], by default the i-th. The class is one (n, 1) if no attributes
        are known; None without a judge.
        """
        return self._right(seen, next(iter(self.observer.heads)), rows) if self.observer.heads else None

    def _right(self, seen: Seen, judge: str, rows: np.ndarray | None) -> np.ndarray:
        heads = self.observer.heads[judge]
        values = seen.values[judge][:, [heads.index(name) for name in self.names()]].numpy()
        classes: Any = self.split.labels  # known where a judge has heads and attributes are not
        known = classes[:, None] if self.split.attributes is None else self.split.attributes
        return values == known[np.arange(len(values)) if rows is None else rows]

    def _judged(self) -> dict[str, Any]:
        """How right the judges are about real pictures, as metrics/<variant>.json says it."""
        card = read_card(self.params.paths.judge)
        by_network = {"judge_accuracy": card.get("accuracy"), "judge_accuracy_n": card.get("n")}
        by_probe = {"judge_accuracy_probe": self.observer.probe.accuracy} if self.observer.probe else {}
        if self.observer.fit is None:
            return by_network | by_probe
        values, residual = self.observer.fit(self.split.images)
        accuracy = zip(self.observer.heads[FIT], (values == self.split.attributes).mean(0), strict=True)
        return {
            "judge_accuracy": {name: round(float(share), 4) for name, share in accuracy},
            "judge_accuracy_n": len(values),
            "residual_real": round(float(residual.mean()), 3),
            **{f"{key}_network": value for key, value in by_network.items()},
            **by_probe,
        }

    def names(self) -> list[str]:
        """What the columns of `right` are."""
        return ["class"] if self.split.attributes is None else list(self.split.attribute_names)


def allowed(named: np.ndarray, attributes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rows (N,) of `known` (M, A), for each condition one at random of all whose values are the named ones.

    The conditions name `named` (N, A) bool of `attributes` (N, A), and each has such a row. Equal conditions draw the
    same rows whichever model was conditioned on them.
    """
    random = np.random.default_rng(0)
    return np.array([
        random.choice(np.flatnonzero(((known == values) | ~shown).all(1)))
        for values, shown in zip(attributes, named, strict=True)
    ])  # fmt: skip


def reference_features(network: Features, split: Split, params: Params) -> Tensor:
    """Features (N, F) of the whole test split, computed once per feature network and data."""
    path, key = params.paths.statistics / f"{network.name}.safetensors", _key(network, "test", split, params)
    found = _cached(path, key)
    if not found:
        found = {"features": torch.cat(list(_features(network, split.images, params.evaluate.batch_size)))}
        write_checked_tensors(path, found, key)
    return found["features"]


def training_statistics(network: Features, params: Params) -> Statistics:
    """Of the features of the whole training split, computed once per feature network and data."""
    split = Split.load(params.paths.dataset, "train")
    path, key = params.paths.statistics / f"{network.name}_train.safetensors", _key(network, "train", split, params)
    found = _cached(path, key)
    if not found:
        of = Statistics.of(torch.cat(list(_features(network, split.images, params.evaluate.batch_size))))
        found = {"mean": of.mean, "scatter": of.scatter}
        write_checked_tensors(path, found, key)
    return Statistics(len(split.images), found["mean"], found["scatter"])


def _features(network: Features, images: np.ndarray, size: int) -> Iterator[Tensor]:
    """Of pictures (N, S, S, 3) uint8, batch by batch; of none, nothing."""
    for i in range(0, len(images), size):
        yield network(torch.from_numpy(np.array(images[i : i + size]))).float().cpu()


def _key(network: Features, name: str, split: Split, params: Params) -> dict[str, str]:
    """What the features of a split, and the statistics of them, depend on."""
    code = {*pipeline.closure("evaluation/features.py", pipeline.NEUTRAL), "evaluation/frechet.py"}
    return {
        "features": network.id,
        "code": pipeline.code_sha256(code),
        "data": load_meta(params.paths.dataset)["splits"][name]["images_sha256"],
        "n": str(len(split.images)),
    }


def _cached(path: Path, key: dict[str, str]) -> dict[str, Tensor] | None:
    """What was saved under this very key; anything else is made again, as it is a cache."""
    if not path.exists():
        return None
    try:
        tensors, metadata = read_checked_tensors(path, "dvc repro")
    except CondmixError:
        return None
    return tensors if metadata == key else None
