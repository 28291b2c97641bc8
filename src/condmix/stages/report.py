"""Stage report: metrics, sample pictures and loss curves of the variants -> one self-contained page.

metrics/report/index.html holds its pictures as data URIs and its charts as inline SVG; it loads nothing, from
anywhere. templates/report.html arranges what the functions here collect; it escapes every value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from pydantic import JsonValue
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.evaluation.conditions import Condition
from condmix.files.artifacts import read_checked_json
from condmix.files.atomic import write_text
from condmix.metrics import Measure, compared
from condmix.reporting import terms
from condmix.reporting.charts import Line, Quantity, line_chart
from condmix.reporting.page import data_uri, fact, rendered, strip
from condmix.reporting.tables import NONE, comparison, conditioned_on, notes, unnamed
from condmix.results.details import Details, scene_texts
from condmix.results.rows import (
    Row,
    agreed,
    columns,
    flat,
    oracles,
    ranked,
    ranking_measure,
    read_metrics,
    short_perspectives,
    through_prior,
)
from condmix.settings.schema import Params

LOSS_POINTS = 120  # of each loss curve, whatever it was logged in
STRIP = 8  # pictures of each variant at the top of the page
SCENES = 6  # held-out pictures that are shown at once; the others open on a click


class Judged(TypedDict):
    """What is read of metrics/judge.json."""

    accuracy: dict[str, float]


def main(params: Params) -> None:
    """Write metrics/report/index.html from what the variants' evaluations left; CondmixError says what is missing."""
    metrics = read_metrics(params)
    variants = [Details.read(params, facts) for facts in metrics]
    write_text(params.paths.report / "index.html", rendered("report.html", contents(params, metrics, variants)))


def contents(params: Params, metrics: Sequence[Mapping[str, Any]], variants: Sequence[Details]) -> dict[str, Any]:
    """Everything that the template names."""
    rows, oracle_rows = ranked(metrics), oracles(metrics)
    environments = [variant.card.get("environment", {}) for variant in variants]
    references = [facts.get("reference", {}) for facts in metrics]
    encode = read_checked_json(params.paths.metrics / "encode.json", dict[str, JsonValue], "dvc repro encode")
    sweep = [point for facts in metrics for point in facts.get("sweep", [])]
    return {
        "profile": params.profile,
        "dataset": params.data.dataset,
        "side": variants[0].side,
        "variants": [variant.name for variant in variants],
        "answer": answer(rows),
        "strips": list(strips(variants, rows)),
        "clip": terms.CLIP,
        "variant_words": terms.VARIANTS,
        "fusion_words": terms.FUSIONS,
        "terms": list(terms.terms(columns(rows + oracle_rows), bool(oracle_rows))),
        "seen": [(variant.name, *seen(variant.metrics)) for variant in variants],
        "prompted": any(row.condition is Condition.PROMPT for row in rows),
        "links": links(params, variants),
        "measure": ranking_measure(rows),
        "dates": sorted({e["date"] for e in environments if "date" in e}),
        "commit": agreed(environments, "commit"),
        "hardware": " / ".join(dict.fromkeys(map(hardware, environments))),
        "ranked": comparison(rows + through_prior(metrics)) if rows else None,
        "oracle": comparison(oracle_rows) if oracle_rows else None,
        "unnamed": unnamed(rows),
        "attributes": [measure for measure in columns(rows) if measure.attribute],
        "scenes": list(scenes(variants)),
        "shown": SCENES,
        "sweeps": sweep_charts(metrics),
        "sweep_n": agreed(sweep, "n", "{:,}"),
        "sweep_apart": all("sweep_of" in facts for facts in metrics if facts.get("sweep")),
        "loss": loss_chart(variants),
        "runs": run_facts(variants),
        "encode": fact_tables(encode),
        "judge": fact_tables(judge_metrics(params, metrics)),
        "notes": notes(columns(rows + oracle_rows)),
        "reference": " / ".join(dict.fromkeys(f"{r['n']:,} real pictures of {r['split']}" for r in references if r)),
        "ema": agreed(metrics, "ema"),
    }


def answer(rows: Sequence[Row]) -> str:
    """The first sentence of the page: which variant is best in what ranks them, and how far the others are."""
    measure = ranking_measure(rows)
    if measure is None:
        return "These variants have no measure in common that would rank them."
    first, *others = [f"{row.variant} ({conditioned_on(row)}) {measure.text(measure.of(row.facts))}" for row in rows]
    best = f"{'Highest' if measure.higher_is_better else 'Lowest'} {measure.words}: {first}"
    return f"{best}; {', '.join(others)}." if others else f"{best}."


def seen(facts: Mapping[str, Any]) -> tuple[str, str, str]:
    """A variant's perspectives, its fusion, and what stood in its views for the headline figures."""
    return short_perspectives(facts["perspectives"]), facts["fusion"], conditioned_on(Row(facts))


def strips(variants: Sequence[Details], rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """(name, what conditioned it, pictures): of the real scenes, and of each ranked variant for the same scenes."""
    by_name = {variant.name: variant for variant in variants}
    ids = [[sample["id"] for sample in variant.samples[:STRIP]] for variant in variants]
    if not rows or any(one != ids[0] for one in ids):
        return
    yield "real", "held out from training", strip(variants[0].pictures["real"][:STRIP])
    for row in rows:
        pictures = by_name[row.variant].pictures[row.condition][:STRIP]
        yield row.variant, f"from {conditioned_on(row)}", strip(pictures)


def links(params: Params, variants: Sequence[Details]) -> list[tuple[str, str]]:
    """(text, address relative to the page) of the figures as files, and of the pages of grids."""
    found = [(f"{variant.name}.json", f"../{variant.name}.json") for variant in variants]
    pages = sorted((params.paths.metrics / "experiments").glob("*/index.html"))
    return found + [(f"grid {path.parent.name}", f"../experiments/{path.parent.name}/index.html") for path in pages]


def judge_metrics(params: Params, metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """metrics/judge.json; CondmixError where the variants were judged by another judge."""
    path = params.paths.metrics / "judge.json"
    judge: dict[str, Any] = read_checked_json(path, Judged, "dvc repro judge")
    for facts in metrics:
        if facts.get("judge_accuracy_network", facts.get("judge_accuracy", {})) != judge["accuracy"]:
            raise CondmixError(
                f"{path} is of another judge than {params.paths.metrics / facts['variant']}.json: run dvc repro"
            )
    return judge


def scenes(variants: Sequence[Details]) -> Iterator[dict[str, Any]]:
    """Per held-out picture: itself, its captions (marked where they conditioned a variant), every variant's picture."""
    where = {variant.name: {sample["id"]: i for i, sample in enumerate(variant.samples)} for variant in variants}
    for number in dict.fromkeys(number for places in where.values() for number in places):
        having = [(variant, where[variant.name][number]) for variant in variants if number in where[variant.name]]
        samples = [variant.samples[place] for variant, place in having]
        first, place = having[0]
        yield {
            "id": number,
            "class": samples[0].get("class"),
            "seed": agreed(samples, "seed"),
            **scene_texts(samples),
            "real": data_uri(first.pictures["real"][place]),
            "pictures": [picture(v, row, i) for v, i in having for row in ranked([v.metrics])],
            "oracles": [picture(v, row, i) for v, i in having for row in oracles([v.metrics])],
        }


def picture(variant: Details, row: Row, place: int) -> dict[str, str]:
    """One picture of a variant, and what conditioned it."""
    uri = data_uri(variant.pictures[row.condition][place])
    return {"variant": variant.name, "conditioned_on": conditioned_on(row), "uri": uri}


def sweep_charts(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One chart per measure of the guidance sweep; a vertical line marks the guidance of the tables."""
    points = [point for facts in metrics for point in facts.get("sweep", [])]
    scales = list({facts["guidance"] for facts in metrics})
    return [
        {
            "title": measure.title,
            "better": measure.better,
            "svg": Markup(line_chart(
                f"{measure.words} against guidance scale, a line per variant",
                Quantity("guidance scale s"),
                Quantity(measure.words, measure.tick),
                list(sweep_lines(metrics, measure)),
                mark_x=scales[0] if len(scales) == 1 else None,
            )),
        }
        for measure in compared(metrics, points) if measure.attribute is None
    ]  # fmt: skip


def sweep_lines(metrics: Sequence[Mapping[str, Any]], measure: Measure) -> Iterator[Line]:
    """The variants that the sweep measured; a variant has the same style in every chart."""
    for style, facts in enumerate(metrics):
        points = [(p["guidance"], y) for p in facts.get("sweep", []) if (y := measure.of(p)) is not None]
        if points:
            yield Line(facts["variant"], points, style)


def loss_chart(variants: Sequence[Details]) -> Markup | None:
    """Training loss against images seen; None where nothing was logged."""
    lines = [Line(v.name, smoothed(v.losses), style) for style, v in enumerate(variants) if v.losses]
    if not lines:
        return None
    seen = Quantity("images seen", thousands)
    losses = Quantity("loss (log scale)", log=all(loss > 0 for line in lines for _, loss in line.points))
    return Markup(
        line_chart("Training loss against images seen, a line per variant", seen, losses, lines, markers=False)
    )


def smoothed(points: Sequence[tuple[float, float]], count: int = LOSS_POINTS) -> list[tuple[float, float]]:
    """At most `count` points, each the mean of as many neighbouring ones as all others (the last maybe of fewer)."""
    size = max(1, -(-len(points) // count))
    chunks = [np.asarray(points[i : i + size]) for i in range(0, len(points), size)]
    return [tuple(chunk.mean(axis=0).tolist()) for chunk in chunks]


def thousands(value: float) -> str:
    """20000 -> "20k", 1500000 -> "1.5M"."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def run_facts(variants: Sequence[Details]) -> list[tuple[str, list[str]]]:
    """(what, its value for each variant), one value alone where all variants agree."""
    rows: dict[str, list[str]] = {}
    for variant in variants:
        for label, value in facts_of(variant).items():
            rows.setdefault(label, []).append(value)
    return [(label, values[:1] if len(set(values)) == 1 else values) for label, values in rows.items()]


def facts_of(variant: Details) -> dict[str, str]:
    """Label -> text of everything that the variant's numbers depend on."""
    card, metrics, environment = variant.card, variant.metrics, variant.card.get("environment", {})
    evaluated = metrics.get("environment", {})

    def number(value: float | None, unit: str = "") -> str:
        return NONE if value is None else fact(value) + unit

    return {
        "fusion": metrics["fusion"],
        "perspectives": short_perspectives(metrics["perspectives"]),
        "encoder": str(card.get("encoder") or NONE),
        "parameters": number(card.get("parameters")),
        "images seen in training": number(card.get("images_seen")),
        "training speed": number(card.get("images_per_second"), " images/s"),
        "training time": number(card.get("seconds"), " s"),
        "arithmetic, training": str(environment.get("precision", NONE)),
        "processes x threads, training": workers(environment),
        "CPU kernels, training": str(environment.get("kernels") or NONE),
        "final loss": number(card.get("final_loss")),
        "sampling speed": number(metrics.get("images_per_second_sampling"), " images/s"),
        "evaluation time": number(metrics.get("seconds"), " s"),
        "trained at": str(environment.get("date", NONE)),
        "commit, training": str(environment.get("commit", NONE)),
        "commit, evaluation": str(metrics.get("commit", NONE)),
        "hardware, training": hardware(environment),
        "Python, PyTorch, training": f"{environment.get('python', NONE)}, {environment.get('torch', NONE)}",
        "hardware, evaluation": hardware(evaluated) if evaluated else NONE,
        "arithmetic, evaluation": str(evaluated.get("precision", NONE)),
        "processes x threads, evaluation": workers(evaluated),
        "CPU kernels, evaluation": str(evaluated.get("kernels") or NONE),
        "PyTorch, evaluation": str(evaluated.get("torch", NONE)),
        "data sha256": str(card.get("dataset_sha256", NONE)),
        "model sha256": str(card.get("sha256", NONE)),
        "MLflow run": str(card.get("mlflow_run") or "not tracked"),
    }


def hardware(environment: Mapping[str, Any]) -> str:
    """GPUs and CPU of a run's environment, in words."""
    cpu = f"{environment.get('cpu', 'an unknown CPU')} ({environment.get('cores', '?')} cores)"
    return " and ".join([*environment.get("gpus", []), cpu])


def workers(environment: Mapping[str, Any]) -> str:
    """How many processes of how many threads."""
    return f"{environment.get('processes', '?')} x {environment.get('threads', '?')}"


def fact_tables(content: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's metrics in two parts: tables {columns: {row: cells}} of its nested numbers, and the single facts."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in flat(content):
        group, _, name = key.rpartition(".")
        groups.setdefault(group, {})[name] = fact(value)
    single = groups.pop("", {})
    tables: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for group, values in groups.items():
        tables.setdefault(tuple(values), {})[group.replace("_", " ")] = list(values.values())
    return {"tables": tables, "single": {name.replace("_", " "): value for name, value in single.items()}}
