"""Stage evaluate@<variant>: pictures of a trained variant for held-out scenes -> metrics/<variant>.json.

Every picture is drawn for the conditions of one test picture. A variant that sees the picture itself is conditioned in
two ways: on the held-out picture's own CLIP vector, an oracle that knows the answer, and on the CLIP text vector of a
caption in the image's place (trained on images, prompted with words). Rows of the one kind don't compare with rows of
the other. A profile with a prior conditions in a third way, on a picture's vector that it samples for the caption.
The first way is repeated with changes: without each of several perspectives, with another picture's in its place,
under another picture's conditions (what is right then is right by chance), and several times under one condition. Other
guidance scales are tried on pictures that are not reported, the last ones of the split, so that the best is not the
luckiest. What is measured is up to the plug-ins in condmix.metrics.
Axes: N pictures, P perspectives, A attributes, S image size.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from condmix import CondmixError
from condmix.data.captions import read_captions, read_claims, read_generated
from condmix.data.packed import Packed
from condmix.data.prepared import Split, load_meta
from condmix.diffusion.model import read_card
from condmix.evaluation.caption_score import CaptionFit, CaptionScore
from condmix.evaluation.conditions import Change, Condition, Kind
from condmix.evaluation.reference import Reference, class_attribute
from condmix.evaluation.samples import REPEATS, Drawn, PictureSet, draw, picture_seed
from condmix.files.artifacts import write_checked_json
from condmix.files.atomic import replacing, scratch, write_json
from condmix.metrics import Pictures, computed, headline, measures
from condmix.pipeline import digest, tree_sha256
from condmix.runtime.processes import is_main, threads, together
from condmix.sampling.sample import grid
from condmix.settings.load import Params
from condmix.settings.perspectives import Perspective, parse
from condmix.settings.schema import Content
from condmix.tracking.runs import environment, track

SHOWN = 24  # scenes whose pictures the report shows
FEWEST = 2  # pictures of which a distance can be measured
HOW = ("sampler", "steps", "spacing", "last_time", "composed", "interval", "threshold")  # pictures are sampled


@dataclass(frozen=True)
class ConditionedOn:
    """One way of conditioning a variant on the test pictures."""

    condition: Condition
    texts: list[list[str]]  # what conditioned each picture, in words
    named: np.ndarray | None  # (N, A) bool: the attributes that the condition names


@dataclass(frozen=True)
class Written:
    """The generated captions of the test pictures, and what they claim (A,), None where that is not known."""

    captions: list[list[str]]
    claims: list[list[list[int]]] | None


@dataclass(frozen=True)
class Task:
    """A variant, the held-out pictures, and the ways of conditioning it on them, the headline's first."""

    params: Params
    variant: str
    card: dict[str, Any]  # of the model
    split: Split
    packed: Packed
    captions: list[list[str]]
    ways: list[ConditionedOn]

    @classmethod
    def load(cls, params: Params, variant: str) -> Task:
        """CondmixError where the stages before were not run for the same pictures."""
        split = Split.load(params.paths.dataset, "test")
        packed = Packed.load(params.paths.packed(variant), "test")
        captions = read_captions(params.paths.captions, "test")
        for what, count in (("captions", len(captions)), ("packed perspectives", len(packed))):
            if count != len(split.images):
                raise CondmixError(
                    f"the test split has {len(split.images):,} pictures, but the {what} are of {count:,}: "
                    "run dvc repro, which brings both up to date"
                )
        ways = conditions(packed, split, captions, read_written(params, packed), params.prior is not None)
        return cls(params, variant, read_card(params.paths.model(variant)), split, packed, captions, ways)

    @property
    def headline(self) -> ConditionedOn:
        return self.ways[0]

    def named(self, condition: Condition) -> np.ndarray | None:
        """(N, A) bool: the attributes that it names."""
        return next(way.named for way in self.ways if way.condition is condition)


@dataclass(frozen=True)
class PictureSets:
    """The sets of pictures that are measured: one for each condition, and changes of the first."""

    conditions: list[PictureSet]  # the headline's first
    sweep: list[PictureSet]  # of pictures that nothing else is of
    changes: list[PictureSet]
    unchanged: PictureSet  # the pictures of `changes` as the headline has them
    repeated: PictureSet
    published: list[PictureSet]  # one, if the profile asks for it

    @classmethod
    def of(cls, task: Task) -> PictureSets:
        settings, scale, first = task.params.evaluate, task.params.guidance, task.headline.condition
        count = len(task.packed)
        apart = min(settings.sweep_n, count // 2) if settings.sweep else 0
        if apart < FEWEST:
            apart = 0
        n = min(settings.n, count - apart)
        few, others = min(settings.sweep_n, n), min(settings.other_n or n, n)
        several = list(task.packed.vectors) if len(task.packed.vectors) > 1 else []
        changes = [Change(Kind.SHUFFLED), *(Change(kind, x) for kind in (Kind.WITHOUT, Kind.WRONG) for x in several)]
        conditions = [way.condition for way in task.ways]
        return cls(
            [PictureSet(condition, scale, n if condition is first else others) for condition in conditions],
            [PictureSet(first, s, apart, first=count - apart) for s in settings.sweep if apart],
            [PictureSet(first, scale, few, change) for change in changes],
            PictureSet(first, scale, few),
            PictureSet(first, scale, max(1, few // REPEATS) * REPEATS, Change(Kind.REPEATED)),
            [PictureSet(first, scale, n, Change(Kind.PUBLISHED)) for n in (settings.published_n,) if n],
        )

    @property
    def all(self) -> list[PictureSet]:
        return [*self.conditions, *self.sweep, *self.changes, self.unchanged, self.repeated, *self.published]

    @property
    def draws(self) -> list[PictureSet]:
        """A smaller set is the beginning of a larger one at the same scale, so only the largest is drawn."""
        return list({job.file: job for job in sorted(self.all, key=lambda job: job.n)}.values())


def main(params: Params, variant: str) -> None:
    """Draw, measure, and write metrics/<variant>.json and metrics/details/<variant>/."""
    folder = params.paths.drawn(variant)
    with scratch(folder) if is_main() else nullcontext():
        evaluate(params, variant, folder)


def evaluate(params: Params, variant: str, folder: Path) -> None:
    """The evaluation itself, by way of `folder`, in which all processes leave what they draw."""
    started = time.monotonic()
    task = Task.load(params, variant)
    plan = PictureSets.of(task)
    world = together(params.evaluate.processes, draw, params, variant, plan.draws, folder)
    if not is_main():
        return
    seconds = time.monotonic() - started
    drawn, reference = Drawn(folder, world), Reference(params, task.split)
    scorer = params.evaluate.scorer
    fit = caption_fit(task, scorer, drawn.pictures(plan.conditions[0])) if scorer else None
    figures = measured(task, plan, drawn, reference, fit)
    here = environment("fp32", world, threads(params.evaluate.processes))
    metrics = {
        **figures,
        "images_per_second_sampling": round(sum(job.n for job in plan.draws) / seconds, 1),
        "seconds": round(time.monotonic() - started, 1),
        "commit": here["commit"],
        "environment": here,
        "training_environment": task.card.get("environment"),
    }
    metrics = {key: value for key, value in metrics.items() if value is not None}
    shown = {job.condition: np.array(drawn.pictures(job)[:SHOWN]) for job in plan.conditions}
    write(task, metrics, shown)
    write_pictures(task, arrays(task, plan, drawn, reference, fit))
    record(task, metrics, shown)


def measured(
    task: Task, plan: PictureSets, drawn: Drawn, reference: Reference, fit: CaptionFit | None
) -> dict[str, Any]:
    """metrics/<variant>.json, but for what it took."""
    params, card, headline = task.params, task.card, plan.conditions[0]
    with tqdm(total=len(plan.all), desc=f"judge {task.variant}", unit="set") as bar:

        def row(job: PictureSet) -> dict[str, Any]:
            bar.update()
            observed = reference.observations(drawn.seen(job), task.named(job.condition), first=job.first)
            conditions = {"condition": job.condition.value, "guidance": job.guidance, "n": job.n}
            return computed(observed, Pictures.EVERY) | conditions

        rows, sweep = [row(job) for job in plan.conditions], [row(job) for job in plan.sweep]
        seen, pictures = drawn.seen(headline), drawn.pictures(headline)
        closely = computed(reference.headline(seen, task.headline.named, pictures, captions=fit), Pictures.HEADLINE)
        repeated = reference.observations(drawn.seen(plan.repeated), per_condition=REPEATS)
        bar.update()
        changed: dict[str, Any] = {kind.value: {} for kind in (Kind.SHUFFLED, Kind.WITHOUT, Kind.WRONG)}
        for job in plan.changes:
            changed[job.change.kind] |= {job.change.perspective: row(job)} if job.change.perspective else row(job)
        changed["unchanged"] = row(plan.unchanged)
        published: dict[str, Any] = {}
        for job in plan.published:
            bar.update()
            published |= computed(reference.published(drawn.seen(job)), Pictures.PUBLISHED)
    return {
        "variant": task.variant,
        "profile": params.profile,
        "fusion": card["fusion"],
        "perspectives": card["perspectives"].split("+"),
        **rows[0],
        **closely,
        **published,
        **{name: getattr(params.evaluate, name) for name in HOW},
        "seed": params.seed,
        "split": "test",
        "reference": reference.facts,
        "features": reference.features,
        "ema": card["train.ema"],
        **reference.judged,
        **{row["condition"]: row for row in rows[1:]},
        **changed,
        **computed(repeated, Pictures.REPEATED),
        "sweep": sweep,
        "sweep_of": "the last pictures of the test split, which are in no other figure" if sweep else None,
        "best_guidance": best_guidance(sweep, reference.features),
    }


def read_written(params: Params, packed: Packed) -> Written | None:
    """What a captioner wrote, where a perspective of the variant is of it."""
    if all(parse(name).kind != "generated" for name in packed.vectors):
        return None
    folder = params.paths.generated
    return Written(read_generated(folder, "test"), read_claims(folder, "test"))


def conditions(
    packed: Packed, split: Split, captions: list[list[str]], written: Written | None = None, prior: bool = False
) -> list[ConditionedOn]:
    """The ways of conditioning a variant. The first gives its headline figures: an oracle only where words are lacking.

    Generated captions name what their words name, right or wrong: a picture that follows a wrong one is wrong.

    Imported vectors that were made from the picture are an oracle like its CLIP vector; no words can replace them.
    """
    _check_words(packed, captions)
    made_of = {entry["name"]: entry["of"] for entry in packed.variant["perspectives"] if "of" in entry}
    own = [perspective for perspective in map(parse, packed.vectors) if not perspective.of_another]

    def made_from(kind: str) -> list[Perspective]:
        return [perspective for perspective in own if made_of.get(perspective.name, perspective.kind) == kind]

    slots, guesses, shown = made_from("caption"), made_from("generated"), made_from("image")
    guessed = written.captions if written and guesses else [[] for _ in captions]
    claimed = written.claims if written and guesses else []
    labels = split.labels if made_from("class") else None
    classes = None if labels is None else [[split.class_names[i]] if i >= 0 else [] for i in labels]

    def texts(chosen: list[Perspective]) -> list[list[str]]:
        used = [[of[k] for k in used_captions(chosen, of)] for of in captions]
        used = [a + [of[k] for k in used_captions(guesses, of)] for a, of in zip(used, guessed, strict=True)]
        return used if classes is None else [a + b for a, b in zip(used, classes, strict=True)]

    def named(chosen: list[Perspective], everything: bool = False) -> np.ndarray | None:
        if split.attributes is None or split.mentions is None or claimed is None:
            return None
        known = np.zeros(split.attributes.shape, bool) | everything
        for row, of in enumerate(captions if chosen else ()):
            known[row] |= split.mentions[row, used_captions(chosen, of)].any(axis=0)
        for row, claims in enumerate(claimed):
            for k in used_captions(guesses, claims):
                known[row] |= np.array(claims[k]) >= 0
        if classes is not None:
            known[:, class_attribute(split)] = True
        return known

    if not shown:
        return [ConditionedOn(Condition.CAPTIONS, texts(slots), named(slots))]
    oracle = ConditionedOn(Condition.ORACLE, texts(slots), named(slots, everything=True))
    if packed.prompt is None or [perspective.name for perspective in shown] != ["image"]:
        return [oracle]
    words = [parse("caption_1"), *slots]
    prompt = ConditionedOn(Condition.PROMPT, texts(words), named(words))
    return [prompt, oracle, *([replace(prompt, condition=Condition.PRIOR)] if prior else [])]


def _check_words(packed: Packed, captions: list[list[str]]) -> None:
    """CondmixError where words must stand in for `pseudo`, but there are none."""
    if "pseudo" in packed.vectors and not any(captions):
        raise CondmixError(
            f"{packed.variant['variant']} sees pseudo, in whose place captions stand in evaluation, but no picture of "
            "the test split has one: caption some of them"
        )


def used_captions(perspectives: Sequence[Perspective], captions: Sequence[Any]) -> list[int]:
    """Indices of a picture's captions that stand in its views, each once; several share a slot or none of them does."""
    having = [perspective for perspective in perspectives if perspective.captions.stop <= len(captions)]
    return list(dict.fromkeys(k for perspective in having for k in perspective.captions))


def caption_fit(task: Task, scorer: Content, pictures: np.ndarray) -> CaptionFit:
    """How well the headline pictures fit the captions, beside real pictures."""
    n, evaluate = len(pictures), task.params.evaluate
    device = "cuda" if torch.cuda.is_available() else "cpu"
    score = CaptionScore(scorer.verified("evaluate.scorer"), task.card["encoder"], evaluate.batch_size, device)
    fit = score.fit(pictures, task.split.images[:n], task.captions[:n], task.headline.texts[:n])
    if not fit.held_out:
        print(f"{task.variant} was conditioned on every caption of the {n} test pictures: none is left to score it by")
    return fit


def best_guidance(sweep: list[dict[str, Any]], features: list[str]) -> dict[str, float]:
    """The scale of the sweep at which each measure is best, in the order of its rows: of pictures not reported."""
    known = {m.key: m for m in measures([{**row, "features": features} for row in sweep])}
    chosen = [known[key] for key in (sweep[0] if sweep else ()) if key in known]
    return {
        measure.key: (max if measure.higher_is_better else min)(sweep, key=measure.of)["guidance"]
        for measure in chosen if measure.higher_is_better is not None
    }  # fmt: skip


def arrays(
    task: Task, plan: PictureSets, drawn: Drawn, reference: Reference, fit: CaptionFit | None
) -> dict[str, np.ndarray]:
    """pictures.npz: the headline figures picture by picture, for paired comparisons.

    ids (n,), right (n, A), named (n, A), mentions (n, K, A) of the picture's K captions, attribute_names (A,), what is
    right (m, A) in the first m under each change, and of all captions `caption_ranks` (n, K) and which were `told`.
    """
    n, split, named = plan.conditions[0].n, task.split, task.headline.named
    given, names = reference.right(drawn.seen(plan.conditions[0])), reference.names()
    known = given is not None
    right = np.zeros((n, 0), bool) if given is None else given
    changed = {job.change.array: reference.right(drawn.seen(job)) for job in plan.changes}
    mentions = split.mentions[:n] if known and split.mentions is not None else np.zeros((n, 0, len(names)), bool)
    return {
        "ids": split.ids[:n],
        "right": right,
        "named": named[:n] if known and named is not None else np.zeros_like(right),
        "mentions": mentions,
        "attribute_names": np.array(names if known else [], dtype=str),
        **{name: right for name, right in changed.items() if right is not None},
        **({"caption_ranks": fit.ranks, "told": fit.conditioned} if fit else {}),
    }


def write_pictures(task: Task, content: dict[str, np.ndarray]) -> None:
    """metrics/details/<variant>/pictures.npz."""
    path = task.params.paths.details(task.variant) / "pictures.npz"
    with replacing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **cast(Any, content))  # numpy's own types take no mapping


def write(task: Task, metrics: dict[str, Any], shown: dict[Condition, np.ndarray]) -> None:
    """metrics/<variant>.json, its headline, sample pictures, and for the report metrics/details/<variant>/."""
    paths, split = task.params.paths, task.split
    folder = paths.details(task.variant)
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[dict[str, Any]] = [
        {
            "id": int(split.ids[i]),
            "captions": task.captions[i],
            "condition_captions": task.headline.texts[i],
            "class": split.class_names[split.labels[i]] if split.labels is not None and split.labels[i] >= 0 else None,
            "seed": picture_seed(task.params.seed, i),
        }
        for i in range(len(shown[task.headline.condition]))
    ]
    drawn = {str(condition): pictures for condition, pictures in shown.items()}
    for name, pictures in {"real": split.images[: len(samples)], **drawn}.items():
        with replacing(folder / f"{name}.npy") as part, open(part, "wb") as file:
            np.save(file, np.asarray(pictures))
    write_checked_json(folder / "details.json", {"metrics": metrics, "card": task.card, "samples": samples})
    write_checked_json(paths.metrics / f"{task.variant}.json", metrics)
    write_json(paths.headline(task.variant), {measure.key: measure.of(metrics) for measure in headline(metrics)})
    with replacing(paths.samples(task.variant)) as part:
        sample_picture(shown[task.headline.condition]).save(part, "PNG")


def sample_picture(pictures: np.ndarray) -> Image.Image:
    """Pictures (n, S, S, 3) side by side, in rows of six."""
    return Image.fromarray(grid(pictures, columns=6, scale=6))


def record(task: Task, metrics: dict[str, Any], shown: dict[Condition, np.ndarray]) -> None:
    """Add the figures to the MLflow run that trained these weights, or, where the store has none, to a new one.

    The run is found by the weights' hash: a model that came from DVC's cache was trained by an earlier run.
    """
    params, variant, card = task.params, task.variant, task.card
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
        test = load_meta(params.paths.dataset)["splits"]["test"]["images_sha256"]
        run.inputs(f"{params.profile}/test", test, "evaluation", params.paths.dataset)
        figures = headline(metrics)
        run.metrics({f"eval/{measure.key}": measure.of(metrics) for measure in figures})
        for name, pictures in shown.items():
            run.image(f"held_out_{name}", grid(pictures, columns=6, scale=6), 0)
        first = shown[task.headline.condition]
        texts = [" / ".join(texts) for texts in task.headline.texts[: len(first)]]
        seeds = [picture_seed(params.seed, i) for i in range(len(first))]
        run.table("samples.json", {"condition": texts, "seed": seeds}, first)
        run.artifact(params.paths.metrics / f"{variant}.json", "metrics")
        if figures and figures[0].rank is not None:
            run.score(f"condmix-{params.profile}-{variant}", {
                **tags, "measure": figures[0].key, "value": figures[0].of(metrics),
                "higher_is_better": figures[0].higher_is_better, "protocol": protocol(task, test),
            })  # fmt: skip


def protocol(task: Task, test_sha256: str) -> str:
    """Hash of what two headline figures must share to be compared: test pictures, judge, encoder, settings, guidance.

    The seed is not among them, nor what changes no figure but for rounding.
    """
    params = task.params
    settings = params.evaluate.model_dump(mode="json", exclude={"batch_size", "processes", "resamples"})
    return digest(
        {
            "pictures": test_sha256,
            "judge": tree_sha256(params.paths.judge),
            "encoder": task.card["encoder"],
            "condition": task.headline.condition.value,
            "guidance": params.guidance,
            "settings": settings,
        }
    )
