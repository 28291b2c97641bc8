"""The files that evaluation wrote -> rows to compare: ranked ones, and oracle rows beside them.

An oracle row was conditioned on the held-out picture's own embedding. It knows more than any caption says, so it has
no rank and is compared only with other oracle rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WrapValidator
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.evaluation.conditions import Condition, changes_of
from condmix.files.artifacts import read_checked_json
from condmix.metrics import ABSENT, Measure, at, compared, known
from condmix.settings.schema import Params

# Fields that a row of another condition inherits from its headline row.
INHERITED = (
    "variant", "profile", "fusion", "perspectives", "guidance", "sampler", "steps", "spacing", "last_time", "n",
    "seed", "split", "reference",
    "features", "ema", "commit", "judge_accuracy", "judge_accuracy_n",
    "judge_accuracy_network", "judge_accuracy_n_network", "judge_accuracy_probe", "residual_real",
)  # fmt: skip
Z_95 = 1.959964  # standard normal quantile of a two-sided 95% interval


class ReferenceSet(TypedDict):
    """The real pictures that distances are measured to."""

    split: str
    n: int


def _figures(facts: Any, checked: Callable[[Any], Any]) -> Any:
    """What passes the schema, if every measure in it is a number too; ValueError."""
    checked(facts)
    rows = [facts, *facts.get("sweep", []), *(facts[condition] for condition in Condition if condition in facts)]
    rows += [row for change in changes_of(facts) if (row := change.of(facts))]
    for measure in known([{"features": facts.get("features", ()), **row} for row in rows]):
        for key in filter(None, (measure.key, measure.count)):
            for value in (at(row, key, ABSENT) for row in rows):
                numbers = value if measure.interval and isinstance(value, list) else [value]
                if value is not ABSENT and not all(type(number) in (int, float) for number in numbers):
                    raise ValueError(f"{key} is no number")
    return facts


class Figures(TypedDict):
    """What is read of the figures for one set of pictures, but for its measures."""

    guidance: NotRequired[float]
    n: NotRequired[int]


class MetricsFile(Figures):
    """What is read of metrics/<variant>.json, but for its measures."""

    variant: str
    profile: str
    fusion: str
    perspectives: Annotated[list[str], Field(min_length=1)]
    condition: Literal[tuple(value.value for value in Condition)]  # type: ignore[valid-type]
    oracle: NotRequired[Figures]
    prior: NotRequired[Figures]
    sweep: NotRequired[list[Figures]]
    without: NotRequired[dict[str, Figures]]
    wrong: NotRequired[dict[str, Figures]]
    shuffled: NotRequired[Figures]
    best_guidance: NotRequired[dict[str, float]]
    reference: NotRequired[ReferenceSet]
    features: NotRequired[list[str]]
    judge_accuracy: NotRequired[dict[str, float]]
    judge_accuracy_network: NotRequired[dict[str, float]]
    judge_accuracy_probe: NotRequired[dict[str, float]]
    seed: NotRequired[int]
    sampler: NotRequired[str]
    steps: NotRequired[int]


Metrics = Annotated[MetricsFile, WrapValidator(_figures)]


@dataclass(frozen=True)
class Row:
    """What one variant was conditioned on, how, and what came out; `facts` as in metrics/<variant>.json."""

    facts: Mapping[str, Any]
    rank: int | None = None  # None for an oracle row

    @property
    def variant(self) -> str:
        return str(self.facts["variant"])

    @property
    def condition(self) -> Condition:
        """What stood in the views."""
        return Condition(self.facts["condition"])


def read_metrics(params: Params) -> list[dict[str, Any]]:
    """metrics/<variant>.json of each variant of params.yaml, all of its profile; else CondmixError."""
    all_facts = []
    for variant in params.variants:
        path = params.paths.metrics / f"{variant}.json"
        facts = read_checked_json(path, Metrics, f"dvc repro evaluate@{variant}")
        if facts.get("profile") != params.profile:
            raise CondmixError(
                f'{path} was measured under profile "{facts.get("profile")}", but params.yaml says '
                f'"{params.profile}": run dvc repro'
            )
        all_facts.append(facts)
    return all_facts


def ranked(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The headline rows that are no oracles, best first by `ranking_measure`; equal values share a rank."""
    rows = [row for row in map(Row, metrics) if row.condition.ranked]
    measure = ranking_measure(rows)
    if measure is None:
        return rows
    loss = [-measure.of(row.facts) if measure.higher_is_better else measure.of(row.facts) for row in rows]
    order = sorted(range(len(rows)), key=loss.__getitem__)
    return [Row(rows[i].facts, rank=1 + sum(other < loss[i] for other in loss)) for i in order]


def oracles(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows conditioned on the picture's own embedding, in the variants' order.

    For a variant that no words can prompt (data without captions) that is the headline row.
    """
    rows = []
    for facts in metrics:
        if Row(facts).condition.is_oracle:
            rows.append(Row(facts))
        elif facts.get(Condition.ORACLE):
            rows.append(_beside(facts, Condition.ORACLE))
    return rows


def through_prior(metrics: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows of variants that were prompted through the prior: of fewer pictures than the headline's, so unranked."""
    return [_beside(facts, Condition.PRIOR) for facts in metrics if facts.get(Condition.PRIOR)]


def _beside(facts: Mapping[str, Any], condition: Condition) -> Row:
    """The row of another condition than the headline's."""
    shared = {key: facts[key] for key in INHERITED if key in facts}
    return Row({**shared, **facts[condition]})


def columns(rows: Sequence[Row]) -> list[Measure]:
    """The measures that compare these rows: shares, those of attributes last, then everything else."""
    return compared([row.facts for row in rows])


def headline(rows: Sequence[Row]) -> list[Measure]:
    """The same without those of single attributes."""
    return [measure for measure in columns(rows) if measure.attribute is None]


def ranking_measure(rows: Sequence[Row]) -> Measure | None:
    """The measure of lowest rank among those that all rows have."""
    ranking = sorted((m for m in columns(rows) if m.rank is not None), key=lambda measure: (measure.rank, measure.key))
    return next((m for m in ranking if all(m.of(row.facts) is not None for row in rows)), None)


def ceilings(rows: Sequence[Row], columns: Sequence[Measure]) -> dict[str, float]:
    """The judge's own accuracy on real pictures under each measure's key: no more than that can be shown of a row."""
    judge: dict[str, float] = next(filter(None, (row.facts.get("judge_accuracy") for row in rows)), {})
    known = [measure for measure in columns if measure.judged_by and judge.keys() >= set(measure.judged_by)]
    return {measure.key: sum(judge[head] for head in measure.judged_by) / len(measure.judged_by) for measure in known}


def uncertainty(share: float, n: int) -> float:
    """Half the width of Wilson's 95% interval of a share counted over n pictures."""
    return Z_95 / (1 + Z_95**2 / n) * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))


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
