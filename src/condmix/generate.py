"""Captions, a picture, a class, or any subset of them -> new pictures from a trained variant."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from condmix import CondmixError
from condmix.config import Params, plugin, plugins, unknown
from condmix.diffusion import Schedule
from condmix.model import load_model
from condmix.sample import Condition, Sampling, grid, sample_batches
from condmix.shifted_diffusion import load_prior


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
    """Draw n pictures under one condition and write them to `out` as one PNG.

    What is not given is absent: its source's learned null stands in. With nothing given the pictures are
    unconditional. `prompt` puts words in the image's place (a model trained on images, asked with words); with
    `prior` each picture has a vector of its own there, which the trained prior makes of the words.
    `negatives` are captions to be steered away from; `weights` are written NAME=NUMBER, one per perspective.
    What the settings of guidance mean is said in condmix.sample.Sampling.
    """
    if sampler is not None and sampler not in plugins("samplers"):
        raise CondmixError(unknown("sampler", sampler, plugins("samplers")))
    model, card = load_model(params.paths.model(variant))
    given = _given(model.architecture.perspectives, captions, image, prompt, class_name, variant)
    unwanted = _negative(model.architecture.perspectives, negatives, variant)
    weight_of = _weights(weights, model.architecture.perspectives, given)

    model.to("cuda" if torch.cuda.is_available() else "cpu")
    sampling = Sampling(
        Schedule(card["diffusion.schedule"], card["diffusion.steps"]),
        card["diffusion.prediction"],
        sampler or params.evaluate.sampler,
        steps or params.evaluate.steps,
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
        if prompt is None:
            raise CondmixError("--prior turns the words of --prompt into pictures' vectors; give a --prompt")
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
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(pictures.numpy(), scale=scale)).save(out)


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
        ("image", "clip_image", image and _read(image), "--image"),
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
        if not math.isfinite(weight):
            raise CondmixError(f'--weight takes NAME=NUMBER, as in {next(iter(perspectives))}=2; "{text}" was given')
        if name in perspectives and name not in given:
            raise CondmixError(f"--weight {text}: no {name} was given, so there is nothing to weigh")
        if name in weights:
            raise CondmixError(f"--weight was given twice for {name}; give it one weight")
        weights[name] = weight
    return weights


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise CondmixError(f"no picture {path}") from None
    except (UnidentifiedImageError, OSError) as error:
        raise CondmixError(f"{path} is not a picture that can be read ({error})") from None
