"""How a picture was made, as a text in its PNG file: written with it, read again by `condmix generate --like`.

The keyword is "condmix", the text JSON (`Record`). "Description" and "Software", which the PNG standard names, say in
words what was asked for. A picture that was shown to the model is named by path and by the sha256 of its pixels; the
file does not hold it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from condmix import CondmixError, __version__
from condmix.files.atomic import replacing
from condmix.files.pictures import read_file
from condmix.pipeline import tree_sha256
from condmix.sampling.drawing import Drawing
from condmix.sampling.loaded import LoadedModel
from condmix.sampling.request import PictureLike, Request, pixels_of, typed

KEYWORD = "condmix"
PICTURES = ("image", "start")  # the keywords of `Request` whose values are pictures
REPLACED = {  # what is given -> what of a record it stands in the place of, besides its own keyword
    "image": ("prompt", "prior"),
    "prompt": ("image",),
    "prior": ("to",),
    "to": ("prior",),
    "guidance": ("weights",),  # of which each is a source's own guidance
}


class SeenPicture(TypedDict):
    """A picture that the model was given."""

    path: str | None  # as it was given; None where it was no file
    sha256: str  # of its pixels, whatever the file's format


class Record(TypedDict):
    """What it takes to draw a picture again."""

    variant: str
    model: str  # sha256 of the weights
    request: dict[str, Any]  # `Request` with every default filled in; pictures as `SeenPicture`
    prior: str | None  # sha256 of the prior, where one was used
    last_time: Annotated[float, Field(ge=0, le=1)] | None  # of the sampler's times (condmix.samplers.times)
    batch_size: Annotated[int, Field(ge=1)]  # pictures drawn at once: others are rounded differently
    picture: Annotated[int, Field(ge=0)] | None  # which of the n pictures the file holds; None: all of them, as a sheet
    scale: Annotated[int, Field(ge=1)]  # pixels of the file per pixel of the model
    condmix: str
    torch: str


_RECORD = TypeAdapter(Record)
_SEEN = TypeAdapter(SeenPicture)


def record_of(model: LoadedModel, drawing: Drawing, scale: int = 1, picture: int | None = None) -> Record:
    """How a picture of this drawing was made."""
    request: dict[str, Any] = {**drawing.request}
    for keyword in PICTURES:
        if keyword in request:
            request[keyword] = _seen(request[keyword])
    return Record(
        variant=model.variant,
        model=model.sha256,
        request=request,
        prior=_prior_sha256(model, drawing),
        last_time=drawing.sampling.last_time,
        batch_size=drawing.batch_size,
        picture=picture,
        scale=scale,
        condmix=__version__,
        torch=torch.__version__,
    )


def save_png(path: Path, pixels: np.ndarray, record: Record) -> None:
    """Write (H, W, 3) uint8 as a PNG that says how it was made."""
    with replacing(path) as part:
        part.write_bytes(png_bytes(pixels, record))


def png_bytes(pixels: np.ndarray, record: Record) -> bytes:
    """The same as a file's content."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", f"condmix {__version__}")
    texts.add_text("Description", described(record["request"]).encode("ascii", "backslashreplace").decode())
    texts.add_text(KEYWORD, json.dumps(record))
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", pnginfo=texts)
    return content.getvalue()


def described(request: dict[str, Any]) -> str:
    """In words what was asked for."""
    words = [*request.get("captions", ()), request.get("prompt"), request.get("class_name")]
    parts = [f'"{word}"' for word in words if word] + ["a picture"] * (request.get("image") is not None)
    return " + ".join(parts) or "unconditional"


def read_record(path: Path) -> Record:
    """How a PNG file was made; CondmixError where it does not say."""
    payload = read_file(path)
    try:
        with Image.open(io.BytesIO(payload), formats=["PNG"]) as picture:
            text = picture.info.get(KEYWORD)
    except (OSError, SyntaxError, ValueError, zlib.error, Image.DecompressionBombError) as error:
        raise CondmixError(
            f"{path} is no whole PNG file: give one that condmix drew; files of other formats hold no such record"
        ) from error
    if text is None:
        raise CondmixError(
            f'{path} does not say how it was made: it has no text "{KEYWORD}", which `condmix generate` and `condmix '
            "play` write into PNG files, and which some programs drop when they save a picture again"
        )
    try:
        return _RECORD.validate_json(text, strict=True)
    except ValidationError as error:
        raise CondmixError(f'{path}: its text "{KEYWORD}" is damaged ({error.errors()[0]["msg"]})') from None


def alone(record: Record) -> Record:
    """The record of a file that holds one of several pictures, as if it had been drawn alone.

    Those on the way from captions to others stay what they are: without the others there is no way.
    """
    picture, request = record["picture"], typed(record["request"])  # type: ignore[arg-type]
    if picture is None or request.get("to"):
        return record
    return {**record, "request": {**record["request"], "n": 1, "seed": request.get("seed", 0) + picture}, "picture": 0}


def request_of(record: Record, given: Request, model: LoadedModel) -> Request:
    """The request of a record, with what was given besides in its place, and the pictures that were shown read again.

    What was recorded gives way to what it cannot stand beside: a picture to the prompt in its place, and what says how
    to weigh or leave out a source to another source there. CondmixError where a picture that was shown is not there any
    more, or is another.
    """
    recorded = {name: value for name, value in record["request"].items() if name not in given}
    for keyword, others in REPLACED.items():
        if keyword in given:
            recorded = {name: value for name, value in recorded.items() if name not in others}
    request: dict[str, Any] = {**recorded, **given}
    for keyword in PICTURES:
        if keyword in request and keyword not in given:
            request[keyword] = _again(keyword, request[keyword])
    asked = typed(request)  # type: ignore[arg-type]  # which it is now
    there, new = model.sources(asked), model.sources(given)
    if "without" in recorded:
        asked["without"] = [name for name in asked["without"] if name in there - new]
    if "weights" in recorded:
        asked["weights"] = {name: weight for name, weight in asked["weights"].items() if name in there}
    return asked


def check_model(record: Record, model: LoadedModel, path: Path) -> None:
    """CondmixError unless this is the model that drew the picture."""
    if record["model"] != model.sha256:
        raise CondmixError(
            f"{path} was drawn by {record['variant']} with weights of sha256 {record['model'][:16]}..., but those in "
            f"{model.folder} have {model.sha256[:16]}...: check out the model that drew it (git checkout, dvc checkout)"
        )


def check_prior(record: Record, model: LoadedModel, drawing: Drawing) -> None:
    """CondmixError unless the prior that was used, if one was, is the one that lies here."""
    here = _prior_sha256(model, drawing)
    if record["prior"] is not None and here is not None and record["prior"] != here:
        raise CondmixError(
            f"the picture was drawn with a prior of sha256 {record['prior'][:16]}..., but {model.prior} has "
            f"{here[:16]}...: check out the one that it was drawn with (dvc checkout)"
        )


def _prior_sha256(model: LoadedModel, drawing: Drawing) -> str | None:
    return None if drawing.prior is None else tree_sha256(model.prior)


def _seen(picture: PictureLike) -> SeenPicture:
    path = os.fspath(picture) if isinstance(picture, str | os.PathLike) else None
    return SeenPicture(path=path, sha256=_pixels_sha256(pixels_of(picture)))


def _again(keyword: str, value: Any) -> Path:
    try:
        seen = _SEEN.validate_python(value, strict=True)
    except ValidationError:
        raise CondmixError(f"the record's {keyword} is damaged; give the picture with --{keyword}") from None
    path = seen["path"]
    if path is None or not Path(path).is_file():
        where = "from a picture that was no file" if path is None else f"from {path}, which is not there"
        raise CondmixError(f"it was made {where}: give that picture with --{keyword}")
    if _pixels_sha256(pixels_of(path, keyword)) != seen["sha256"]:
        raise CondmixError(f"it was made from another picture than {path} is now: give that one with --{keyword}")
    return Path(path)


def _pixels_sha256(pixels: np.ndarray) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
