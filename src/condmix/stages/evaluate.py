"""Stage evaluate@<variant>: a trained variant, asked for held-out scenes -> metrics/<variant>.json.

Every picture is drawn for the conditions of one test picture. A variant that sees the picture itself is asked in
two ways: by the held-out picture's own CLIP vector, an oracle that is told the answer, and by the CLIP text vector
of a caption in the image's place (train on images, ask with words). Rows of the one kind don't compare with rows
of the other. A profile with a prior asks in a third way, by a picture's vector that it samples for the caption.
The first way is asked again with changes: at other guidance scales, without each of several perspectives, with
another picture's in its place, under another picture's conditions (what is right then is right by chance), and
several times under one condition.
Axes: N pictures, P perspectives, A attributes, S image size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from condmix import CondmixError
from condmix.data.captions import read_captions, read_claims, read_generated
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.diffusion.model import read_card
from condmix.evaluation.caption_score import CaptionScore, not_told
from condmix.evaluation.measures import Measure, class_attribute
from condmix.evaluation.samples import REPEATS, Drawn, Job, draw, picture_seed
from condmix.files.artifacts import write_checked_json
from condmix.files.atomic import replacing, scratch
from condmix.runtime.processes import is_main, threads, together
from condmix.sampling.sample import grid
from condmix.settings.load import Params
from condmix.settings.perspectives import another, parse
from condmix.tracking.runs import environment, track

SHOWN = 24  # scenes whose pictures the report shows


@dataclass(frozen=True)
class Condition:
    """One way of asking a variant for the test pictures."""

    name: str  # "captions", "prompt", "oracle" or "prior"
    texts: list[list[str]]  # what conditioned each picture, in words
    named: np.ndarray | None  # (N, A) bool: the attributes that the condition names


@dataclass(frozen=True)
class Written:
    """The generated captions of the test pictures, and what they claim (A,), None where that is not known."""

    captions: list[list[str]]
    claims: list[list[list[int]]] | None


def main(params: Params, variant: str) -> None:
    """Draw, measure, and write metrics/<variant>.json and metrics/details/<variant>/."""
    folder = params.paths.drawn(variant)
    with scratch(folder) if is_main() else nullcontext():
        evaluate(params, variant, folder)


def evaluate(params: Params, variant: str, folder: Path) -> None:
    """The evaluation itself, by way of `folder`, in which all processes leave what they draw."""
    started = time.monotonic()
    split = Split.load(params.paths.dataset, "test")
    packed = Packed.load(params.paths.packed(variant), "test")
    captions = read_captions(params.paths.captions, "test")
    for what, count in (("captions", len(captions)), ("packed perspectives", len(packed))):
        if count != len(split.images):
            raise CondmixError(
                f"the test split has {len(split.images):,} pictures, but the {what} are of {count:,}: "
                "run dvc repro, which brings both up to date"
            )
    asked = conditions(packed, split, captions, read_written(params, packed), params.prior is not None)
    settings = params.evaluate
    n = min(settings.n, len(packed))
    headline = asked[0]
    few = min(settings.sweep_n, n)
    others = min(settings.other_n or n, n)
    jobs = [Job(one.name, params.guidance, n if one is headline else others) for one in asked]
    sweep = [Job(headline.name, scale, few) for scale in settings.sweep]
    shuffled = Job(headline.name, params.guidance, few, "shuffled")
    repeated = Job(headline.name, params.guidance, max(1, few // REPEATS) * REPEATS, "repeated")
    several = list(packed.vectors) if len(packed.vectors) > 1 else []
    without = {name: Job(headline.name, params.guidance, few, f"without {name}") for name in several}
    wrong = {name: Job(headline.name, params.guidance, few, f"wrong {name}") for name in several}

    # A smaller set is the beginning of a larger one at the same scale, so only the largest is drawn.
    everything = [*jobs, *sweep, shuffled, repeated, *without.values(), *wrong.values()]
    draws = list({job.file: job for job in sorted(everything, key=lambda job: job.n)}.values())

    world = together(settings.processes, draw, params, variant, draws, folder)
    if not is_main():
        return
    seconds = time.monotonic() - started
    drawn, measure = Drawn(folder, world), Measure(params, split)
    with tqdm(total=len(everything), desc=f"judge {variant}", unit="set") as bar:

        def row(job: Job) -> dict[str, Any]:
            bar.update()
            found = measure(drawn.seen(job), _named(asked, job))
            return found | {"condition": job.condition, "guidance": job.guidance, "n": job.n}

        rows, swept = [row(job) for job in jobs], [row(job) for job in sweep]
        pictures, seen = drawn.pictures(jobs[0]), drawn.seen(jobs[0])
        right = measure.right(seen)
        closely = measure.closely(seen, pictures)
        if right is not None:
            closely |= measure.by_caption(right)
        of_pictures: dict[str, np.ndarray] = {}
        if right is not None:
            changes = [shuffled, *without.values(), *wrong.values()]
            of_pictures |= {f"right {job.change}": measure.right(drawn.seen(job)) for job in changes}
        if settings.scorer:
            agreement, of_captions = held_out_scores(params, variant, pictures, headline, captions, split)
            closely |= agreement
            of_pictures |= of_captions
        changed = {
            "shuffled": row(shuffled),
            "without": {name: row(job) for name, job in without.items()},
            "wrong": {name: row(job) for name, job in wrong.items()},
            "diversity": measure.diversity(drawn.seen(repeated), REPEATS),
            "diversity_n": {"conditions": repeated.n // REPEATS, "pictures_each": REPEATS},
        }
    shown = {one.name: np.array(drawn.pictures(job)[:SHOWN]) for one, job in zip(asked, jobs, strict=True)}

    card, here = read_card(params.paths.model(variant)), environment("fp32", world, threads(settings.processes))
    metrics = {
        "variant": variant,
        "profile": params.profile,
        "fusion": card["fusion"],
        "perspectives": card["perspectives"].split("+"),
        **rows[0],
        **closely,
        "sampler": settings.sampler,
        "steps": settings.steps,
        "composed": settings.composed,
        "interval": settings.interval,
        "seed": params.seed,
        "split": "test",
        "reference": measure.reference,
        "features": measure.features,
        "ema": card["train.ema"],
        "judge_accuracy": measure.judge_accuracy,
        "judge_accuracy_n": measure.judge_n,
        **{row["condition"]: row for row in rows[1:]},
        **changed,
        "sweep": swept,
        "best_guidance": best_guidance(swept),
        "images_per_second_sampling": round(sum(job.n for job in draws) / seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
        "commit": here["commit"],
        "environment": here,
        "training_environment": card.get("environment"),
    }
    metrics = {key: value for key, value in metrics.items() if value is not None}
    write(params, variant, metrics, card, headline, captions, split, shown)
    write_pictures(params, variant, measure.names(), right, headline, split, n, of_pictures)
    record(params, variant, metrics, card, shown)


def read_written(params: Params, packed: Packed) -> Written | None:
    """What a captioner wrote, where a perspective of the variant is of it."""
    if all(parse(name).kind != "generated" for name in packed.vectors):
        return None
    folder = params.paths.generated
    return Written(read_generated(folder, "test"), read_claims(folder, "test"))


def conditions(
    packed: Packed, split: Split, captions: list[list[str]], written: Written | None = None, prior: bool = False
) -> list[Condition]:
    """The ways of asking a variant. The first gives its headline figures: an oracle only where words are lacking.

    Generated captions name what their words name, right or wrong: a picture that follows a wrong one is wrong.

    Imported vectors that were made from the picture are an oracle like its CLIP vector; no words can replace them.
    """
    made_of = {entry["name"]: entry["of"] for entry in packed.variant["perspectives"] if "of" in entry}
    told = [(one, made_of.get(one.name, one.kind)) for one in map(parse, packed.vectors) if not one.of_another]
    slots = list(dict.fromkeys(one.caption for one, of in told if of == "caption"))
    if "pseudo" in packed.vectors and not any(captions):
        raise CondmixError(
            f"{packed.variant['variant']} sees pseudo, in whose place captions stand in evaluation, but no picture of "
            "the test split has one: caption some of them"
        )
    guesses = list(dict.fromkeys(one.caption for one, of in told if of == "generated"))
    shown = [one.name for one, of in told if of == "image"]
    told_class = any(of == "class" for _, of in told)
    classes = [[split.class_names[i]] if i >= 0 else [] for i in split.labels] if told_class else None

    def texts(chosen: list[int]) -> list[list[str]]:
        said = [[of[k] for k in chosen if k < len(of)] for of in captions]
        if guesses:
            said = [a + [of[k] for k in guesses if k < len(of)] for a, of in zip(said, written.captions, strict=True)]
        return said if classes is None else [a + b for a, b in zip(said, classes, strict=True)]

    def named(chosen: list[int], everything: bool = False) -> np.ndarray | None:
        if split.attributes is None or (guesses and written.claims is None):
            return None
        known = np.zeros(split.attributes.shape, bool) | everything
        for k in chosen:
            known |= split.mentions[:, k]
        for row, claims in enumerate(written.claims if guesses else ()):
            for k in guesses:
                if k < len(claims):
                    known[row] |= np.array(claims[k]) >= 0
        if told_class:
            known[:, class_attribute(split)] = True
        return known

    if not shown:
        return [Condition("captions", texts(slots), named(slots))]
    oracle = Condition("oracle", texts(slots), named(slots, everything=True))
    if packed.prompt is None or shown != ["image"]:
        return [oracle]
    words = sorted({0, *slots})
    prompt = Condition("prompt", texts(words), named(words))
    return [prompt, oracle, *([replace(prompt, name="prior")] if prior else [])]


def held_out_scores(
    params: Params, variant: str, pictures: np.ndarray, headline: Condition, captions: list[list[str]], split: Split
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Agreement with the captions that did not condition the pictures; of real pictures, and of other ones', beside.

    And for pictures.npz, of all captions: `caption_ranks` (n, K) of `CaptionScore.ranks`, and which were `told` (n, K).
    """
    n = len(pictures)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = read_card(params.paths.model(variant))
    scorer = params.evaluate.scorer.verified("evaluate.scorer")
    score = CaptionScore(scorer, card["encoder"], params.evaluate.batch_size, device)
    seen = score.see(pictures)
    ranks = score.ranks(seen, captions[:n])
    told = np.zeros(ranks.shape, bool)
    for row, (texts, used) in enumerate(zip(captions[:n], headline.texts[:n], strict=True)):
        told[row, : len(texts)] = [text in used for text in texts]
    of_captions = {"caption_ranks": ranks, "told": told}
    held_out = not_told(captions[:n], headline.texts[:n])
    if not any(held_out):
        print(f"{variant} was told every caption of the {n} test pictures, so none is left to score it by")
        return {}, of_captions
    others = [held_out[i] for i in another(n)]
    return {
        "held_out_captions": {
            "score": round(score.score(seen, held_out), 4),
            "of_real_pictures": round(score.score(score.see(split.images[:n]), held_out), 4),
            "of_others": round(score.score(seen, others), 4),
            "rank": round(float(np.nanmean(np.where(told, np.nan, ranks))), 4),
            "captions": sum(map(len, held_out)),
            "scorer": score.id,
        }
    }, of_captions


def best_guidance(sweep: list[dict[str, Any]]) -> dict[str, float]:
    """The scale of the sweep at which each measure is best: shares at their largest, distances at their smallest."""
    best = {}
    for name in sweep[0] if sweep else ():
        sign = {"fd": -1, "fid": -1, "attribute": 1, "class": 1, "scene": 1}.get(name.partition("_")[0])
        if sign and isinstance(sweep[0][name], float):
            best[name] = max(sweep, key=lambda row, name=name, sign=sign: sign * row[name])["guidance"]
    return best


def write_pictures(
    params: Params,
    variant: str,
    names: list[str],
    right: np.ndarray | None,
    headline: Condition,
    split: Split,
    n: int,
    of_pictures: dict[str, np.ndarray],
) -> None:
    """metrics/details/<variant>/pictures.npz: the headline figures picture by picture, for paired comparisons.

    ids (n,), right (n, A), named (n, A), mentions (n, K, A) of the picture's K captions, attribute_names (A,), and
    `of_pictures`: what is right (m, A) in the first m under each change, and what `held_out_scores` found.
    """
    nothing = np.zeros((n, 0), bool)
    known = right is not None
    mentions = split.mentions[:n] if known and split.mentions is not None else np.zeros((n, 0, len(names)), bool)
    arrays = {
        "ids": split.ids[:n],
        "right": right if known else nothing,
        "named": headline.named[:n]
        if known and headline.named is not None
        else np.zeros_like(right if known else nothing),
        "mentions": mentions,
        "attribute_names": np.array(names if known else [], dtype=str),
        **of_pictures,
    }
    with replacing(params.paths.details(variant) / "pictures.npz") as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)


def write(
    params: Params,
    variant: str,
    metrics: dict[str, Any],
    card: dict[str, Any],
    headline: Condition,
    captions: list[list[str]],
    split: Split,
    shown: dict[str, np.ndarray],
) -> None:
    """metrics/<variant>.json, and what the report needs in metrics/details/<variant>/."""
    folder = params.paths.details(variant)
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        {
            "id": int(split.ids[i]),
            "captions": captions[i],
            "condition_captions": headline.texts[i],
            "class": split.class_names[split.labels[i]] if split.labels is not None and split.labels[i] >= 0 else None,
            "seed": picture_seed(params.seed, i),
        }
        for i in range(len(shown[headline.name]))
    ]
    for name, pictures in {"real": split.images[: len(samples)], **shown}.items():
        with replacing(folder / f"{name}.npy") as part, open(part, "wb") as file:
            np.save(file, np.asarray(pictures))
    write_checked_json(folder / "details.json", {"metrics": metrics, "card": card, "samples": samples})
    write_checked_json(params.paths.metrics / f"{variant}.json", metrics)


def record(
    params: Params, variant: str, metrics: dict[str, Any], card: dict[str, Any], shown: dict[str, np.ndarray]
) -> None:
    """Add the figures to the MLflow run that trained these weights, or, where the store has none, to a new one.

    The run is found by the weights' hash: a model that came from DVC's cache was trained by an earlier run.
    """
    described = {
        "variant": variant,
        "fusion": card["fusion"],
        "perspectives": card["perspectives"],
        "guidance": params.guidance,
        "profile": params.profile,
        "seed": params.seed,
        "encoder": card["encoder"],
    }
    tags = {"model_sha256": card["sha256"]}
    trained = {"tags": tags, "params": {"guidance": params.guidance}}
    with track(variant, described, {"kind": "evaluation", **tags}, joins=trained) as run:
        run.tag({f"evaluation.{name}": value for name, value in metrics["environment"].items()})
        figures = {name: value for name, value in metrics.items() if not name.endswith("environment")}
        run.metrics({f"eval/{name}": value for name, value in _numbers(figures)})
        for row in metrics["sweep"]:
            percent = round(row["guidance"] * 100)  # the step of a metric is a whole number
            run.metrics({f"sweep/{name}": value for name, value in _numbers(row) if name != "guidance"}, percent)
        for name, pictures in shown.items():
            run.image(f"held_out_{name}", grid(pictures, columns=6, scale=6), 0)
        run.artifact(params.paths.metrics / f"{variant}.json", "metrics")


def _numbers(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All numbers of a nested mapping under dotted names; lists are left out."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value


def _named(asked: list[Condition], job: Job) -> np.ndarray | None:
    return next(condition.named for condition in asked if condition.name == job.condition)
