"""What a model can be asked to draw: the keywords of a `LoadedModel` call, their types, and what no model takes."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ConfigDict, SkipValidation, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.data.captions import blank
from condmix.files.pictures import read_picture, to_rgb
from condmix.samplers import SPACINGS
from condmix.settings.load import plugins, unknown

MOST_GUIDANCE = 1000
STRENGTH = 0.6  # of a start picture that comes without one
PictureLike = Image.Image | np.ndarray | str | os.PathLike[str]


class Request(TypedDict, total=False):
    """The keywords of a `LoadedModel` call. A source that is left out is absent: its learned null stands in.

    With no source at all the pictures are unconditional.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)  # type: ignore[misc]

    captions: Sequence[str]  # for caption_1, caption_2, ... in order; joined or averaged where the model's are
    image: SkipValidation[PictureLike | None]  # seen through CLIP: a PIL picture, (H, W, 3) uint8 RGB, or a file
    prompt: str | None  # words in the image's place: their CLIP text vector instead of a picture's
    prior: bool  # the trained prior turns the prompt's vector into one picture's vector per picture
    class_name: str | None
    without: Sequence[str]  # perspectives to leave out of what was given, such as caption_1
    to: Sequence[str]  # captions where those of `captions` (or the image) end: picture i is i / (n - 1) of the way
    negatives: Sequence[str]  # captions to steer away from, in the slots of `captions`
    guidance: float | None  # s in uncond + s (cond - uncond); 1 is the plain conditional model; None: the project's
    composed: bool  # guide by each source alone, with s shared among those given
    weights: Mapping[str, float]  # {perspective: its own scale}; implies `composed`
    interval: tuple[float, float] | None  # guide at these shares t / T of the diffusion time only; None: the project's
    threshold: float | None  # share of dynamic thresholding, 0: clip to the range of pictures; None: the project's
    sampler: str | None  # ddpm, ddim, dpmpp_2m, ...; None: the project's
    spacing: str | None  # of the times that the sampler visits: uniform or karras; None: the project's
    steps: int | None  # over the whole diffusion time, of which a start picture leaves a part; None: the project's
    start: SkipValidation[PictureLike | None]  # drawn over: its central square, noised to time `strength`
    strength: float | None  # share t / T of the diffusion time at which `start` begins, 1: nothing of it is left
    n: int  # how many pictures; 1 where it is left out
    seed: int  # picture i is drawn from seed + i, all of `to` from seed; 0 where it is left out


REQUEST = TypeAdapter(Request)


def typed(request: Request) -> Request:
    """The request with values of the types that `Request` says; CondmixError where one is of another, or unknown."""
    try:
        return REQUEST.validate_python(request)
    except ValidationError as error:
        problem = error.errors()[0]
        keyword, given = ".".join(map(str, problem["loc"])), reprlib.repr(problem["input"])
        if problem["type"] == "extra_forbidden":
            raise CondmixError(unknown("keyword", keyword, list(Request.__annotations__))) from None
        said = problem["msg"][0].lower() + problem["msg"][1:]
        raise CondmixError(f"{keyword} is {given}; {said}") from None


def check_request(request: Request) -> None:
    """CondmixError for what no model takes; `request` is typed, and has every setting of the sampler."""
    check_seeds(request["n"], request["seed"])
    if request.get("to") and request["n"] < 2:
        raise CondmixError(f"n {request['n']}: from captions to others it takes at least 2 pictures, one at each end")
    _check_words(request)
    _check_settings(request)
    if request.get("image") is not None and request.get("prompt") is not None:
        raise CondmixError("image and prompt stand in the same place; give one of them")
    if request.get("prior") and request.get("prompt") is None:
        raise CondmixError("prior turns the words of a prompt into pictures' vectors; give a prompt")
    if request.get("prior") and request.get("to"):
        raise CondmixError("to leads from vector to vector, and a prior draws other ones for each picture; give one")
    if request.get("start") is None and request.get("strength") is not None:
        raise CondmixError("strength says how much of a start picture is redrawn; give a start picture")


def check_weights(weights: Mapping[str, float], perspectives: Collection[str], given: Collection[str]) -> None:
    """CondmixError for a weight that has nothing to weigh."""
    for name, weight in weights.items():
        if name not in perspectives:
            raise CondmixError(unknown("perspective", name, list(perspectives), "weights"))
        if not abs(weight) <= MOST_GUIDANCE:
            raise CondmixError(f"weights: {name}={weight:g}: give a number from {-MOST_GUIDANCE} to {MOST_GUIDANCE}")
        if name not in given:
            raise CondmixError(f"weights: no {name} was given, so there is nothing to weigh")


def pixels_of(image: PictureLike, keyword: str = "image") -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if isinstance(image, Image.Image):
        try:
            return np.asarray(to_rgb(image))
        except Exception as error:  # what Pillow raises where the file behind the picture is damaged
            raise CondmixError(f"{keyword} does not decode ({error or type(error).__name__})") from error
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image))
    if not isinstance(image, np.ndarray):
        raise CondmixError(f"{keyword} is of type {type(image).__name__}: give a PIL picture, an array or a file")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise CondmixError(f"{keyword} has shape {image.shape} and type {image.dtype}: give (H, W, 3) uint8 RGB")
    return image


def check_seeds(n: int, seed: int) -> None:
    """CondmixError where the seeds of n pictures are not all from 0 and below 2^32."""
    if n < 1 or seed < 0 or seed + n > 2**32:
        raise CondmixError(f"seed {seed} and n {n}: pictures use seed + 0 ... seed + n - 1, from 0 and below 2^32")


def _check_words(request: Request) -> None:
    """Words that CLIP can read: training never sees an empty caption."""
    prompt = request.get("prompt")
    texts: dict[str, Sequence[str]] = {
        "a caption": request.get("captions", ()),
        "a negative": request.get("negatives", ()),
        "a caption of to": request.get("to", ()),
        "the prompt": () if prompt is None else (prompt,),
    }
    for what, several in texts.items():
        for text in several:
            if blank(text):
                raise CondmixError(f"{what} has no words; leave it out for an unconditional picture")
            try:
                text.encode()
            except UnicodeEncodeError:  # bytes of the command line that are no text
                raise CondmixError(f"{what}, {text!r}, is not valid text; give it in the terminal's encoding") from None


def _check_settings(request: Any) -> None:
    sampler, guidance, interval = request["sampler"], request["guidance"], request["interval"]
    threshold, strength = request["threshold"], request.get("strength")
    if sampler not in plugins("samplers"):
        raise CondmixError(unknown("sampler", sampler, plugins("samplers")))
    if request["spacing"] not in SPACINGS:
        raise CondmixError(unknown("spacing", request["spacing"], list(SPACINGS)))
    if not abs(guidance) <= MOST_GUIDANCE:
        raise CondmixError(f"guidance {guidance}: give a number from {-MOST_GUIDANCE} to {MOST_GUIDANCE}")
    if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
        raise CondmixError(
            f"interval {interval[0]:g} {interval[1]:g}: give two shares of the diffusion time, 0 <= low < high <= 1"
        )
    if not 0 <= threshold <= 1:
        raise CondmixError(f"threshold {threshold:g}: give a share of a picture's values, from 0 to 1")
    if strength is not None and not 0 < strength <= 1:
        raise CondmixError(
            f"strength {strength:g}: give a share of the diffusion time above 0, which would be the start picture as "
            "it is, and up to 1, at which nothing of it is left"
        )
