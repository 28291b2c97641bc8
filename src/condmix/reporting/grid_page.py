"""The page of a grid of experiments: its answer in sentences, its tables, its charts, its pictures side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from condmix import CondmixError
from condmix.evaluation.conditions import Condition, changes_of
from condmix.experiments import statistics
from condmix.experiments.evidence import collect
from condmix.experiments.findings import (
    QUESTIONS,
    Evidence,
    MeasuredRun,
    Test,
    difference,
    guidance_rows,
    misled_rows,
    paired,
    write_tables,
)
from condmix.experiments.grid import Grid
from condmix.experiments.statistics import NO_DIFFERENCE, UNTESTED
from condmix.files.atomic import replacing, write_text
from condmix.metrics import Measure, Place, measures, significant
from condmix.reporting import terms
from condmix.reporting.charts import STYLES, Difference, Line, Quantity, forest_plot, line_chart
from condmix.reporting.page import fact, rendered, strip
from condmix.reporting.tables import NONE, apart, notes
from condmix.results.details import scene_texts
from condmix.results.rows import agreed, short_perspectives

MACHINE = {  # of a card's environment
    "cpu": "processor",
    "gpus": "GPUs",
    "precision": "arithmetic",
    "processes": "processes",
    "threads": "threads of each process",
    "kernels": "CPU kernels",
    "torch": "PyTorch",
}
JUDGES = {  # of metrics
    "judge_accuracy": "the judge is right on real pictures",
    "judge_accuracy_network": "the network, on real pictures",
    "judge_accuracy_probe": "the probe, on real pictures",
}
OTHER = "different code or judges"  # why a seed has no pair
SCENES = 8  # shown on the page
LEAST_P = 0.0001  # that is written out
SCALE = 4  # of the pictures in pictures.png


def write_page(evidence: Evidence, folder: Path) -> None:
    """Write index.html, which needs no other file, and its pictures as pictures.png into `folder`."""
    scenes = list(scene_pictures(evidence))
    with replacing(folder / "pictures.png") as part:
        contact_sheet(scenes).save(part, "PNG", optimize=True)
    write_text(folder / "index.html", rendered("evidence.html", contents(evidence, scenes)))


def contents(evidence: Evidence, scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the template names."""
    grid, metrics = evidence.grid, [run.metrics for run in evidence.runs]
    return {
        "grid": grid,
        "label": label,
        "says": evidence.says,
        "baseline": evidence.says(grid.baseline),
        "scenes": scenes,
        "strips": list(strips(evidence, scenes)),
        "side": [*scenes[0]["pictures"], *scenes[0]["oracles"]][0][1].shape[0],
        "real": scenes[0]["real"] is not None,
        "terms": list(terms.terms([*evidence.compared, *evidence.of_sets], any(oracle_rows(evidence)))),
        "clip": terms.CLIP,
        "missing": [(name, [s for n, s in evidence.missing if n == name]) for name in
                    dict.fromkeys(n for n, _ in evidence.missing)],
        "forests": forests(evidence),
        "notes": notes([m for m in [*evidence.compared, *evidence.of_sets]]),
        "planned": len(grid.places),
        "finished": len(evidence.runs),
        "older": sum(not run.origin.current for run in evidence.runs),
        "versions": list(versions(evidence)),
        "uncompared": [(label(name), label(other)) for name, other in evidence.uncompared],
        "answer": answer(evidence),
        "ranking": list(ranking(evidence)),
        "further": [
            sentence(evidence, test) for test in evidence.tests
            if test.against != evidence.against(test.experiment) and not evidence.control(test.experiment)
        ],
        "shares": [measure.heading for measure in evidence.compared if measure.share],
        "oracles": list(oracle_rows(evidence)),
        "controls": [
            (name, evidence.control(name), [sentence(evidence, t) for t in evidence.tests if t.experiment == name])
            for name in evidence.names if evidence.control(name)
        ],
        "tests": sum(test.adjusted_p is not None for test in evidence.tests),
        "matrix": matrix(evidence),
        "charts": guidance_charts(evidence),
        "chosen": len(selected(evidence)) < len(evidence.names),
        "best_guidance": best_guidance(evidence),
        "changed": list(changed_rows(evidence)),
        "misled": list(misled_tables(evidence)),
        "distances": distance_table(evidence),
        "sizes": [size_row(evidence, name) for name in in_order(evidence)],
        "conditions": conditions(evidence, metrics),
        "seeds": len({run.seed for run in evidence.runs}),
        "n": len(evidence.runs[0].ids),
        "questions": evidence.questions,
        "main": QUESTIONS[evidence.questions[0]],
        "distance": evidence.distance.key if evidence.distance else "distance",
    }  # fmt: skip


def in_order(evidence: Evidence) -> list[str]:
    """The experiments by rank, then those that have none, in the grid's order."""
    return list(dict.fromkeys([*(name for _, name in evidence.ranked()), *evidence.names]))


def selected(evidence: Evidence) -> list[str]:
    """As many experiments as a chart tells apart: the baseline and the best ranked, by rank."""
    baseline = evidence.grid.baseline
    best = [name for _, name in evidence.ranked() if name != baseline]
    chosen = {baseline, *best[: STYLES - 1]}
    return [name for name in in_order(evidence) if name in chosen]


def label(name: str) -> str:
    """An experiment's name for people."""
    return name.replace("_", " ")


def points(share: float, sign: bool = False) -> str:
    """A difference of two shares in percentage points, with a real minus sign."""
    return f"{100 * share:{'+' if sign else ''}z.1f}".replace("-", "−")


def p_text(test: Test) -> str:
    """The adjusted p, as in "p 0.012"."""
    if test.adjusted_p is None:
        return "no p from one seed"
    if test.adjusted_p < LEAST_P:
        return f"p below {LEAST_P:g}"
    return f"p {'at most ' if test.at_most else ''}{significant(test.adjusted_p, 2)}"


def sentence(evidence: Evidence, test: Test) -> str:
    """A comparison in words, with everything that it rests on."""
    found, what = test.result, QUESTIONS[test.question]
    first, second = evidence.says(test.experiment), evidence.says(test.against)
    span = f"95% interval {points(found.low)} to {points(found.high)}"
    if test.verdict == UNTESTED:
        more = "more" if found.difference > 0 else "less"
        return (
            f"In one training of each, pictures show {points(abs(found.difference))} points {more} of {what} with "
            f"{first} than with {second} ({points(found.difference, sign=True)}, {span} over {found.n} conditions). "
            "Other seeds may say otherwise: no verdict."
        )
    basis = f"{span}; {found.seeds} seeds × {found.n} conditions; adjusted {p_text(test)}"
    if test.unpaired:
        basis += f"; seed{'s' * (len(test.unpaired) > 1)} {', '.join(map(str, test.unpaired))} left out: {OTHER}"
    if test.verdict == NO_DIFFERENCE:
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
    """A few sentences: what the best experiment brings over the baseline, and how the others stand to it.

    Controls that were not found to do worse than the best experiment stand beside it, since they explain its lead
    more simply; those whose pictures show more stand first.
    """
    sentences = []
    others = [name for _, name in evidence.ranked() if evidence.test(name, evidence.questions[0])]
    if not others:
        return ["Nothing can be compared yet: no two experiments of a comparison have finished under the same seed."]
    for question in evidence.questions:
        if test := evidence.test(others[0], question):
            simpler = [one for one in evidence.tests if explains(evidence, one, test)]
            ahead = [sentence(evidence, one) for one in simpler if one.result.difference > 0]
            behind = [sentence(evidence, one) for one in simpler if one.result.difference <= 0]
            sentences += [*ahead, sentence(evidence, test), *second_opinions(evidence, others[0], question), *behind]
    for question in evidence.questions:
        what = QUESTIONS[question]
        tests = [test for name in others if (test := evidence.test(name, question))]
        verdicts = [test.verdict for test in tests if test.verdict != UNTESTED]
        if len(verdicts) > 1:
            sentences.append(
                f"Of {len(verdicts)} experiments, {verdicts.count('better')} show more of {what} than what they are "
                f"compared with, {verdicts.count('worse')} less, and for {verdicts.count(NO_DIFFERENCE)} no "
                "difference was found."
            )
    return sentences


def second_opinions(evidence: Evidence, name: str, question: str) -> Iterator[str]:
    """What other judges say of an experiment's lead, each in a sentence."""
    for measure in (one for one in evidence.measures if one.again == question):
        if pairs := paired(evidence, name, measure):
            found = difference(evidence, name, measure)
            mean = sum(one - other for one, other in pairs) / len(pairs)
            span = (
                f"95% interval {points(found[1])} to {points(found[2])} over {len(pairs)} seeds"
                if found
                else "one seed"
            )
            yield f"Another judge ({measure.heading}) sees a difference of {points(mean, sign=True)} points ({span})."


def explains(evidence: Evidence, control: Test, of: Test) -> bool:
    """Whether a control was compared with the experiment that came out better in `of`, and not found to do worse."""
    compared = (control.against, control.question) == (of.experiment, of.question)
    return (
        compared
        and of.verdict == "better"
        and bool(evidence.control(control.experiment))
        and control.verdict not in ("worse", UNTESTED)
    )


def ranking(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Rows of the main table: the ranked experiments, then the controls, which have no rank."""
    ranked = evidence.ranked()
    controls = [name for name in evidence.names if evidence.control(name) and not evidence.oracle(name)]
    for rank, name in [*ranked, *((None, name) for name in controls)]:
        runs, other = evidence.of(name), evidence.against(name)
        yield {
            "rank": rank, "name": name, "seeds": len(runs), "baseline": name == evidence.grid.baseline,
            "against": other if other != evidence.grid.baseline else None,
            "perspectives": short_perspectives(evidence.grid.experiments[name].perspectives),
            "older": sum(not run.origin.current for run in runs),
            "questions": [question_cell(evidence, name, question) for question in evidence.questions],
            "distance": spread_text(evidence.spread([run.metrics for run in runs], evidence.distance)),
        }  # fmt: skip


def question_cell(evidence: Evidence, name: str, question: str) -> dict[str, Any]:
    """An experiment's share with its interval, and its comparison."""
    scores, test = evidence.scores(evidence.of(name), question), evidence.test(name, question)
    cell: dict[str, Any] = {
        "share": NONE,
        "value": None,
        "below": "",
        "difference": NONE,
        "interval": "",
        "p": "",
        "verdict": "",
    }
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
            "p": p_text(test), "verdict": test.verdict,
            "effect": NONE if found.effect is None else f"{found.effect:z.2f}".replace("-", "−"),
        }  # fmt: skip
    return cell


def oracle_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """What was drawn with the held-out picture's own embedding, without a rank."""
    for name in in_order(evidence):
        runs = evidence.of(name)
        found = (run.metrics if run.condition.is_oracle else run.metrics.get(Condition.ORACLE) for run in runs)
        rows = [row for row in found if row]
        if rows:
            yield {
                "name": name, "seeds": len(rows),
                "shares": [share_text(evidence.spread(rows, m)) for m in evidence.compared if m.share],
                "distance": spread_text(evidence.spread(rows, evidence.distance)),
            }  # fmt: skip


def spread_text(spread: statistics.Spread | None) -> tuple[str, str]:
    """(mean, "± standard deviation over seeds")."""
    if spread is None:
        return NONE, ""
    return significant(spread.mean), "" if spread.sd is None else f"± {significant(spread.sd, 2)}"


def share_text(spread: statistics.Spread | None) -> tuple[str, str]:
    """As `spread_text`, in per cent."""
    if spread is None:
        return NONE, ""
    return f"{spread.mean:.1%}", "" if spread.sd is None else f"± {100 * spread.sd:.1f}"


def matrix(evidence: Evidence) -> dict[str, Any]:
    """Accuracy of each attribute (columns), by which of the captions named it (rows), averaged over seeds."""
    metrics = {name: [run.metrics for run in evidence.of(name)] for name in selected(evidence)}
    found = [m for m in measures([facts for runs in metrics.values() for facts in runs]) if Place.MATRIX in m.places]
    groups, attributes = list(dict.fromkeys(m.group for m in found)), list(dict.fromkeys(m.attribute for m in found))
    by_place = {(m.group, m.attribute): m for m in found}

    def cell(name: str, group: str | None, attribute: str | None) -> float | None:
        spread = evidence.spread(metrics[name], by_place.get((group, attribute)))
        return None if spread is None else spread.mean

    having = [name for name, runs in metrics.items() if any(m.of(facts) is not None for facts in runs for m in found)]
    rows = [(group, [(name, [cell(name, group, a) for a in attributes]) for name in having]) for group in groups]
    return {"attributes": attributes, "rows": rows}


def guidance_charts(evidence: Evidence) -> list[dict[str, Any]]:
    """A chart per share of the sweep and one distance, a line per selected experiment, averaged over seeds."""
    rows, chosen = list(guidance_rows(evidence)), selected(evidence)
    scales = list({run.metrics["guidance"] for run in evidence.runs if "guidance" in run.metrics})
    charts = []
    for measure in [measure for measure in evidence.compared if measure.share or measure == evidence.distance]:
        lines, title, key = [], measure.title, measure.key
        for style, name in enumerate(chosen):
            found = [(row["guidance"], row[key]) for row in rows if row["experiment"] == name and key in row]
            if found:
                lines.append(Line(label(name), found, style))
        if lines:
            svg = line_chart(
                f"{title} against guidance scale, a line per experiment",
                Quantity("guidance scale s"), Quantity(title, measure.tick), lines,
                mark_x=scales[0] if len(scales) == 1 else None,
            )  # fmt: skip
            charts.append({"title": title, "better": measure.better, "svg": Markup(svg)})
    return charts


def best_guidance(evidence: Evidence) -> dict[str, Any]:
    """The scale that is best by each measure's mean over seeds; `apart` where its pictures are in no other figure."""
    points, files = list(guidance_rows(evidence)), [run.metrics for run in evidence.runs]
    found = [m for m in measures(files, points) if m.higher_is_better is not None and m.attribute is None]
    rows = []
    for name in in_order(evidence):
        of_name, cells = [point for point in points if point["experiment"] == name], []
        for measure in found if of_name else ():
            own = [point for point in of_name if measure.of(point) is not None]
            best = (max if measure.higher_is_better else min)(own, key=measure.of, default=None)
            cells.append(f"{best['guidance']:g}" if best else NONE)
        if of_name:
            rows.append((name, cells))
    return {"measures": [m.heading for m in found], "rows": rows, "n": agreed(points, "n"),
            "apart": all("sweep_of" in facts for facts in files if facts.get("sweep"))}  # fmt: skip


def changed_rows(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Per experiment and perspective: what the same model loses without it, or with another picture's.

    Last, when all that conditions it is another picture's.
    """
    for name in in_order(evidence):
        runs = [run.metrics for run in evidence.of(name)]
        for change in dict.fromkeys(change for facts in runs for change in changes_of(facts)):
            pairs = [(same_pictures(facts, other), other) for facts in runs if (other := change.of(facts))]
            if pairs:
                distances = mean_change(pairs, evidence.distance)
                yield {
                    "name": name, "what": change.label, "seeds": len(pairs),
                    "share": share_text(evidence.spread([other for _, other in pairs], evidence.answering))[0],
                    "points": difference_text(evidence.change(name, change)),
                    "beside": difference_text(evidence.changed_alike(name, change)),
                    "distance": NONE if distances is None
                    else ("+" if distances > 0 else "−") + significant(abs(distances)),
                }  # fmt: skip


def misled_tables(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """A table per source that is wrong at times: shares that are wrong in evaluation as columns."""
    found = list(misled_rows(evidence))
    for source, shares in evidence.grid.wrong.items():
        rows = []
        for name in evidence.names:
            own = [row for row in found if (row["experiment"], row["source"]) == (name, source)]
            cells = [misled_cell(row, evidence.questions[0]) for row in own]
            if own:
                rows.append({"name": name, "fusion": own[0]["fusion"], "against": own[0]["against"],
                             "trained": f"{own[0]['wrong_in_training']:.0%}", "cells": cells})  # fmt: skip
        if rows:
            yield {"source": source, "shares": [f"{share:.0%}" for share in shares], "rows": rows}


def misled_cell(row: Mapping[str, Any], question: str) -> tuple[str, ...]:
    """A share, the difference in points to what the experiment is compared with, and its interval."""
    share = f"{row[question]:.1%}"
    if "difference" not in row:
        return (share,)
    interval = f"{points(row['low'], sign=True)} to {points(row['high'], sign=True)}"
    return share, points(row["difference"], sign=True), interval


def difference_text(found: statistics.Comparison | None) -> tuple[str, str]:
    """A difference of shares in points, and its interval."""
    if found is None:
        return NONE, ""
    return points(found.difference, sign=True), f"{points(found.low, sign=True)} to {points(found.high, sign=True)}"


def same_pictures(facts: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of the unchanged conditions for as many pictures as `changed` has; {} where there are none.

    A distance of another number of pictures would not compare.
    """
    # Before there was "unchanged", the sweep was of the same pictures.
    rows = [facts, *([facts["unchanged"]] if "unchanged" in facts else facts.get("sweep", []))]
    alike = [row for row in rows if (row.get("n"), row["guidance"]) == (changed.get("n"), changed["guidance"])]
    return alike[0] if alike else {}


def mean_change(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], of: Measure | None) -> float | None:
    """Mean over seeds of the second's value minus the first's."""
    values = [(of.of(first), of.of(second)) for first, second in pairs] if of else []
    values = [second - first for first, second in values if first is not None and second is not None]
    return float(np.mean(values)) if values else None


def distance_table(evidence: Evidence) -> dict[str, Any]:
    """Every number of a set with its standard deviation over seeds, and the difference to what is compared with.

    "same": the numbers that tell no run from another.
    """
    names = [name for name in in_order(evidence) if not evidence.oracle(name)]
    shown, same = apart([run.metrics for name in names for run in evidence.of(name)], evidence.of_sets)
    rows = []
    for name in names:
        cells = []
        for measure in shown:
            text, sd = spread_text(evidence.spread([run.metrics for run in evidence.of(name)], measure))
            between = difference(evidence, name, measure)
            below = ""
            if between:
                below = "Δ {} ({} to {})".format(*(significant(value, 2).replace("-", "−") for value in between))
            cells.append((text, sd, below))
        rows.append((name, cells))
    return {"headings": [measure.heading for measure in shown], "rows": rows, "same": same}


def size_row(evidence: Evidence, name: str) -> dict[str, str]:
    """What an experiment's model is, and what its training took."""
    cards = [run.card for run in evidence.of(name)]
    seconds = [card["seconds"] for card in cards if "seconds" in card]
    return {
        "name": name,
        "fusion": evidence.grid.experiments[name].fusion,
        "perspectives": short_perspectives(evidence.grid.experiments[name].perspectives),
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
        ("spacing of their times", agreed(metrics, "spacing")),
        ("last time, share of all", agreed(metrics, "last_time")),
        ("features", " / ".join(features)),
        ("distances against", " / ".join(against)),
        ("conditioned on", agreed(metrics, "condition")),
        ("moving average of the weights", agreed(metrics, "ema")),
    ]
    return [*((what, value or NONE) for what, value in found), *judges(evidence), *machines(evidence)]


def versions(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The code that made the runs, a row per commit: which runs, and how it differs from the present code."""
    groups: dict[tuple[bool, str], list[MeasuredRun]] = {}
    for run in itertools.chain.from_iterable(evidence.by_place.values()):
        groups.setdefault((run.origin.current, run.origin.commit), []).append(run)
    for (current, commit), runs in sorted(groups.items(), key=lambda group: -len(group[1])):
        seeds: dict[str, list[str]] = {}
        for run in runs:
            seeds.setdefault(label(run.experiment), []).append(str(run.seed))
        yield {
            "commit": commit[:12] or NONE, "current": current,
            "runs": "; ".join(f"{name} (seed{'s' * (len(of) > 1)} {', '.join(of)})" for name, of in seeds.items()),
            "changed": sorted({name for run in runs for name in run.origin.changed}),
            "unknown": sorted({name for run in runs for name in run.origin.unknown}),
        }  # fmt: skip


def machines(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """On what the runs were trained, and, where they differ, which runs were trained on what.

    Figures of other processors, arithmetic, versions or numbers of threads differ by rounding at least.
    """
    for key, what in MACHINE.items():
        values = [run.card.get("environment", {}).get(key) for run in evidence.runs]
        yield f"{what}, training", by_value(evidence, values)


def judges(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """How often the judges are right on real pictures and, where they differ, which runs were judged by which."""
    for key, what in JUDGES.items():
        if any(key in run.metrics for run in evidence.runs):
            yield what, by_value(evidence, [named_shares(run.metrics.get(key, {})) for run in evidence.runs])


def named_shares(shares: Mapping[str, float]) -> str:
    """As in "shape 100.0%, colour 98.2%"."""
    return ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def by_value(evidence: Evidence, values: Sequence[Any]) -> str:
    """A fact of each run; where they differ the rarer values with their runs, and the commonest "in the others"."""
    groups: dict[str, list[str]] = {}
    for run, value in zip(evidence.runs, values, strict=True):
        known = fact(value) if value not in (None, [], "") else NONE
        groups.setdefault(known, []).append(f"{label(run.experiment)} (seed {run.seed})")
    *fewer, most = sorted(groups, key=lambda value: len(groups[value]))
    differing = [f"{value} in {', '.join(groups[value])}" for value in fewer]
    return "; ".join([*differing, f"{most} in the others" if fewer else most])


def scene_pictures(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """The first held-out scenes with every experiment's picture, all under the seed that most experiments have."""
    seeds = [run.seed for run in evidence.runs]
    every = evidence.grid.every_seed
    seed = max(every, key=lambda seed: (seeds.count(seed), -every.index(seed)))
    runs = [run for run in evidence.runs if run.seed == seed]
    first = runs[0]
    real = first.real
    drawn = [(run, run.drawn(run.condition)) for run in runs]
    beside = [run for run in runs if not run.condition.is_oracle and run.metrics.get(Condition.ORACLE)]
    oracle = [(run, run.drawn(Condition.ORACLE)) for run in beside]
    for place, sample in enumerate(first.samples[:SCENES]):
        yield {
            "id": sample["id"],
            "class": sample.get("class"),
            "seed": seed,
            **scene_texts([run.samples[place] for run in runs]),
            "real": None if real is None else real[place],
            "pictures": [(run.experiment, pictures[place]) for run, pictures in drawn if not run.condition.is_oracle],
            "oracles": [(run.experiment, pictures[place]) for run, pictures in drawn if run.condition.is_oracle]
            + [(run.experiment, pictures[place]) for run, pictures in oracle],
        }


def strips(evidence: Evidence, scenes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(name, what conditioned it, pictures): of the real scenes, if they are kept, and of each experiment, by rank,
    oracles last."""
    if scenes[0]["real"] is not None:
        yield "real", "held out from training", strip([scene["real"] for scene in scenes])
    for kind, said in (("pictures", ""), ("oracles", ", oracle")):
        drawn = [dict(scene[kind]) for scene in scenes]
        for name in [name for name in in_order(evidence) if name in drawn[0]]:
            what = short_perspectives(evidence.grid.experiments[name].perspectives)
            yield label(name), f"{what}{said}", strip([pictures[name] for pictures in drawn])


def forests(evidence: Evidence) -> list[tuple[str, Markup]]:
    """(title, chart) for each question: every comparison's difference and interval, by the experiments' rank."""
    order, found = in_order(evidence), []
    for question in evidence.questions:
        tests = sorted((t for t in evidence.tests if t.question == question), key=lambda t: order.index(t.experiment))
        rows = [
            Difference(
                f"{label(test.experiment)} − {label(test.against)}",
                100 * test.result.difference,
                100 * test.result.low,
                100 * test.result.high,
                "no" if test.verdict == UNTESTED else test.verdict.split(" ")[0],
            )
            for test in tests
        ]
        if rows:
            said = f"Differences in {QUESTIONS[question]}, in percentage points, with 95% intervals"
            axis = Quantity("difference, percentage points", lambda value: points(value / 100, sign=True))
            found.append((label(question), Markup(forest_plot(said, axis, rows))))
    return found


def contact_sheet(scenes: Sequence[Mapping[str, Any]]) -> Image.Image:
    """A row per scene: the real picture, if kept, every experiment's in the grid's order, oracles last; enlarged."""
    drawn = [[pixels for _, pixels in [*scene["pictures"], *scene["oracles"]]] for scene in scenes]
    rows = [
        [*([] if scene["real"] is None else [scene["real"]]), *row] for scene, row in zip(scenes, drawn, strict=True)
    ]
    border = [(1, 1), (1, 1), (0, 0)]
    padded = [[np.pad(pixels, border, constant_values=255) for pixels in row] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in padded])
    return Image.fromarray(sheet.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def report(root: Path, grid: Grid, strict: bool = False) -> Path:
    """Write metrics/experiments/<grid>/ from what is finished, by the present code if `strict`; returns the folder."""
    finished = collect(root, grid, strict)
    if not finished:
        raise CondmixError(f"no run of grid {grid.name} is finished: condmix experiments run --grid {grid.name}")
    folder = root / "metrics" / "experiments" / grid.name
    evidence = Evidence(grid, finished)
    write_tables(evidence, folder)
    write_page(evidence, folder)
    return folder
