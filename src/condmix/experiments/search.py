"""A search over settings, conf/searches/<name>.yaml -> what it searches, and what a trial's values mean.

Each trial is a run like those of a grid. What judges it is not what is reported of it: the run sweeps over one guidance
scale, its own, and a sweep is of the last evaluate.sweep_n test pictures, which are in no other figure
(condmix.stages.evaluate).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from condmix import CondmixError
from condmix.experiments.evidence import evidence, keep, read
from condmix.experiments.grid import Baseline, Identifier, PlannedRun, done, hashed, read_declared, refuse_processes
from condmix.metrics import Measure, Pictures, metrics
from condmix.settings.load import unknown
from condmix.settings.schema import Flag, Name, Params, Positive, Seed, Settings, Text

OWN = ("fusion", "perspectives", "guidance", "seed")  # keys of params.yaml that a trial may change
JUDGING = ("seed", "data", "judge", "evaluate.sweep_n")  # by these alone a trial would win


def _finite(value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("give a number")
    return value


Finite = Annotated[Any, AfterValidator(_finite)]  # Any, so that whole ones stay whole


class Range(Settings):
    """Numbers from `low` to `high`, both among them."""

    low: Finite
    high: Finite
    log: Flag = False  # every order of magnitude alike
    step: Finite | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low, {self.low}, must be less than high, {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a range with log: true begins above 0 and has no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("a step is above 0")
        return self


def _range_or_choices(value: Any) -> Any:
    if not isinstance(value, dict | list | tuple | Range):
        raise ValueError("give a list of choices, or a range such as {low: 1, high: 6}")
    return value


def _kind(value: Any) -> str:
    return "<range>" if isinstance(value, dict | Range) else "<choices>"


Choices = Annotated[tuple[Any, ...], Field(min_length=1), Tag("<choices>")]
Dimension = Annotated[
    Annotated[Range, Tag("<range>")] | Choices, Discriminator(_kind), BeforeValidator(_range_or_choices)
]


class Search(Settings):
    """A checked conf/searches/<name>.yaml."""

    name: Identifier
    profile: Name
    measure: Name  # its key in metrics/<variant>.json
    trials: Positive
    sampler: Literal["tpe", "gp", "random", "grid"] = "tpe"
    sampler_seed: Seed = 0
    settings: dict[Text, Any] = {}  # keys of params.yaml and dotted keys of conf/<profile>.yaml, for all trials
    space: Annotated[dict[Text, Dimension], Field(min_length=1)]  # the same keys

    @property
    def where(self) -> str:
        return f"conf/searches/{self.name}.yaml"


def read_search(root: Path, name: str) -> Search:
    """The search `name` of the project in `root`; CondmixError names the first thing that is wrong with it."""
    search = read_declared(root, "searches", name, Search)
    refuse_processes([*search.settings, *search.space], search.where)
    known = [key for key in Params.model_fields if key not in ("root", "profile", "variants")]
    for key in (*search.settings, *search.space):
        if key.split(".")[0] not in known:
            raise CondmixError(unknown("setting", key, known, search.where))
        if key == "evaluate.sweep":
            raise CondmixError(f"{search.where}: leave out evaluate.sweep; every trial sweeps over its own guidance")
    for key, dimension in search.space.items():
        if key in search.settings:
            raise CondmixError(f"{search.where}: {key} is in settings and in space; leave one of them out")
        if f"{key}.".startswith(tuple(f"{judging}." for judging in JUDGING)):
            raise CondmixError(f"{search.where}: {key} decides how trials are judged; give it one value, in settings")
        if isinstance(dimension, tuple) and len(set(map(repr, dimension))) < len(dimension):
            raise CondmixError(f"{search.where}: space.{key} names a choice twice")
    return search


@dataclass(frozen=True)
class Objective:
    """A trial's values -> its run, and the figures that it leaves."""

    search: Search
    baseline: Baseline

    def run(self, values: Mapping[str, Any]) -> PlannedRun:
        """CondmixError where the values don't go together."""
        params, settings = self.changes(values)
        self.baseline.checked(params, settings, self.search.where)
        return self.baseline.run(f"search_{self.search.name}", "trial", params, settings)

    @cached_property
    def study_name(self) -> str:
        """With a hash of what decides the figures of all trials; CondmixError where a bound or choice is no setting."""
        names = sorted({self.run(corner).name for corner in self.corners()})
        declared = self.search.model_dump(mode="json", include={"measure", "space"})
        return f"{self.search.name}-{hashed({**declared, 'runs': names})}"

    @cached_property
    def measure(self) -> Measure:
        """CondmixError where a sweep has no such measure, or where none of its values is better."""
        params = self.baseline.checked(*self.changes(next(self.corners())), self.search.where)
        files = [{"features": params.evaluate.features}]
        found = {m.key: m for one in metrics() if one.pictures is Pictures.EVERY for m in one.measures(files)}
        usable = {key: m for key, m in found.items() if m.higher_is_better is not None and not m.interval}
        if self.search.measure not in usable:
            raise CondmixError(unknown("measure", self.search.measure, list(usable), f"{self.search.where}: measure"))
        return usable[self.search.measure]

    def figures(self, root: Path, run: PlannedRun) -> tuple[float, float]:
        """A finished run's figure of the pictures that judge it, and of those that are reported."""
        path = evidence(root, run)
        if not path.exists():
            references = done(root)
            if run.name not in references:
                raise CondmixError(f"{run.name} was removed, and so was {path}: begin with another sampler_seed")
            keep(root, run, references[run.name])
        _, facts = read(root, path)
        sweep, *_ = facts.get("sweep") or [{}]
        if self.measure.of(sweep) is None:
            raise CondmixError(
                f"{run.name} has no {self.measure.key} of the test pictures that are not reported; found: "
                f"{', '.join(sweep) or 'none, as the test split has too few pictures'}"
            )
        return self.measure.of(sweep), self.measure.of(facts)

    def changes(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a trial changes in params.yaml, and, under dotted keys, in conf/<profile>.yaml."""
        settings = {**self.search.settings, **values}
        committed = self.baseline.files["params.yaml"]
        params = {key: settings.pop(key, committed.get(key)) for key in OWN}
        return {"profile": self.search.profile, **params}, {**settings, "evaluate.sweep": [params["guidance"]]}

    def corners(self) -> Iterator[dict[str, Any]]:
        """Every bound and choice, each with the first of all others."""
        ends = {key: d if isinstance(d, tuple) else (d.low, d.high) for key, d in self.search.space.items()}
        first = {key: values[0] for key, values in ends.items()}
        yield from ({**first, key: value} for key, values in ends.items() for value in values)
