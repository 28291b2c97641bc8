"""What settings must be to each other, so that no stage stops at them later: names that exist, numbers that fit.

Each check is a generator of sentences. Nothing is opened here and no network is built; see the stage `check` for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from condmix import CondmixError
from condmix.settings.perspectives import MERGES, UNNUMBERED, Perspective, is_perspective, parse
from condmix.settings.perspectives import known as known_perspectives
from condmix.settings.plugins import plugins, unknown
from condmix.settings.schema import FEATURES, Params
from condmix.settings.variants import resolve

PRIOR_TIMES = 1000  # of the prior's own schedule


def check_settings(params: Params) -> None:
    """CondmixError with the first thing that is wrong."""
    profile = f"conf/{params.profile}.yaml"
    for check, where in CHECKS:
        for problem in check(params):
            raise CondmixError(f"{where or profile}: {problem}")


def _plugin_names(params: Params) -> Iterator[str]:
    """Those of the profile; the fusion's stands in params.yaml."""
    captioners = [params.generated.captioner] if params.generated else []
    for kind, names in {
        "datasets": [params.data.dataset],
        "samplers": [params.evaluate.sampler],
        "captioners": captioners,
        "encoders": params.embed.encoders,
    }.items():
        for name in names:
            if name not in plugins(kind):
                yield unknown(kind.removesuffix("s"), name, plugins(kind))


def _fusion(params: Params) -> Iterator[str]:
    if params.fusion not in plugins("fusions"):
        yield unknown("fusion", params.fusion, plugins("fusions"))


def _repeats(params: Params) -> Iterator[str]:
    for key in ("embed.encoders", "embed.joined", "evaluate.features"):
        section, field = key.split(".")
        yield from _twice(key, getattr(getattr(params, section), field))


def _perspectives(params: Params) -> Iterator[str]:
    for field in ("perspectives", "variants"):
        yield from _twice(field, getattr(params, field))
    imported = dict.fromkeys(entry.perspective for entry in params.embed.imports)
    generated = params.generated.captions if params.generated else 0
    t5, joined = "t5_text" in params.embed.encoders, params.embed.joined
    networks = list(params.embed.timm) if "timm_image" in params.embed.encoders else []
    known = known_perspectives(params.embed.captions, t5, list(imported), generated, joined, networks)
    for name in params.perspectives:
        if re.sub(r"_wrong_[1-9]\d?$", "_of_another", name) not in known:  # any share of what can be another's
            yield _merged(name, params) or unknown("perspective", name, known)
    for perspective in map(parse, params.perspectives):
        missing = [name for name in perspective.drawn_before if name not in params.perspectives]
        if missing:
            yield (
                f"{perspective.name} is drawn from the captions that {' and '.join(missing)} left over, so "
                f"perspectives must list {'it' if len(missing) == 1 else 'them'} too"
            )


def _merged(name: str, params: Params) -> str | None:
    """What is wrong with the name of a perspective that merges several captions; None for one that merges none."""
    kind, _, rest = name.partition("_")
    merge, _, number = rest.partition("_")
    most = {
        "caption": ("embed.captions", params.embed.captions),
        "generated": ("generated.captions", params.generated.captions if params.generated else 0),
        "t5": ("embed.captions", params.embed.captions if "t5_text" in params.embed.encoders else 0),
    }
    setting, count = most.get(kind, ("", 0))
    if merge not in MERGES or not count or not number.isdecimal() and number:
        return None
    if not is_perspective(name):
        return f"{name} must end in how many captions it takes, 2 or more: {kind}_{merge}_2; one alone is {kind}_1"
    if int(number) > count:
        return f"{name} takes {number} captions, but {setting} is {count}: lower the one or raise the other"
    return f"{name} reads texts of {number} captions, and those in embed.joined alone are encoded: list {number} there"


def _imports(params: Params) -> Iterator[str]:
    """Imported perspectives have names of their own, and one file per split."""
    ours = {*UNNUMBERED, "caption", *(["t5"] if params.embed.t5 else []), *(["generated"] if params.generated else [])}
    seen = set()
    for entry in params.embed.imports:
        name = entry.perspective
        if not is_perspective(name) or parse(name).merge or parse(name).sources != [name]:
            yield f'embed.imports: "{name}" must be a lowercase word and a number, as in dino_1'
        elif parse(name).kind in ours or parse(name).number is None:
            yield f'embed.imports: "{name}" is the name of what our own encoders make; choose another word'
        if (name, entry.split) in seen:
            yield f"embed.imports: {name} has two files for the split {entry.split}; leave one of them"
        seen.add((name, entry.split))


def _imported_splits(params: Params) -> Iterator[str]:
    """A variant learns an imported perspective from one split's file, and is evaluated on the other's."""
    files: dict[str, set[str]] = {}
    for entry in params.embed.imports:
        files.setdefault(entry.perspective, set()).add(entry.split)
    for variant in params.variants:
        # Which fusion merges them does not matter here.
        perspectives = list(map(parse, resolve(variant, "", params.perspectives).perspectives))
        lacking = {split: [one for one in perspectives if _lacks(files, one, split)] for split in ("train", "test")}
        for one in lacking["train"]:
            yield (
                f"variant {variant} reads {one.name}, but embed.imports has no file of {one.sources[0]} for the split "
                "train to learn it from: add that file, or leave the perspective out in params.yaml"
            )
        if len(lacking["test"]) == len(perspectives):
            names = " and ".join(one.sources[0] for one in perspectives)
            yield (
                f"variant {variant} reads {', '.join(one.name for one in perspectives)}, but embed.imports has no file "
                f"of {names} for the split test, so it can't be evaluated: add that file"
            )


def _lacks(files: dict[str, set[str]], one: Perspective, split: str) -> bool:
    """Whether a perspective is an imported one of which this split has no file."""
    return split not in files.get(one.sources[0], {split})


def _joined(params: Params) -> Iterator[str]:
    """Texts of more captions than are in use would be of no picture."""
    for k in params.embed.joined:
        if k > params.embed.captions:
            yield f"embed.joined lists {k}, but embed.captions is {params.embed.captions}: leave it out, or raise that"


def _encoders(params: Params) -> Iterator[str]:
    """Every variant's card names CLIP's image tower; what else is read depends on the perspectives."""
    encoders = params.embed.encoders
    if "t5_text" in encoders and params.embed.t5 is None:
        yield "embed.encoders has t5_text, but embed.t5 does not say which model that is"
    if "timm_image" in encoders and not params.embed.timm:
        yield "embed.encoders has timm_image, but embed.timm names no network"
    needed = {"clip_image": "all variants", **({"clip_text": "the prior"} if params.prior else {})}
    by_kind = {"class": "class_label", "caption": "clip_text", "pseudo": "clip_text", "t5": "t5_text"}
    for variant in params.variants:
        for perspective in map(parse, resolve(variant, params.fusion, params.perspectives).perspectives):
            if perspective.kind in by_kind:
                needed.setdefault(by_kind[perspective.kind], f"{perspective.name} of the variant {variant}")
    for encoder, of in needed.items():
        if encoder not in encoders:
            yield f"embed.encoders lacks {encoder}, which {of} need{'' if of == 'all variants' else 's'}; add it"


def _clip(params: Params) -> Iterator[str]:
    clip = params.clip
    if not clip.model and not clip.weights:
        yield "clip.model is empty; give open_clip's name of a model or an architecture, or clip.weights: a folder"
    if clip.towers and (clip.pretrained or clip.weights or not isinstance(clip.model, dict)):
        yield (
            "clip.towers are of a CLIP that is trained here: give its architecture as clip.model, with pretrained and "
            "weights null, or write `towers: null`"
        )
    if clip.pretrained and not isinstance(clip.model, str):
        yield f"clip.pretrained {clip.pretrained} is of a model that open_clip knows; give its name as clip.model"


def _processes(params: Params) -> Iterator[str]:
    """Each process has a share of the batch."""
    clip, train = params.clip, params.train
    share = clip.batch_size // clip.processes
    if share < 2 and not clip.pretrained and not clip.weights:
        yield (
            f"clip.batch_size {clip.batch_size} leaves each of {clip.processes} clip.processes {share} pictures, but "
            "batch normalisation needs 2; lower clip.processes"
        )
    if train.batch_size % train.processes:
        yield (
            f"train.batch_size {train.batch_size} does not divide into {train.processes} equal shares, one for each of "
            "train.processes"
        )


def _network(params: Params) -> Iterator[str]:
    size, levels = params.data.image_size, len(params.model.multipliers)
    if size % 2 ** (levels - 1):
        yield (f"data.image_size {size} cannot be halved {levels - 1} times, as the {levels} model.multipliers ask")
    sizes = [size >> level for level in range(levels)]
    for at in params.model.attention:
        if at not in sizes:
            yield f"model.attention is at size {at}, which does not occur; the levels have {', '.join(map(str, sizes))}"


def _sampling(params: Params) -> Iterator[str]:
    if params.evaluate.steps > params.diffusion.steps:
        yield f"evaluate.steps {params.evaluate.steps} is more than the {params.diffusion.steps} of diffusion.steps"
    if params.prior and params.prior.sample_steps > PRIOR_TIMES:
        yield f"prior.sample_steps {params.prior.sample_steps} is more than the {PRIOR_TIMES} times of the prior"


def _twice(key: str, names: Sequence[Any]) -> Iterator[str]:
    if len(set(names)) < len(names):
        yield f"{key} names one twice: {', '.join(map(str, names))}"


def _scorer(params: Params) -> Iterator[str]:
    """A CLIP can't score the pictures that it conditioned."""
    scorer, weights = params.evaluate.scorer, params.clip.weights
    if scorer is None:
        return
    trained_here = scorer.place.resolve() == params.paths.clip.resolve()
    if trained_here or (weights and weights.sha256 == scorer.sha256):
        yield (
            f"evaluate.scorer {scorer.path} is the CLIP that conditions the pictures, so it can't judge them; name "
            "another one, or write `scorer: null`"
        )


def _features(params: Params) -> Iterator[str]:
    known = [*FEATURES, *params.embed.timm]
    for name in params.evaluate.features:
        if name not in known:
            yield unknown("evaluate.features", name, known)


CHECKS: tuple[tuple[Callable[[Params], Iterator[str]], str], ...] = (
    (_fusion, "params.yaml"),
    (_plugin_names, ""),
    (_repeats, ""),
    (_imports, ""),
    (_joined, ""),
    (_perspectives, "params.yaml"),
    (_imported_splits, ""),
    (_encoders, ""),
    (_clip, ""),
    (_processes, ""),
    (_network, ""),
    (_sampling, ""),
    (_scorer, ""),
    (_features, ""),
)
