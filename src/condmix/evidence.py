"""A grid of experiments and its finished runs -> one self-contained page, and the same numbers as JSON, CSV and PNG.

All experiments were asked for the same held-out pictures under the same seeds, so they are compared in pairs
(condmix.paired). Of each are asked, as far as the data can answer: how much of the scene do its pictures show (where
only a class is known, is it right); how much of what the first caption says; and how well do they fit captions that no
experiment was told. The last two are the same examination for all, so being told more can't help by itself.

An experiment that was conditioned on the held-out picture itself is an oracle: it stands apart and is never ranked.
"""
# S seeds, n conditions (held-out pictures), A attributes

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from condmix import CondmixError, paired
from condmix.charts import STYLES, Line, line_chart
from condmix.comparison import NONE
from condmix.details import read_pictures, said
from condmix.files import replacing, write_json, write_text
from condmix.report import data_uri, flat
from condmix.results import agreed, read_json, short_perspectives, significant
from condmix.seeds import derive

MEASURED = {"scene": "scene_accuracy", "class": "class_accuracy"}  # the same share as the evaluation gives it
SCENES = 8  # shown on the page
SCALE = 4  # of the pictures in pictures.png
QUESTIONS = {  # the first that is answered ranks the experiments
    "scene": "the scene",
    "class": "the class",
    "first_caption": "what the first caption says",
    "held_out": "captions that no experiment was told",
}
REMEDY = "condmix experiments run"
DISTANCES = ("fid", "fd_", "kid_", "precision_", "recall_", "mmd_", "diversity", "nearest_training.")


@dataclass(frozen=True)
class Run:
    """One finished run. `scores`: question -> (n,), without a question that the data does not answer."""

    experiment: str
    seed: int
    metrics: Mapping[str, Any]
    card: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    folder: Path
    ids: np.ndarray
    scores: dict[str, np.ndarray]
    ranks: np.ndarray | None = None  # (n, K) of the picture's captions, CaptionScore.ranks
    told: np.ndarray | None = None  # (n, K): which of them it was told

    @property
    def condition(self) -> str:
        """What stood in the views of its headline pictures: "captions", "prompt" or "oracle"."""
        return self.metrics["condition"]

    def drawn(self, condition: str) -> np.ndarray:
        """(N, S, S, 3) uint8: the pictures of its samples under a condition, or the "real" ones."""
        return read_pictures(self.folder / f"{condition}.npy", len(self.samples), REMEDY)


@dataclass(frozen=True)
class Test:
    """One comparison of two experiments in one question, judged among all comparisons of the page."""

    experiment: str
    against: str
    question: str
    result: paired.Comparison
    adjusted_p: float

    @property
    def verdict(self) -> str:
        return paired.verdict(self.result.difference, self.adjusted_p)


class Evidence:
    """A grid's runs in the grid's order, and every comparison between them; CondmixError where runs don't fit."""

    def __init__(self, grid: Any, finished: Sequence[Any]):
        self.grid = grid
        planned = list(itertools.product(grid.experiments, grid.seeds))
        self.by_place = {(run.experiment, run.seed): run for run in map(read_run, finished)}
        check(grid, planned, finished, list(self.by_place.values()))
        self.runs = [self.by_place[place] for place in planned if place in self.by_place]
        self.missing = [place for place in planned if place not in self.by_place]
        self.names = list(dict.fromkeys(run.experiment for run in self.runs))
        score_held_out(self.runs)
        self.questions = [question for question in QUESTIONS if any(question in run.scores for run in self.runs)]
        self.tests = self.compare()
        self.intervals = {
            (name, question): paired.interval(scores, derive(grid.name, name, question))
            for name, question in itertools.product(self.names, self.questions)
            if (scores := self.scores(self.of(name), question)) is not None
        }

    def of(self, experiment: str) -> list[Run]:
        """An experiment's runs, in the order of the seeds."""
        return [run for run in self.runs if run.experiment == experiment]

    def pairs(self, first: str, second: str) -> list[tuple[Run, Run]]:
        """The runs of two experiments under the seeds that both have."""
        return [(run, self.by_place[second, run.seed]) for run in self.of(first) if (second, run.seed) in self.by_place]

    def oracle(self, experiment: str) -> bool:
        """Was the held-out picture itself the condition of its headline pictures?"""
        return any(run.condition == "oracle" for run in self.of(experiment))

    def control(self, experiment: str) -> str | None:
        return self.grid.experiments[experiment].control

    def against(self, experiment: str) -> str | None:
        """What the experiment is compared with; None for the baseline itself."""
        other = self.grid.experiments[experiment].against or self.grid.baseline
        return other if other != experiment else None

    def says(self, experiment: str) -> str:
        """As in "two captions (concat)"."""
        made = self.grid.experiments[experiment]
        return f"{made.says} ({made.fusion})"

    def scores(self, runs: Sequence[Run], question: str) -> np.ndarray | None:
        """(S, n), None where the data does not answer the question."""
        found = [run.scores[question] for run in runs if question in run.scores]
        return np.stack(found) if found and len(found[0]) > 1 else None

    def compare(self) -> list[Test]:
        """Each experiment against its own `against`, in every question; all p-values are adjusted together."""
        results = {}
        for experiment, question in itertools.product(self.names, self.questions):
            other = self.against(experiment)
            pairs = self.pairs(experiment, other) if other else []
            if not pairs or self.oracle(experiment) or self.oracle(other):
                continue
            first, second = (self.scores(runs, question) for runs in zip(*pairs, strict=True))
            if first is not None and second is not None:
                seed = derive(self.grid.name, experiment, other, question)
                results[experiment, other, question] = paired.compare(first, second, seed)
        adjusted = paired.holm([result.p for result in results.values()])
        return [Test(*place, result, p) for (place, result), p in zip(results.items(), adjusted, strict=True)]

    def test(self, experiment: str, question: str) -> Test | None:
        return next((t for t in self.tests if (t.experiment, t.question) == (experiment, question)), None)

    def share(self, experiment: str, question: str) -> float | None:
        """Mean score over seeds and conditions."""
        scores = self.scores(self.of(experiment), question)
        return None if scores is None else float(scores.mean())

    def spread(self, runs: Sequence[Mapping[str, Any]], key: str | None) -> paired.Spread | None:
        """A number of the runs' metrics, by its dotted key, over the seeds that have it."""
        values = [value for facts in runs if key and isinstance(value := at(facts, key), int | float)]
        return paired.over_seeds(values) if values else None

    def ranked(self) -> list[tuple[int, str]]:
        """(rank, experiment) by the first question, best first, equal ones alike; no oracles, no controls."""
        names = [name for name in self.names if not self.oracle(name) and not self.control(name)]
        shares = {name: share for name in names if (share := self.share(name, self.questions[0])) is not None}
        names = list(shares)
        order = sorted(names, key=lambda name: -shares[name])
        return [(1 + sum(other > shares[name] for other in shares.values()), name) for name in order]

    def selected(self) -> list[str]:
        """As many experiments as a chart tells apart: the baseline and the best ranked, in the grid's order."""
        best = [name for _, name in self.ranked() if name != self.grid.baseline]
        chosen = {self.grid.baseline, *best[: STYLES - 1]}
        return [name for name in self.names if name in chosen]

    def distances(self) -> list[str]:
        """Dotted keys of all measured distances between sets of pictures, the most telling first."""
        numbers = (key for run in self.runs for key, value in flat(run.metrics) if isinstance(value, int | float))
        return sorted((key for key in dict.fromkeys(numbers) if key.startswith(DISTANCES)), key=_place)

    @property
    def distance(self) -> str | None:
        """The distance that tables show where there is room for one."""
        return next(iter(self.distances()), None)


def write(grid: Any, finished: Sequence[Any], folder: Path) -> None:
    """Write index.html, pictures.png, results.json, results.csv, summary.csv and guidance.csv into `folder`.

    grid: `condmix.grid.Grid`; finished: `condmix.grid.Finished`, some of the grid's runs or all.
    CondmixError where there are none, or where they were not asked for the same pictures.
    """
    evidence = Evidence(grid, finished)
    summary, guidance = list(summary_rows(evidence)), list(guidance_rows(evidence))
    write_json(folder / "results.json", results(evidence, summary, guidance))
    write_csv(folder / "results.csv", [run_row(run) for run in evidence.runs])
    write_csv(folder / "summary.csv", summary)
    write_csv(folder / "guidance.csv", guidance)
    scenes = list(scene_pictures(evidence))
    with replacing(folder / "pictures.png") as part:
        contact_sheet(scenes).save(part, "PNG", optimize=True)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    write_text(folder / "index.html", environment.get_template("evidence.html").render(contents(evidence, scenes)))


# ---- reading ----


def read_run(finished: Any) -> Run:
    """A finished run's files, with the scores of its pictures."""
    details = read_json(finished.folder / "details.json", REMEDY)
    path = finished.folder / "pictures.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, right, mentions = file["ids"], file["right"], file["mentions"]
            attributes = file["attribute_names"].tolist()
            ranks, told = (file[name] if name in file.files else None for name in ("caption_ranks", "told"))
    except FileNotFoundError:
        raise CondmixError(f"{path} is missing: run {REMEDY}") from None
    except (KeyError, ValueError, OSError) as error:
        raise CondmixError(f"{path} is damaged ({error}): run {REMEDY}") from None
    if right.ndim != 2 or len(right) != len(ids):
        raise CondmixError(f"{path} says of {len(ids)} pictures what is right in the shape {right.shape}, not (n, A)")
    if not right.size and ranks is None:
        raise CondmixError(
            f"nothing in {path} tells one experiment from another picture by picture: the data set has neither "
            "attributes nor classes, so name a CLIP that conditions nothing as evaluate.scorer, and run the grid again"
        )
    scores = {}
    if right.size:
        scores["class" if attributes == ["class"] else "scene"] = paired.scene_score(right)
    if right.size and mentions.shape[1]:
        scores["first_caption"] = paired.asked_score(right, mentions[:, 0])
    return Run(finished.experiment, finished.seed, finished.metrics, details["card"], details["samples"],
               finished.folder, ids, scores, ranks, told)  # fmt: skip


def score_held_out(runs: Sequence[Run]) -> None:
    """Add the scores of "held_out": the mean rank of the captions that were told to none of the runs.

    A run that was told every caption can't be examined so; it has no score, and takes no caption from the others.
    """
    examined = [run for run in runs if run.ranks is not None and not run.told[~np.isnan(run.ranks)].all()]
    if not examined:
        return
    unused = ~np.any([run.told for run in examined], axis=0) & ~np.isnan(examined[0].ranks)
    some = unused.any(axis=1)
    for run in examined:
        run.scores["held_out"] = np.nanmean(np.where(unused, run.ranks, np.nan)[some], axis=1)


def check(grid: Any, planned: list[tuple[str, int]], finished: Sequence[Any], runs: list[Run]) -> None:
    """CondmixError unless the runs are of this grid, each once, and were all asked for the same pictures."""
    if not runs:
        raise CondmixError(f'no run of the grid "{grid.name}" is finished: run {REMEDY}')
    places = [(run.experiment, run.seed) for run in finished]
    for name, seed in places:
        if (name, seed) not in planned:
            raise CondmixError(f'the run "{name}" with seed {seed} does not belong to the grid "{grid.name}"')
        if places.count((name, seed)) > 1:
            raise CondmixError(f'the run "{name}" with seed {seed} was given twice')
    for run in runs:
        if not np.array_equal(run.ids, runs[0].ids):
            raise CondmixError(
                f'the runs "{runs[0].experiment}" (seed {runs[0].seed}) and "{run.experiment}" (seed {run.seed}) were '
                f"asked for different pictures, so they can't be compared in pairs: run {REMEDY}"
            )


def at(facts: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where it was not measured."""
    for part in key.split("."):
        facts = facts.get(part) if isinstance(facts, Mapping) else None
    return facts


def _place(key: str) -> int:
    return next(place for place, start in enumerate(DISTANCES) if key.startswith(start))


# ---- files for programs ----


def run_row(run: Run) -> dict[str, Any]:
    """One run as a flat row; the sweep is in guidance.csv."""
    facts = {key: value for key, value in run.metrics.items() if key not in ("sweep", "variant", "seed")}
    own = {f"{question}_score": float(scores.mean()) for question, scores in run.scores.items()}
    return {"experiment": run.experiment, "seed": run.seed, "parameters": run.card.get("parameters"), **own,
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
                spread = paired.over_seeds(scores.mean(axis=1))
                low, high = evidence.intervals[name, question]
                row |= {question: spread.mean, f"{question}_sd": spread.sd, f"{question}_low": low,
                        f"{question}_high": high}  # fmt: skip
            if test := evidence.test(name, question):
                found = test.result
                row |= {
                    f"{question}_difference": found.difference, f"{question}_difference_low": found.low,
                    f"{question}_difference_high": found.high, f"{question}_p": found.p,
                    f"{question}_adjusted_p": test.adjusted_p, f"{question}_effect": found.effect,
                    f"{question}_compared_seeds": found.seeds, f"{question}_verdict": test.verdict,
                }  # fmt: skip
        for key in evidence.distances():
            if spread := evidence.spread([run.metrics for run in runs], key):
                row |= {key: spread.mean, f"{key}_sd": spread.sd}
            if between := distance_difference(evidence, name, key):
                row |= {f"{key}_difference{end}": v for end, v in zip(("", "_low", "_high"), between, strict=True)}
        yield row


def distance_difference(evidence: Evidence, name: str, key: str) -> tuple[float, float, float] | None:
    """(difference to what the experiment is compared with, low, high) over seeds; None where there is no interval."""
    other = evidence.against(name)
    if other is None or evidence.oracle(name) != evidence.oracle(other):
        return None
    values = [(at(a.metrics, key), at(b.metrics, key)) for a, b in evidence.pairs(name, other)]
    values = [pair for pair in values if None not in pair]
    return paired.seed_interval(*zip(*values, strict=True)) if values else None


def guidance_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """One flat row per experiment and guidance scale: the sweep's measures, averaged over seeds."""
    for name in evidence.names:
        points = [point for run in evidence.of(name) for point in run.metrics.get("sweep", [])]
        for scale in sorted({point["guidance"] for point in points}):
            there = [point for point in points if point["guidance"] == scale]
            keys = dict.fromkeys(k for point in there for k, v in point.items() if isinstance(v, int | float))
            means = {key: evidence.spread(there, key).mean for key in keys if key not in ("guidance", "n")}
            yield {"experiment": name, "guidance": scale, "n": agreed(there, "n"), "seeds": len(there), **means}


def results(evidence: Evidence, summary: list[dict[str, Any]], guidance: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that was measured and concluded."""
    grid = evidence.grid
    return {
        "grid": {"name": grid.name, "profile": grid.profile, "seeds": list(grid.seeds), "baseline": grid.baseline},
        "missing": [{"experiment": name, "seed": seed} for name, seed in evidence.missing],
        "comparisons": [
            {"experiment": test.experiment, "against": test.against, "question": test.question, "verdict": test.verdict,
             "adjusted_p": test.adjusted_p, **asdict(test.result)}
            for test in evidence.tests
        ],
        "correction": f"Holm, over {len(evidence.tests)} comparisons",
        "summary": summary,
        "guidance": guidance,
        "runs": [{"experiment": run.experiment, "seed": run.seed, "metrics": run.metrics} for run in evidence.runs],
    }  # fmt: skip


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a CSV file; a row's cell is empty where it has no such value."""
    columns = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


# ---- the page ----


def contents(evidence: Evidence, scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the template names."""
    grid, metrics = evidence.grid, [run.metrics for run in evidence.runs]
    return {
        "grid": grid,
        "label": label,
        "says": evidence.says,
        "baseline": evidence.says(grid.baseline),
        "scenes": [page_scene(scene) for scene in scenes],
        "side": scenes[0]["real"].shape[0],
        "missing": [(name, [s for n, s in evidence.missing if n == name]) for name in
                    dict.fromkeys(n for n, _ in evidence.missing)],
        "planned": len(grid.experiments) * len(grid.seeds),
        "finished": len(evidence.runs),
        "answer": answer(evidence),
        "ranking": list(ranking(evidence)),
        "oracles": list(oracle_rows(evidence)),
        "controls": [
            (name, evidence.control(name), [sentence(evidence, t) for t in evidence.tests if t.experiment == name])
            for name in evidence.names if evidence.control(name)
        ],
        "tests": len(evidence.tests),
        "matrix": matrix(evidence),
        "charts": guidance_charts(evidence),
        "chosen": len(evidence.selected()) < len(evidence.names),
        "best_guidance": best_guidance(evidence),
        "without": list(without_rows(evidence)),
        "distances": distance_table(evidence),
        "sizes": [size_row(evidence, name) for name in evidence.names],
        "conditions": conditions(evidence, metrics),
        "seeds": len({run.seed for run in evidence.runs}),
        "n": len(evidence.runs[0].ids),
        "questions": evidence.questions,
        "main": QUESTIONS[evidence.questions[0]],
        "distance": evidence.distance or "distance",
    }  # fmt: skip


def label(name: str) -> str:
    """An experiment's name for people."""
    return name.replace("_", " ")


def points(share: float, sign: bool = False) -> str:
    """A difference of two shares in percentage points, with a real minus sign."""
    return f"{100 * share:{'+' if sign else ''}z.1f}".replace("-", "−")


def sentence(evidence: Evidence, test: Test) -> str:
    """A comparison in words, with everything that it rests on."""
    found, what = test.result, QUESTIONS[test.question]
    first, second = evidence.says(test.experiment), evidence.says(test.against)
    basis = (
        f"95% interval {points(found.low)} to {points(found.high)}; {found.seeds} seed{'s' * (found.seeds > 1)} × "
        f"{found.n} conditions; adjusted p {significant(test.adjusted_p, 2)}"
    )
    if test.verdict == "no difference found":
        return (
            f"Between {first} and {second} no difference was found in how much of {what} the pictures show: "
            f"{points(found.difference, sign=True)} points ({basis})."
        )
    more = "more" if test.verdict == "better" else "less"
    return (
        f"With {first}, the pictures show {points(abs(found.difference))} points {more} of {what} than with {second} "
        f"({points(found.difference, sign=True)}, {basis})."
    )


def answer(evidence: Evidence) -> list[str]:
    """A few sentences: what the best experiment brings over the baseline, and how the others stand to it."""
    said = []
    others = [name for _, name in evidence.ranked() if evidence.test(name, evidence.questions[0])]
    if not others:
        return ["Nothing can be compared yet: no two experiments of a comparison have finished under the same seed."]
    for question in evidence.questions:
        if test := evidence.test(others[0], question):
            said.append(sentence(evidence, test))
    for question in evidence.questions:
        what = QUESTIONS[question]
        verdicts = [test.verdict for name in others if (test := evidence.test(name, question))]
        if len(verdicts) > 1:
            said.append(
                f"Of {len(verdicts)} experiments, {verdicts.count('better')} show more of {what} than what they are "
                f"compared with, {verdicts.count('worse')} less, and for {verdicts.count('no difference found')} no "
                "difference was found."
            )
    return said


def ranking(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Rows of the main table: the ranked experiments, then the controls, which have no rank."""
    ranked = evidence.ranked()
    controls = [name for name in evidence.names if evidence.control(name) and not evidence.oracle(name)]
    for rank, name in [*ranked, *((None, name) for name in controls)]:
        runs, other = evidence.of(name), evidence.against(name)
        yield {
            "rank": rank, "name": name, "seeds": len(runs), "baseline": name == evidence.grid.baseline,
            "against": other if other != evidence.grid.baseline else None,
            "told": short_perspectives(evidence.grid.experiments[name].perspectives),
            "questions": [question_cell(evidence, name, question) for question in evidence.questions],
            "distance": spread_text(evidence.spread([run.metrics for run in runs], evidence.distance)),
        }  # fmt: skip


def question_cell(evidence: Evidence, name: str, question: str) -> dict[str, Any]:
    """An experiment's share with its interval, and its comparison."""
    scores, test = evidence.scores(evidence.of(name), question), evidence.test(name, question)
    cell = {"share": NONE, "value": None, "below": "", "difference": NONE, "interval": "", "p": "", "verdict": ""}
    if scores is not None:
        low, high = evidence.intervals[name, question]
        share = float(scores.mean())
        cell |= {"share": f"{share:.1%}", "value": share, "below": f"{100 * low:.1f} to {100 * high:.1f}"}
    if test:
        found = test.result
        cell |= {
            "difference": points(found.difference, sign=True),
            "interval": f"{points(found.low)} to {points(found.high)}",
            "by_seed": ", ".join(points(difference, sign=True) for difference in found.by_seed),
            "p": f"p {significant(test.adjusted_p, 2)}", "verdict": test.verdict,
            "effect": NONE if found.effect is None else f"{found.effect:z.2f}".replace("-", "−"),
        }  # fmt: skip
    return cell


def oracle_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """What was drawn with the held-out picture's own embedding, in the grid's order, without a rank."""
    for name in evidence.names:
        rows = [run.metrics if run.condition == "oracle" else run.metrics.get("oracle") for run in evidence.of(name)]
        rows = [row for row in rows if row]
        if rows:
            keys = (MEASURED.get(evidence.questions[0]), "attribute_accuracy_mean")
            yield {
                "name": name, "seeds": len(rows),
                "shares": [share_text(evidence.spread(rows, key)) for key in keys],
                "distance": spread_text(evidence.spread(rows, evidence.distance)),
            }  # fmt: skip


def spread_text(spread: paired.Spread | None) -> tuple[str, str]:
    """(mean, "± standard deviation over seeds")."""
    if spread is None:
        return NONE, ""
    return significant(spread.mean), "" if spread.sd is None else f"± {significant(spread.sd, 2)}"


def share_text(spread: paired.Spread | None) -> tuple[str, str]:
    """As `spread_text`, in per cent."""
    if spread is None:
        return NONE, ""
    return f"{spread.mean:.1%}", "" if spread.sd is None else f"± {100 * spread.sd:.1f}"


def matrix(evidence: Evidence) -> dict[str, Any]:
    """Accuracy of each attribute (columns), by which of the captions named it (rows), averaged over seeds."""
    split = "attribute_accuracy_by_caption"
    chosen = evidence.selected()
    metrics = {name: [run.metrics for run in evidence.of(name)] for name in chosen}
    tables = [table for runs in metrics.values() for facts in runs for table in [facts.get(split, {})]]
    groups = list(dict.fromkeys(group for table in tables for group in table))
    attributes = list(dict.fromkeys(name for table in tables for group in table.values() for name in group))

    def cell(name: str, group: str, attribute: str) -> float | None:
        values = [run.get(split, {}).get(group, {}).get(attribute) for run in metrics[name]]
        values = [value for value in values if value is not None]
        return float(np.mean(values)) if values else None

    having = [name for name in chosen if any(facts.get(split) for facts in metrics[name])]
    rows = [(group, [(name, [cell(name, group, a) for a in attributes]) for name in having]) for group in groups]
    return {"attributes": attributes, "rows": rows}


def guidance_charts(evidence: Evidence) -> list[dict[str, Any]]:
    """One chart per measure of the sweep, a line per selected experiment, averaged over seeds."""
    titles = {
        "scene_accuracy": ("Share of the scene that is right", "higher is better"),
        "attribute_accuracy_mean": ("Accuracy of the named attributes", "higher is better"),
        evidence.distance: (evidence.distance, "lower is better"),
    }
    if "class" in evidence.questions:  # else it is one of the scene's attributes
        titles = {"class_accuracy": ("Share of the classes that are right", "higher is better")} | titles
    rows, chosen = list(guidance_rows(evidence)), evidence.selected()
    scales = list({run.metrics["guidance"] for run in evidence.runs if "guidance" in run.metrics})
    charts = []
    for key, (title, better) in titles.items():
        lines = []
        for style, name in enumerate(chosen):
            found = [(row["guidance"], row[key]) for row in rows if row["experiment"] == name and key in row]
            if found:
                lines.append(Line(label(name), found, style))
        if lines:
            svg = line_chart(
                f"{title} against guidance scale, a line per experiment", "guidance scale s", title, lines,
                format_y=(lambda v: f"{100 * v:.4g}%") if "accuracy" in key else "{:.4g}".format,
                mark_x=scales[0] if len(scales) == 1 else None,
            )  # fmt: skip
            charts.append({"title": title, "better": better, "svg": Markup(svg)})
    return charts


def best_guidance(evidence: Evidence) -> dict[str, Any]:
    """The scale that was best by each measure, every one that a seed had."""
    measures = list(dict.fromkeys(key for run in evidence.runs for key in run.metrics.get("best_guidance", {})))
    rows = []
    for name in evidence.names:
        found = [run.metrics["best_guidance"] for run in evidence.of(name) if "best_guidance" in run.metrics]
        if found:
            rows.append((name, [agreed(found, measure, "{:g}") or NONE for measure in measures]))
    return {"measures": measures, "rows": rows}


def without_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Per experiment and perspective: what is lost when the same model is not told it; last, all told another's."""
    shown = MEASURED.get(evidence.questions[0])
    for name in evidence.names:
        runs = [run.metrics for run in evidence.of(name)]
        perspectives = dict.fromkeys(key for facts in runs for key in facts.get("without", {}))
        asked = [(f"without {key}", [facts.get("without", {}).get(key) for facts in runs]) for key in perspectives]
        asked.append(("shuffled: told about another picture", [facts.get("shuffled") for facts in runs]))
        for what, found in asked:
            pairs = [(same_pictures(facts, other), other) for facts, other in zip(runs, found, strict=True) if other]
            if pairs:
                scenes, distances = change(pairs, shown), change(pairs, evidence.distance)
                yield {
                    "name": name, "what": what, "seeds": len(pairs),
                    "share": share_text(evidence.spread([other for _, other in pairs], shown))[0],
                    "points": NONE if scenes is None else points(scenes, sign=True),
                    "distance": NONE if distances is None
                    else ("+" if distances > 0 else "−") + significant(abs(distances)),
                }  # fmt: skip


def same_pictures(facts: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of the unchanged conditions for as many pictures as `changed` has; {} where there are none.

    Fewer than all were measured in the guidance sweep. A distance of another number of pictures would not compare.
    """
    rows = [facts, *facts.get("sweep", [])]
    alike = [row for row in rows if (row.get("n"), row["guidance"]) == (changed.get("n"), changed["guidance"])]
    return alike[0] if alike else {}


def change(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], key: str | None) -> float | None:
    """Mean over seeds of the second's value minus the first's."""
    values = [(first.get(key), second.get(key)) for first, second in pairs]
    values = [second - first for first, second in values if first is not None and second is not None]
    return float(np.mean(values)) if values else None


def distance_table(evidence: Evidence) -> dict[str, Any]:
    """Every distance with its standard deviation over seeds, and the difference to what is compared with."""
    keys = evidence.distances()
    rows = []
    for name in [name for name in evidence.names if not evidence.oracle(name)]:
        cells = []
        for key in keys:
            text, sd = spread_text(evidence.spread([run.metrics for run in evidence.of(name)], key))
            between = distance_difference(evidence, name, key)
            below = ""
            if between:
                below = "Δ {} ({} to {})".format(*(significant(value, 2).replace("-", "−") for value in between))
            cells.append((text, sd, below))
        rows.append((name, cells))
    return {"keys": keys, "rows": rows}


def size_row(evidence: Evidence, name: str) -> dict[str, str]:
    """What an experiment's model is, and what its training took."""
    cards = [run.card for run in evidence.of(name)]
    seconds = [card["seconds"] for card in cards if "seconds" in card]
    return {
        "name": name,
        "fusion": evidence.grid.experiments[name].fusion,
        "told": short_perspectives(evidence.grid.experiments[name].perspectives),
        "parameters": agreed(cards, "parameters", "{:,}") or NONE,
        "images": agreed(cards, "images_seen", "{:,}") or NONE,
        "seconds": significant(float(np.median(seconds))) if seconds else NONE,
    }


def conditions(evidence: Evidence, metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What every number of the page depends on; several values where the runs differ."""
    references = [facts["reference"] for facts in metrics if "reference" in facts]
    features = dict.fromkeys(" ".join(facts["features"]) for facts in metrics if "features" in facts)
    against = dict.fromkeys(f"{r['n']:,} real pictures of {r['split']}" for r in references)
    found = [
        ("profile", evidence.grid.profile),
        ("seeds", ", ".join(map(str, sorted({run.seed for run in evidence.runs})))),
        ("held-out pictures per run, n", f"{len(evidence.runs[0].ids):,}"),
        ("split", agreed(metrics, "split")),
        ("guidance", agreed(metrics, "guidance", "{:g}")),
        ("sampler", agreed(metrics, "sampler")),
        ("sampler steps", agreed(metrics, "steps")),
        ("features", " / ".join(features)),
        ("distances against", " / ".join(against)),
        ("asked by", agreed(metrics, "condition")),
        ("moving average of the weights", agreed(metrics, "ema")),
        ("code, commit", agreed(metrics, "commit")),
    ]
    return [(what, value or NONE) for what, value in found]


def scene_pictures(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The first held-out scenes with every experiment's picture, all under the seed that most experiments have."""
    seeds = [run.seed for run in evidence.runs]
    seed = max(evidence.grid.seeds, key=lambda seed: (seeds.count(seed), -evidence.grid.seeds.index(seed)))
    runs = [run for run in evidence.runs if run.seed == seed]
    first = runs[0]
    real = first.drawn("real")
    drawn = [(run, run.drawn(run.condition)) for run in runs]
    oracle = [(run, run.drawn("oracle")) for run in runs if run.condition != "oracle" and run.metrics.get("oracle")]
    for place, sample in enumerate(first.samples[:SCENES]):
        yield {
            "id": sample["id"],
            "class": sample.get("class"),
            "seed": seed,
            **said([run.samples[place] for run in runs]),
            "real": real[place],
            "pictures": [(run.experiment, pictures[place]) for run, pictures in drawn if run.condition != "oracle"],
            "oracles": [(run.experiment, pictures[place]) for run, pictures in drawn if run.condition == "oracle"]
            + [(run.experiment, pictures[place]) for run, pictures in oracle],
        }


def page_scene(scene: Mapping[str, Any]) -> dict[str, Any]:
    """A scene with its pictures as data URIs."""
    uris = {kind: [(name, data_uri(pixels)) for name, pixels in scene[kind]] for kind in ("pictures", "oracles")}
    return {**scene, "real": data_uri(scene["real"]), **uris}


def contact_sheet(scenes: Sequence[Mapping[str, Any]]) -> Image.Image:
    """A row per scene: the real picture, then every experiment's in the grid's order, oracles last; enlarged."""
    rows = [[scene["real"], *(pixels for _, pixels in [*scene["pictures"], *scene["oracles"]])] for scene in scenes]
    border = [(1, 1), (1, 1), (0, 0)]
    padded = [[np.pad(pixels, border, constant_values=255) for pixels in row] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in padded])
    return Image.fromarray(sheet.repeat(SCALE, axis=0).repeat(SCALE, axis=1))
