"""The files that evaluation wrote -> rows to compare: ranked ones, and oracle rows beside them.

An oracle row was conditioned on the held-out picture's own embedding. It knows more than any caption says, so it has
no rank and is compared only with other oracle rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.files.artifacts import read_checked_json

# What stays true of an oracle row though only the headline row states it.
CONDITIONS = (
    "variant", "profile", "fusion", "perspectives", "guidance", "sampler", "steps", "n", "seed", "split", "reference",
    "features", "ema", "commit", "judge_accuracy", "judge_accuracy_n",
)  # fmt: skip
Z_95 = 1.959964  # standard normal quantile of a two-sided 95% interval


class Reference(TypedDict):
    """The real pictures that distances are measured to."""

    split: str
    n: int


def _numbers(facts: Any) -> Any:
    """ValueError unless every distance is a number; their names depend on the features."""
    for key, value in facts.items() if isinstance(facts, dict) else ():
        if key.startswith(("fd_", "kid_")) and not key.endswith("_interval") and not isinstance(value, int | float):
            raise ValueError(f"{key} is no number")
    return facts


class Measured(TypedDict):
    """What is read of the figures for one set of pictures."""

    guidance: NotRequired[float]
    n: NotRequired[int]
    fid: NotRequired[float]
    scene_accuracy: NotRequired[float]
    class_accuracy: NotRequired[float]
    attribute_accuracy_mean: NotRequired[float]
    attribute_accuracy: NotRequired[dict[str, float]]
    attribute_accuracy_unnamed: NotRequired[dict[str, float]]
    attribute_n: NotRequired[dict[str, int]]


Figures = Annotated[Measured, BeforeValidator(_numbers)]


class AllMeasured(Measured):
    """What is read of metrics/<variant>.json."""

    variant: str
    profile: str
    fusion: str
    perspectives: Annotated[list[str], Field(min_length=1)]
    condition: str
    oracle: NotRequired[Figures]
    prior: NotRequired[Figures]
    sweep: NotRequired[list[Figures]]
    best_guidance: NotRequired[dict[str, float]]
    reference: NotRequired[Reference]
    features: NotRequired[list[str]]
    judge_accuracy: NotRequired[dict[str, float]]
    seed: NotRequired[int]
    sampler: NotRequired[str]
    steps: NotRequired[int]


Metrics = Annotated[AllMeasured, BeforeValidator(_numbers)]


@dataclass(frozen=True)
class Measure:
    """One number of a row: its place in the JSON ("attribute_accuracy.shape"), a column's heading and a name.

    A share is in 0..1 and more of it is better; anything else is a distance.
    """

    key: str
    heading: str
    name: str
    share: bool

    def of(self, row: Row) -> float | None:
        """The row's value, None where it was not measured."""
        group, _, name = self.key.rpartition(".")
        return (row.facts.get(group, {}) if group else row.facts).get(name)

    def best(self, rows: Sequence[Row]) -> float | None:
        """The best value among the rows, None where there is nothing to compare."""
        values = [value for row in rows if (value := self.of(row)) is not None]
        return (max if self.share else min)(values) if len(values) > 1 else None

    def text(self, value: float) -> str:
        """A share as "97.3%", three significant digits for a distance."""
        return f"{value:.1%}" if self.share else significant(value)

    def tick(self, value: float) -> str:
        """As `text`, without digits that a round number does not need."""
        return f"{100 * value:.4g}%" if self.share else f"{value:.4g}"


@dataclass(frozen=True)
class Row:
    """What one variant was asked, how, and what came out; `facts` as in metrics/<variant>.json."""

    facts: Mapping[str, Any]
    rank: int | None = None  # None for an oracle row

    @property
    def variant(self) -> str:
        return self.facts["variant"]

    @property
    def condition(self) -> str:
        """What stood in the views: "captions", "prompt" (a caption in the image's place), "prior" or "oracle"."""
        return self.facts["condition"]

    @property
    def oracle(self) -> bool:
        """Was the picture's own embedding the condition?"""
        return self.condition == "oracle"


def read_metrics(params: Any) -> list[dict[str, Any]]:
    """metrics/<variant>.json of each variant of params.yaml, all of its profile; else CondmixError."""
    found = []
    for variant in params.variants:
        path = params.paths.metrics / f"{variant}.json"
        facts = read_checked_json(path, Metrics, f"dvc repro evaluate@{variant}")
        if facts.get("profile") != params.profile:
            raise CondmixError(
                f'{path} was measured under profile "{facts.get("profile")}", but params.yaml says '
                f'"{params.profile}": run dvc repro'
            )
        found.append(facts)
    return found


def ranked(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The headline rows that are no oracles, best first by `ranking_measure`; equal values share a rank."""
    rows = [row for row in map(Row, metrics) if not row.oracle]
    measure = ranking_measure(rows)
    if measure is None:
        return rows
    loss = [-measure.of(row) if measure.share else measure.of(row) for row in rows]
    order = sorted(range(len(rows)), key=loss.__getitem__)
    return [Row(rows[i].facts, rank=1 + sum(other < loss[i] for other in loss)) for i in order]


def oracles(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows conditioned on the picture's own embedding, in the variants' order.

    For a variant that no words can ask (data without captions) that is the headline row.
    """
    rows = []
    for facts in metrics:
        if Row(facts).oracle:
            rows.append(Row(facts))
        elif facts.get("oracle"):
            rows.append(_beside(facts, "oracle"))
    return rows


def through_prior(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of variants that were asked through the prior: of fewer pictures than the headline's, so unranked."""
    return [_beside(facts, "prior") for facts in metrics if facts.get("prior")]


def _beside(facts: Mapping[str, Any], condition: str) -> Row:
    """The row of another condition than the headline's."""
    shared = {key: facts[key] for key in CONDITIONS if key in facts}
    return Row({**shared, **facts[condition]})


def measures(rows: Sequence[Row]) -> list[Measure]:
    """The measures that any of the rows has, the most telling first: it is what ranks.

    Where attributes are judged, the class is one of them and has no column of its own.
    """
    keys = {key for row in rows for key in row.facts}
    if "attribute_accuracy_mean" in keys:
        keys.discard("class_accuracy")
    known = [
        Measure("scene_accuracy", "scene", "accuracy of the whole scene", share=True),
        Measure("attribute_accuracy_mean", "named attributes", "mean accuracy of named attributes", share=True),
        Measure("class_accuracy", "class", "class accuracy", share=True),
        Measure("fid", "FID", "FID", share=False),
        Measure("fd_judge", "fd_judge", "fd_judge", share=False),
    ]
    distances = {key for key in keys if key.startswith("fd_") and not key.endswith("_interval")}
    others = sorted(distances - {"fd_judge"})
    known += [Measure(key, key, key, share=False) for key in others]
    return [measure for measure in known if measure.key in keys]


def ranking_measure(rows: Sequence[Row]) -> Measure | None:
    """The first measure that all rows have."""
    return next((m for m in measures(rows) if all(m.of(row) is not None for row in rows)), None)


def attribute_measures(rows: Sequence[Row], group: str = "attribute_accuracy") -> list[Measure]:
    """Accuracy of each judged attribute, in the data set's order."""
    names = dict.fromkeys(name for row in rows for name in row.facts.get(group, {}))
    return [Measure(f"{group}.{name}", name, f"accuracy of {name}", share=True) for name in names]


def ceilings(rows: Sequence[Row]) -> dict[str, float]:
    """The judge's own accuracy on real pictures under each measure's key: no more than that can be shown of a row."""
    judge = next((row.facts["judge_accuracy"] for row in rows if row.facts.get("judge_accuracy")), {})
    known = {f"attribute_accuracy.{name}": share for name, share in judge.items()}
    if "class" in judge:
        known["class_accuracy"] = judge["class"]
    shares = [known.get(measure.key) for measure in attribute_measures(rows)]
    if shares and None not in shares:
        known["attribute_accuracy_mean"] = sum(shares) / len(shares)
    return known


def uncertainty(share: float, n: int) -> float:
    """Half the width of Wilson's 95% interval of a share counted over n pictures."""
    return Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))


def significant(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, never in exponent form; whole digits are all kept."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits - 1}e}")  # 9.999 has its first digit one place further left
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:,.{max(0, decimals)}f}"


def short_perspectives(names: Sequence[str]) -> str:
    """As in "image + caption_1-3": what is numbered in a row is joined."""
    runs: list[tuple[str, list[str]]] = []
    for name in names:
        stem, _, number = name.rpartition("_")
        if not number.isdigit():
            runs.append((name, []))
        elif runs and runs[-1][0] == stem and int(runs[-1][1][-1]) + 1 == int(number):
            runs[-1][1].append(number)
        else:
            runs.append((stem, [number]))
    return " + ".join("_".join([stem, "-".join(dict.fromkeys([n[0], n[-1]]))]) if n else stem for stem, n in runs)


def agreed(facts: Sequence[Mapping[str, Any]], key: str, form: str = "{}") -> str:
    """A value in words: once where all agree, else every one that occurs; "" where there is none."""
    return " / ".join(dict.fromkeys(form.format(f[key]) for f in facts if f.get(key) is not None))


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as ("outer.inner", value) pairs."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
