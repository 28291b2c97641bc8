"""A grid of experiments and its finished runs -> what they show: comparisons, and the tables for programs.

All experiments drew the same held-out pictures under the same seeds, so they are compared in pairs
(condmix.experiments.statistics). The questions are, as far as the data can answer: how much of the scene do the
pictures show (where only a class is known, is it right); how much of what the first caption says; and how well do they
fit captions that conditioned no experiment. The last two are the same examination for all, so further conditions can't
help by themselves.

Runs that another version of the code made are shown too (condmix.experiments.evidence), but a difference is always
between two runs of the same code, judged by the same judges: other seeds are left out of a comparison.
An experiment that was conditioned on the held-out picture itself is an oracle: it stands apart and is never ranked.
The page for people is condmix.reporting.grid_page.
"""
# S seeds, n conditions (held-out pictures), A attributes

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from condmix import CondmixError
from condmix.evaluation.conditions import Change, Condition, Kind
from condmix.experiments import statistics
from condmix.files.artifacts import damaged, read_arrays, read_json, require
from condmix.files.atomic import write_json, write_text
from condmix.metrics import Measure, Place, compared, measures
from condmix.results.details import DetailsFile, read_pictures
from condmix.results.rows import agreed, flat
from condmix.runtime.seeds import derive
from condmix.settings.perspectives import parse

if TYPE_CHECKING:
    from condmix.experiments.evidence import Finished, Origin
    from condmix.experiments.grid import Grid

QUESTIONS = {  # the first that is answered ranks the experiments
    "scene": "the scene",
    "class": "the class",
    "first_caption": "what the first caption says",
    "held_out": "captions that conditioned no experiment",
}
REMEDY = "condmix experiments run"


@dataclass(frozen=True)
class MeasuredRun:
    """One finished run. `scores`: question -> (n,), without a question that the data does not answer."""

    experiment: str
    seed: int
    metrics: Mapping[str, Any]
    card: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    folder: Path
    origin: Origin
    ids: np.ndarray
    scores: dict[str, np.ndarray]
    ranks: np.ndarray | None = None  # (n, K) of the picture's captions, CaptionScore.ranks
    used: np.ndarray | None = None  # (n, K): which of them conditioned it; there if `ranks` is
    changed: Mapping[Change, np.ndarray] = field(default_factory=dict)  # (m,): the first score then

    def pairs_with(self, other: MeasuredRun) -> bool:
        """Does a difference between the two come from what they were told, not from other code or other judges?

        Trained judges of other machines differ; those that are right on as many real pictures are taken for the same.
        """
        mine, others = (
            {name: value for name, value in run.metrics.items() if name.startswith("judge_accuracy")}
            for run in (self, other)
        )
        return self.origin.agrees(other.origin) and mine == others

    @property
    def condition(self) -> Condition:
        """What stood in the views of its headline pictures."""
        return Condition(self.metrics["condition"])

    def drawn(self, condition: str) -> np.ndarray:
        """(N, S, S, 3) uint8: the pictures of its samples under a condition."""
        return read_pictures(self.folder / f"{condition}.npy", len(self.samples), _remedy(self.folder))

    @property
    def real(self) -> np.ndarray | None:
        """(N, S, S, 3) uint8: the real pictures of its samples; None where they are not ours to keep."""
        return self.drawn("real") if (self.folder / "real.npy").exists() else None


@dataclass(frozen=True)
class Test:
    """One comparison of two experiments in one question, judged among all comparisons of the page."""

    experiment: str
    against: str
    question: str
    result: statistics.Comparison
    adjusted_p: float | None
    at_most: bool  # the adjusted p is an upper bound
    commits: tuple[str, ...] = ()  # of its pairs, each once
    unpaired: tuple[int, ...] = ()  # seeds left out, of whose runs no two are of the same code and judges

    @property
    def verdict(self) -> str:
        return statistics.verdict(self.result.difference, self.adjusted_p)


class Evidence:
    """A grid's runs in the grid's order, and every comparison between them.

    `finished` are some of the grid's runs or all; of several of one experiment and seed, by different code, the first
    is shown, and the others are for comparisons with runs of their own code.
    CondmixError where there are none, or where they did not draw the same pictures.
    """

    def __init__(self, grid: Grid, finished: Sequence[Finished]):
        self.grid = grid
        planned = [(name, seed) for name in grid.experiments for seed in grid.seeds_of(name)]
        everything = [read_run(run) for run in finished]
        check(grid, planned, everything)
        self.by_place: dict[tuple[str, int], list[MeasuredRun]] = {}
        for run in everything:
            self.by_place.setdefault((run.experiment, run.seed), []).append(run)
        self.runs = [self.by_place[place][0] for place in planned if place in self.by_place]
        self.missing = [place for place in planned if place not in self.by_place]
        self.names = list(dict.fromkeys(run.experiment for run in self.runs))
        score_held_out(everything)
        self.measures = measures([run.metrics for run in self.runs])
        self.questions = [question for question in QUESTIONS if any(question in run.scores for run in self.runs)]
        self.tests = self.compare()
        self.intervals = {
            (name, question): statistics.interval(scores, derive(grid.name, name, question))
            for name, question in itertools.product(self.names, self.questions)
            if (scores := self.scores(self.of(name), question)) is not None
        }

    def of(self, experiment: str) -> list[MeasuredRun]:
        """An experiment's runs, in the order of the seeds."""
        return [run for run in self.runs if run.experiment == experiment]

    def pairs(self, first: str, second: str) -> list[tuple[MeasuredRun, MeasuredRun]]:
        """The runs of two experiments by the same code and judges, a pair for each seed that has one."""
        found: list[tuple[MeasuredRun, MeasuredRun]] = []
        for seed in self.grid.every_seed:
            sides = itertools.product(self.by_place.get((first, seed), ()), self.by_place.get((second, seed), ()))
            found += itertools.islice((pair for pair in sides if pair[0].pairs_with(pair[1])), 1)
        return found

    def unpaired(self, first: str, second: str) -> tuple[int, ...]:
        """The seeds under which both experiments are finished, but not by the same code and judges."""
        paired = {run.seed for run, _ in self.pairs(first, second)}
        having = [seed for seed in self.grid.every_seed if {(first, seed), (second, seed)} <= self.by_place.keys()]
        return tuple(seed for seed in having if seed not in paired)

    @property
    def uncompared(self) -> list[tuple[str, str]]:
        """Experiments that could be compared, if the same code had made and the same judges judged both."""
        pairs = [(name, other) for name in self.names for other in self.all_against(name)]
        return [pair for pair in pairs if self.unpaired(*pair) and not self.pairs(*pair)]

    def oracle(self, experiment: str) -> bool:
        """Was the held-out picture itself the condition of its headline pictures?"""
        return any(run.condition.is_oracle for run in self.of(experiment))

    def control(self, experiment: str) -> str | None:
        return self.grid.experiments[experiment].control

    def against(self, experiment: str) -> str | None:
        """What the experiment is compared with first of all; None for the baseline itself."""
        other = self.grid.experiments[experiment].against or self.grid.baseline
        return other if other != experiment else None

    def all_against(self, experiment: str) -> list[str]:
        """Everything that the experiment is compared with."""
        first = self.against(experiment)
        return [*([first] if first else []), *self.grid.experiments[experiment].also_against]

    def says(self, experiment: str) -> str:
        """As in "two captions (concat)"."""
        made = self.grid.experiments[experiment]
        return f"{made.says} ({made.fusion})"

    def scores(self, runs: Sequence[MeasuredRun], question: str) -> np.ndarray | None:
        """(S, n), None where the data does not answer the question."""
        found = [run.scores[question] for run in runs if question in run.scores]
        return np.stack(found) if found and len(found[0]) > 1 else None

    def compare(self) -> list[Test]:
        """Each experiment against its own `all_against`, in every question; all p-values are adjusted together."""
        results = {}
        compared = [(name, other) for name in self.names for other in self.all_against(name)]
        for (experiment, other), question in itertools.product(compared, self.questions):
            pairs = self.pairs(experiment, other)
            if not pairs or self.oracle(experiment) or self.oracle(other):
                continue
            first, second = (self.scores(runs, question) for runs in zip(*pairs, strict=True))
            if first is not None and second is not None:
                seed = derive(self.grid.name, experiment, other, question)
                results[experiment, other, question] = statistics.compare(first, second, seed)
        p = {place: result.p for place, result in results.items() if result.p is not None}
        adjusted = dict(zip(p, statistics.holm(list(p.values())), strict=True))
        # Holm may hand a bound on to the next larger p
        bounds = {adjusted[place] for place, result in results.items() if result.at_most} - {1.0}
        return [
            Test(*place, result, adjusted.get(place), adjusted.get(place) in bounds, self.commits(*place[:2]),
                 self.unpaired(*place[:2]))
            for place, result in results.items()
        ]  # fmt: skip

    def commits(self, first: str, second: str) -> tuple[str, ...]:
        """The commits at which the compared runs of two experiments were made."""
        return tuple(dict.fromkeys(run.origin.commit for pair in self.pairs(first, second) for run in pair))

    def change(self, experiment: str, change: Change) -> statistics.Comparison | None:
        """An experiment's models, under a change of their conditions, against themselves without it."""
        runs = [run for run in self.of(experiment) if change in run.changed]
        return compare_some(
            [run.changed[change] for run in runs], [run.scores[self.questions[0]] for run in runs],
            derive(self.grid.name, experiment, str(change)),
        )  # fmt: skip

    def changed_alike(self, experiment: str, change: Change) -> statistics.Comparison | None:
        """An experiment's models against those that it is compared with, both under the same change."""
        other = self.against(experiment)
        if other is None:
            return None
        pairs = [
            (first.changed[change], second.changed[change])
            for first, second in self.pairs(experiment, other)
            if change in first.changed and change in second.changed
        ]
        first, second = zip(*pairs, strict=True) if pairs else ((), ())
        return compare_some(first, second, derive(self.grid.name, experiment, other, str(change)))

    def misled(self, experiment: str, source: str, share: float) -> tuple[float, statistics.Comparison | None] | None:
        """(mean score, comparison with what it is compared with) where a share of this source is another picture's.

        None for an experiment without the source. No pictures are drawn for it: of each its score with the right source
        and with a wrong one are known, under the same noise, and a share of them is misled, whichever they are.
        """
        own = [scores for run in self.of(experiment) if (scores := self.misled_scores(run, source, share)) is not None]
        if slot(self.grid.experiments[experiment].perspectives, source) is None or not own:
            return None
        other = self.against(experiment)
        pairs = [
            [self.misled_scores(run, source, share) for run in pair]
            for pair in (self.pairs(experiment, other) if other else ())
        ]
        pairs = [pair for pair in pairs if all(scores is not None for scores in pair)]
        first, second = zip(*pairs, strict=True) if pairs else ((), ())
        compared = compare_some(first, second, derive(self.grid.name, experiment, source, str(share)))
        return float(np.mean([scores.mean() for scores in own])), compared

    def misled_scores(self, run: MeasuredRun, source: str, share: float) -> np.ndarray | None:
        """(m,): what a picture's first score is on average, where so large a share of pictures has a wrong source."""
        right = run.scores.get(self.questions[0])
        name = slot(self.grid.experiments[run.experiment].perspectives, source)
        if name is None or right is None:
            return right
        wrong = run.changed.get(Change(Kind.WRONG, name))
        return None if wrong is None else (1 - share) * right[: len(wrong)] + share * wrong

    def test(self, experiment: str, question: str) -> Test | None:
        """The comparison with what the experiment is compared with first of all."""
        place = (experiment, self.against(experiment), question)
        return next((t for t in self.tests if (t.experiment, t.against, t.question) == place), None)

    def share(self, experiment: str, question: str) -> float | None:
        """Mean score over seeds and conditions."""
        scores = self.scores(self.of(experiment), question)
        return None if scores is None else float(scores.mean())

    def spread(self, runs: Sequence[Mapping[str, Any]], measure: Measure | None) -> statistics.Spread | None:
        """A measure of the runs' metrics, over the seeds that have it."""
        values = [value for facts in runs if measure and (value := measure.of(facts)) is not None]
        return statistics.over_seeds(values) if values else None

    def ranked(self) -> list[tuple[int, str]]:
        """(rank, experiment) by the first question, best first, equal ones alike; no oracles, no controls."""
        names = [name for name in self.names if not self.oracle(name) and not self.control(name)]
        shares = {name: share for name in names if (share := self.share(name, self.questions[0])) is not None}
        names = list(shares)
        order = sorted(names, key=lambda name: -shares[name])
        return [(1 + sum(other > shares[name] for other in shares.values()), name) for name in order]

    @property
    def of_sets(self) -> list[Measure]:
        """All measured numbers of a set of pictures, the most telling first."""
        return [measure for measure in self.measures if Place.SETS in measure.places]

    @property
    def distance(self) -> Measure | None:
        """The one of them that tables show where there is room for one."""
        return next(iter(self.of_sets), None)

    @property
    def compared(self) -> list[Measure]:
        """The measures that compare variants, without those of single attributes."""
        return [measure for measure in compared([run.metrics for run in self.runs]) if measure.attribute is None]

    @property
    def answering(self) -> Measure | None:
        """The measure of a set of pictures that answers the first question."""
        return next((measure for measure in self.measures if measure.answers == self.questions[0]), None)


def slot(perspectives: Sequence[str], source: str) -> str | None:
    """The perspective that is this source, always right in training or wrong at times; None where none is."""
    return next((name for name in perspectives if name == source or name.startswith(f"{source}_wrong_")), None)


def compare_some(first: Sequence[np.ndarray], second: Sequence[np.ndarray], seed: int) -> statistics.Comparison | None:
    """Scores of several seeds, each (n,), over the first pictures that all of them have; None for fewer than two."""
    n = min(map(len, (*first, *second)), default=0)
    if n < 2:
        return None
    one, other = (np.stack([scores[:n] for scores in side]) for side in (first, second))
    return statistics.compare(one, other, seed)


# ---- reading ----


def read_run(finished: Finished) -> MeasuredRun:
    """A finished run's files, with the scores of its pictures."""
    path, remedy = finished.folder / "pictures.npz", _remedy(finished.folder)
    details = read_json(finished.folder / "details.json", DetailsFile, remedy)
    arrays = read_arrays(path, remedy)
    ids = require(arrays, "ids", np.int64, (None,), path, remedy)
    right = require(arrays, "right", bool, (len(ids), None), path, remedy)
    mentions = require(arrays, "mentions", bool, (len(ids), None, None), path, remedy)
    if "attribute_names" not in arrays or arrays["attribute_names"].shape != (right.shape[1],):
        raise damaged(path, "its attribute_names are not one for each column of right", remedy)
    attributes = arrays["attribute_names"].tolist()
    ranks, used = None, None
    if "caption_ranks" in arrays:
        ranks = require(arrays, "caption_ranks", arrays["caption_ranks"].dtype, (len(ids), None), path, remedy)
        used = require(arrays, "told", bool, ranks.shape, path, remedy)
    changed = {
        change: statistics.scene_score(require(arrays, name, bool, (None, right.shape[1]), path, remedy))
        for name in arrays if (change := Change.of_array(name))
    }  # fmt: skip
    if not right.size and ranks is None:
        raise CondmixError(
            f"nothing in {path} tells one experiment from another picture by picture: the data set has neither "
            "attributes nor classes, so name a CLIP that conditions nothing as evaluate.scorer, and run the grid again"
        )
    scores = {}
    if right.size:
        scores["class" if attributes == ["class"] else "scene"] = statistics.scene_score(right)
    if right.size and mentions.shape[1]:
        scores["first_caption"] = statistics.asked_score(right, mentions[:, 0])
    return MeasuredRun(finished.experiment, finished.seed, finished.metrics, details["card"], details["samples"],
               finished.folder, finished.origin, ids, scores, ranks, used, changed)  # fmt: skip


def _remedy(folder: Path) -> str:
    """How a run's files are fetched again from DVC's cache."""
    return f"condmix experiments report, after deleting the folder {folder}"


def score_held_out(runs: Sequence[MeasuredRun]) -> None:
    """Add the scores of "held_out": the mean rank of the captions that conditioned none of the runs.

    A run that was conditioned on every caption can't be examined so: it has no score, and takes no caption from others.
    """
    ranked = [(run, run.ranks, run.used) for run in runs if run.ranks is not None and run.used is not None]
    examined = [(run, ranks, used) for run, ranks, used in ranked if not used[~np.isnan(ranks)].all()]
    if not examined:
        return
    unused = ~np.any([used for _, _, used in examined], axis=0) & ~np.isnan(examined[0][1])
    some = unused.any(axis=1)
    for run, ranks, _ in examined:
        run.scores["held_out"] = np.nanmean(np.where(unused, ranks, np.nan)[some], axis=1)


def check(grid: Grid, planned: list[tuple[str, int]], runs: list[MeasuredRun]) -> None:
    """CondmixError unless the runs are of this grid, each once by the same code, and all drew the same pictures."""
    if not runs:
        raise CondmixError(f'no run of the grid "{grid.name}" is finished: run {REMEDY}')
    for run in runs:
        if (run.experiment, run.seed) not in planned:
            raise CondmixError(
                f'the run "{run.experiment}" with seed {run.seed} does not belong to the grid "{grid.name}"'
            )
        if not np.array_equal(run.ids, runs[0].ids):
            raise CondmixError(
                f'the runs "{runs[0].experiment}" (seed {runs[0].seed}) and "{run.experiment}" (seed {run.seed}) were '
                f"evaluated on different pictures, so they can't be compared in pairs: run {REMEDY}"
                f"{'' if run.origin.current else ', or condmix experiments report --strict'}"
            )


# ---- files for programs ----


def write_tables(evidence: Evidence, folder: Path) -> None:
    """Write results.json, results.csv, summary.csv and guidance.csv into `folder`."""
    summary, guidance = list(summary_rows(evidence)), list(guidance_rows(evidence))
    write_json(folder / "results.json", results(evidence, summary, guidance))
    write_csv(folder / "results.csv", [run_row(run) for run in evidence.runs])
    write_csv(folder / "summary.csv", summary)
    write_csv(folder / "guidance.csv", guidance)


def run_row(run: MeasuredRun) -> dict[str, Any]:
    """One run as a flat row; the sweep is in guidance.csv."""
    facts = {key: value for key, value in run.metrics.items() if key not in ("sweep", "variant", "seed", "commit")}
    own = {f"{question}_score": float(scores.mean()) for question, scores in run.scores.items()}
    return {"experiment": run.experiment, "seed": run.seed, "commit": run.origin.commit,
            "present_code": run.origin.current, "parameters": run.card.get("parameters"), **own,
            **{key: " ".join(map(str, value)) if isinstance(value, list) else value for key, value in flat(facts)},
            }  # fmt: skip


def summary_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """One flat row per experiment: means and standard deviations over seeds, and its comparisons."""
    ranks = {name: rank for rank, name in evidence.ranked()}
    for name in evidence.names:
        runs, made = evidence.of(name), evidence.grid.experiments[name]
        row = {
            "experiment": name, "says": made.says, "fusion": made.fusion, "perspectives": " ".join(made.perspectives),
            "rank": ranks.get(name), "oracle": evidence.oracle(name), "control": made.control,
            "against": evidence.against(name), "seeds": len(runs), "n": len(runs[0].ids),
            "parameters": runs[0].card.get("parameters"),
        }  # fmt: skip
        for question in evidence.questions:
            scores = evidence.scores(runs, question)
            if scores is not None:
                spread = statistics.over_seeds(scores.mean(axis=1))
                low, high = evidence.intervals[name, question]
                row |= {question: spread.mean, f"{question}_sd": spread.sd, f"{question}_low": low,
                        f"{question}_high": high}  # fmt: skip
            if test := evidence.test(name, question):
                found = test.result
                row |= {
                    f"{question}_difference": found.difference, f"{question}_difference_low": found.low,
                    f"{question}_difference_high": found.high, f"{question}_p": found.p,
                    f"{question}_adjusted_p": test.adjusted_p, f"{question}_p_at_most": test.at_most,
                    f"{question}_effect": found.effect,
                    f"{question}_compared_seeds": found.seeds, f"{question}_verdict": test.verdict,
                    f"{question}_commits": " ".join(test.commits),
                }  # fmt: skip
        for measure in evidence.of_sets:
            key = measure.key
            if over_seeds := evidence.spread([run.metrics for run in runs], measure):
                row |= {key: over_seeds.mean, f"{key}_sd": over_seeds.sd}
            if between := difference(evidence, name, measure):
                row |= {f"{key}_difference{end}": v for end, v in zip(("", "_low", "_high"), between, strict=True)}
        yield row


def difference(evidence: Evidence, name: str, measure: Measure) -> tuple[float, float, float] | None:
    """(difference to what the experiment is compared with, low, high) over seeds; None where there is no interval."""
    values = paired(evidence, name, measure)
    return statistics.seed_interval(*zip(*values, strict=True)) if values else None


def paired(evidence: Evidence, name: str, measure: Measure) -> list[tuple[float, float]]:
    """A measure of the experiment and of what it is compared with, a pair for each seed that has both."""
    other = evidence.against(name)
    if other is None or evidence.oracle(name) != evidence.oracle(other):
        return []
    values = [(measure.of(a.metrics), measure.of(b.metrics)) for a, b in evidence.pairs(name, other)]
    return [pair for pair in values if None not in pair]


def guidance_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """One flat row per experiment and guidance scale: the sweep's measures, averaged over seeds."""
    for name in evidence.names:
        points = [point for run in evidence.of(name) for point in run.metrics.get("sweep", [])]
        for scale in sorted({point["guidance"] for point in points}):
            there = [point for point in points if point["guidance"] == scale]
            keys = dict.fromkeys(k for point in there for k, v in point.items() if isinstance(v, int | float))
            values = {key: [point[key] for point in there if key in point] for key in keys}
            means = {key: statistics.over_seeds(of).mean for key, of in values.items() if key not in ("guidance", "n")}
            yield {"experiment": name, "guidance": scale, "n": agreed(there, "n"), "seeds": len(there), **means}


def misled_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """One flat row per experiment with a source that the grid has wrong at times, and share in evaluation."""
    for source, shares in evidence.grid.wrong.items():
        for name, share in itertools.product(evidence.names, shares):
            found = evidence.misled(name, source, share)
            if found:
                made = evidence.grid.experiments[name]
                row = {"experiment": name, "fusion": made.fusion, "source": source, "against": evidence.against(name),
                       "wrong_in_training": parse(slot(made.perspectives, source) or source).wrong / 100,
                       "wrong_in_evaluation": share, evidence.questions[0]: found[0]}  # fmt: skip
                if found[1]:
                    row |= {"difference": found[1].difference, "low": found[1].low, "high": found[1].high,
                            "seeds": found[1].seeds, "n": found[1].n}  # fmt: skip
                yield row


def results(evidence: Evidence, summary: list[dict[str, Any]], guidance: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that was measured and concluded."""
    grid = evidence.grid
    return {
        "grid": {"name": grid.name, "profile": grid.profile, "seeds": list(grid.every_seed), "baseline": grid.baseline},
        "missing": [{"experiment": name, "seed": seed} for name, seed in evidence.missing],
        "comparisons": [
            {"experiment": test.experiment, "against": test.against, "question": test.question, "verdict": test.verdict,
             **asdict(test.result), "adjusted_p": test.adjusted_p, "adjusted_p_at_most": test.at_most,
             "commits": test.commits, "seeds_by_different_code": test.unpaired}
            for test in evidence.tests
        ],
        "correction": f"Holm, over {sum(test.adjusted_p is not None for test in evidence.tests)} comparisons",
        "summary": summary,
        "guidance": guidance,
        "misled": list(misled_rows(evidence)),
        "runs": [
            {"experiment": run.experiment, "seed": run.seed, "metrics": run.metrics,
             "environment": run.card.get("environment"), "origin": origin(run)}
            for run in evidence.runs
        ],
    }  # fmt: skip


def origin(run: MeasuredRun) -> dict[str, Any]:
    """What made a run, and how that differs from what would make it now."""
    made = run.origin
    return {"commit": made.commit, "present_code": made.current, "changed_since": made.changed,
            "settings_of_one_version_only": made.unknown}  # fmt: skip


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; a row's cell is empty where it has no such value."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
