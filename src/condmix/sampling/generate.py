"""Captions, a picture, a class, or any subset of them -> new pictures from a trained variant."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from condmix import CondmixError
from condmix.clip.shifted_diffusion import load_prior
from condmix.data.captions import blank
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.files.atomic import replacing
from condmix.files.pictures import read_picture
from condmix.sampling.sample import Condition, Sampling, grid, sample_batches
from condmix.settings.load import VARIANTS, Params, plugin, plugins, unknown

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
MOST_PIXELS = 16_383  # of a side, which is WebP's limit
MOST_GUIDANCE = 1000


def main(
    params: Params,
    variant: str,
    captions: Sequence[str] = (),
    image: Path | None = None,
    prompt: str | None = None,
    prior: bool = False,
    class_name: str | None = None,
    negatives: Sequence[str] = (),
    guidance: float | None = None,
    composed: bool = False,
    weights: Sequence[str] = (),
    interval: tuple[float, float] | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    n: int = 16,
    scale: int = 8,
    out: Path = Path("grid.png"),
) -> None:
    """Draw n pictures under one condition and write them to `out` as one picture (.png, .jpg, .jpeg or .webp).

    What is not given is absent: its source's learned null stands in. With nothing given the pictures are
    unconditional. `prompt` puts words in the image's place (a model trained on images, asked with words); with
    `prior` each picture has a vector of its own there, which the trained prior makes of the words.
    `negatives` are captions to be steered away from; `weights` are written NAME=NUMBER, one per perspective.
    What the settings of guidance mean is said in condmix.sampling.sample.Sampling.
    CondmixError for an option that can't be meant so, before anything is drawn.
    """
    if variant not in VARIANTS:
        raise CondmixError(unknown("variant", variant, list(VARIANTS), "--variant"))
    if sampler is not None and sampler not in plugins("samplers"):
        raise CondmixError(unknown("sampler", sampler, plugins("samplers"), "--sampler"))
    if prior and prompt is None:
        raise CondmixError("--prior turns the words of --prompt into pictures' vectors; give a --prompt")
    for option, texts in {"--caption": captions, "--prompt": [prompt], "--negative": negatives}.items():
        _check_words(option, texts)
    _check_guidance(guidance, interval)
    if seed + n > 2**32:
        raise CondmixError(f"--seed {seed} with {n} pictures: their seeds are seed + 0 ... seed + n - 1, below 2^32")
    model, card = load_model(params.paths.model(variant))
    _check_sheet(n, model.architecture.image_size, scale)
    times, steps = card["diffusion.steps"], steps or params.evaluate.steps
    if steps > times:
        raise CondmixError(f"--steps {steps}: {variant} was trained with {times} times; give 1 to {times}")
    given = _given(model.architecture.perspectives, captions, image, prompt, class_name, variant)
    unwanted = _negative(model.architecture.perspectives, negatives, variant)
    weight_of = _weights(weights, model.architecture.perspectives, given)

    _check_out(out)

    model.to("cuda" if torch.cuda.is_available() else "cpu")
    sampling = Sampling(
        Schedule(card["diffusion.schedule"], times),
        card["diffusion.prediction"],
        sampler or params.evaluate.sampler,
        steps,
        params.guidance if guidance is None else guidance,
        weight_of or None,
        composed,
        interval,
    )

    def repeated(content: dict[str, Any]) -> Condition:
        vectors, mask = encode(content, card, params.paths.clip)
        return {name: row.expand(n, -1) for name, row in vectors.items()}, mask.expand(n, -1)

    vectors, mask = repeated(given)
    if prior:
        trained = load_prior(params.paths.prior, card["encoder"])
        vectors["image"] = trained.sample(vectors["image"], range(seed, seed + n))
    batches = sample_batches(
        model,
        sampling,
        vectors,
        mask,
        range(seed, seed + n),
        params.evaluate.batch_size,
        repeated(unwanted) if unwanted else None,
    )
    pictures = torch.cat([batch.cpu() for batch in batches])
    with replacing(out) as part:
        Image.fromarray(grid(pictures.numpy(), scale=scale)).save(part, FORMATS[out.suffix.lower()])


def _check_words(option: str, texts: Sequence[str | None]) -> None:
    """Words that CLIP can read: training never sees an empty caption."""
    for text in texts:
        if text is not None and blank(text):
            raise CondmixError(f"{option} was given no words; leave it out for an unconditional picture")
        if text is not None and not _is_unicode(text):
            raise CondmixError(f"{option} {text!r} is not valid text; give it in the terminal's encoding")


def _is_unicode(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:  # bytes of the command line that are no text
        return False


def _check_guidance(guidance: float | None, interval: tuple[float, float] | None) -> None:
    if guidance is not None and not abs(guidance) <= MOST_GUIDANCE:
        raise CondmixError(f"--guidance {guidance}: give a number from {-MOST_GUIDANCE} to {MOST_GUIDANCE}")
    if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
        raise CondmixError(
            f"--interval {interval[0]:g} {interval[1]:g}: give two shares of the diffusion time, 0 <= low < high <= 1"
        )


def _check_sheet(n: int, size: int, scale: int) -> None:
    """The sheet of n pictures must be one that its formats can hold."""
    side = (math.ceil(math.sqrt(n)) * (size + 1) + 1) * scale
    if side > MOST_PIXELS:
        raise CondmixError(
            f"--n {n} pictures of {size} pixels at --scale {scale} make a sheet {side:,} pixels wide, more than "
            f"{MOST_PIXELS:,}; lower --scale or --n"
        )


def _check_out(out: Path) -> None:
    """Make the folder, and see that the file can be written there, in a format that its name says."""
    if out.suffix.lower() not in FORMATS:
        raise CondmixError(f"--out {out}: the name must end in {', '.join(FORMATS)}, as in grid.png")
    try:
        if out.exists() and not out.is_file():
            raise CondmixError(f"--out {out} is there already and is not a file; give another name")
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")  # as it is written to first
        part.touch()
        part.unlink()
    except OSError as error:
        raise CondmixError(f"--out {out} can't be written ({error.strerror}); give another name") from None


def encode(given: dict[str, Any], card: dict, clip: Path) -> tuple[dict[str, Tensor], Tensor]:
    """One row of vectors {perspective: (1, d_p)} and the mask (1, P); absent perspectives are zeros, masked."""
    widths = card["architecture"]["perspectives"]
    vectors = {name: torch.zeros(1, width) for name, width in widths.items()}
    for name, (kind, content) in given.items():
        encoder = plugin("encoders", kind).open(clip, card["class_names"])
        if encoder.reads == "labels":
            content = _class_number(content, card["class_names"])
        elif encoder.id != card["encoder"]:
            raise CondmixError(
                f"{card['variant']} was trained on vectors of {card['encoder']}, but {clip} holds {encoder.id}: "
                "run dvc repro, or check out the CLIP that belongs to the model"
            )
        vectors[name] = encoder.encode([content])
    return vectors, torch.tensor([[name in given for name in widths]])


def _class_number(name: str, class_names: list[str]) -> int:
    if name not in class_names:
        raise CondmixError(unknown("class", name, class_names))
    return class_names.index(name)


def _given(
    perspectives: Collection[str],
    captions: Sequence[str],
    image: Path | None,
    prompt: str | None,
    class_name: str | None,
    variant: str,
) -> dict[str, tuple[str, Any]]:
    """{perspective: (encoder, content)} of what was given; refuses what this variant does not see."""
    if image is not None and prompt is not None:
        raise CondmixError("--image and --prompt stand in the same place; give one of them")
    given: dict[str, tuple[str, Any]] = {}
    slots = _caption_slots(perspectives)
    if len(captions) > len(slots):
        raise CondmixError(
            f"{len(captions)} captions were given, but {variant} sees {len(slots)} "
            f"(its perspectives are {', '.join(perspectives)})"
        )
    for name, caption in zip(slots, captions, strict=False):
        given[name] = ("clip_text", caption)
    for name, encoder, content, option in (
        ("image", "clip_image", image and read_picture(image), "--image"),
        ("image", "clip_text", prompt, "--prompt"),
        ("class", "class_label", class_name, "--class"),
    ):
        if content is None:
            continue
        if name not in perspectives:
            seen = ", ".join(perspectives)
            raise CondmixError(f"{option}: {variant} does not see {name}; its perspectives are {seen}")
        given[name] = (encoder, content)
    return given


def _negative(perspectives: Collection[str], captions: Sequence[str], variant: str) -> dict[str, tuple[str, str]]:
    """{perspective: (encoder, caption)}: in the slots for captions or, where there are none, in the image's place."""
    places = _caption_slots(perspectives) or [name for name in perspectives if name == "image"]
    if len(captions) > len(places):
        raise CondmixError(
            f"--negative was given {len(captions)} times, but {variant} has room for {len(places)} of them "
            f"(its perspectives are {', '.join(perspectives)})"
        )
    return {name: ("clip_text", caption) for name, caption in zip(places, captions, strict=False)}


def _caption_slots(perspectives: Collection[str]) -> list[str]:
    """The perspectives that captions fill: caption_k by number, then generated_k, then the others in order."""
    kinds = ("caption", "generated")
    slots = [name for name in perspectives if name.startswith(("caption_", "generated_", "mixed_any", "pseudo"))]
    numbered = [name for name in slots if name.rpartition("_")[0] in kinds and name.rpartition("_")[2].isdecimal()]
    numbered.sort(key=lambda name: (name.partition("_")[0], int(name.rpartition("_")[2])))
    return numbered + [name for name in slots if name not in numbered]


def _weights(texts: Sequence[str], perspectives: Collection[str], given: Mapping[str, Any]) -> dict[str, float]:
    """{perspective: weight} from NAME=NUMBER; refuses a weight that has nothing to weigh."""
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not abs(weight) <= MOST_GUIDANCE:
            raise CondmixError(
                f"--weight takes NAME=NUMBER, as in {next(iter(perspectives))}=2, up to {MOST_GUIDANCE}; "
                f'"{text}" was given'
            )
        if name not in perspectives:
            raise CondmixError(unknown("perspective", name, list(perspectives), "--weight"))
        if name not in given:
            raise CondmixError(f"--weight {text}: no {name} was given, so there is nothing to weigh")
        if name in weights:
            raise CondmixError(f"--weight was given twice for {name}; give it one weight")
        weights[name] = weight
    return weights
