"""Captions, a picture, a class, or any subset of them -> new pictures from a trained variant."""

from __future__ import annotations

from collections.abc import Sequence
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
from condmix.sample import Sampling, grid, sample_batches


def main(
    params: Params,
    variant: str,
    captions: Sequence[str] = (),
    image: Path | None = None,
    prompt: str | None = None,
    class_name: str | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    n: int = 16,
    scale: int = 8,
    out: Path = Path("grid.png"),
) -> None:
    """Draw n pictures under one condition and write them to `out` as one PNG.

    What is not given is absent: its source's learned null stands in. With nothing given the pictures are
    unconditional. `prompt` puts words in the image's place (a model trained on images, asked with words).
    """
    if sampler is not None and sampler not in plugins("samplers"):
        raise CondmixError(unknown("sampler", sampler, plugins("samplers")))
    model, card = load_model(params.paths.model(variant))
    given = _given(model.architecture.perspectives, captions, image, prompt, class_name, variant)
    vectors, mask = encode(given, card, params.paths.clip)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    sampling = Sampling(
        Schedule(card["diffusion.schedule"], card["diffusion.steps"]),
        card["diffusion.prediction"],
        sampler or params.evaluate.sampler,
        steps or params.evaluate.steps,
        params.guidance if guidance is None else guidance,
    )
    repeated = {name: vector.expand(n, -1).to(device) for name, vector in vectors.items()}
    batches = sample_batches(
        model, sampling, repeated, mask.expand(n, -1).to(device), range(seed, seed + n), params.evaluate.batch_size
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
    perspectives: Sequence[str],
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
    slots = sorted(
        (name for name in perspectives if name.startswith("caption_")), key=lambda name: int(name.partition("_")[2])
    )
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


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise CondmixError(f"no picture {path}") from None
    except (UnidentifiedImageError, OSError) as error:
        raise CondmixError(f"{path} is not a picture that can be read ({error})") from None
