"""Pictures as HTML: each is a link that downloads it as the PNG that says how it was made."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from condmix.sampling.record import Record, described, png_bytes


class Shown(NamedTuple):
    """One picture on the page."""

    png: bytes
    caption: str
    name: str  # of the file that it is downloaded as
    about: str  # what a screen reader says


Session = list[tuple[str, list[Shown]]]  # what was asked for, and its pictures; the newest first


def finished(pixels: np.ndarray, record: Record, caption: str) -> Shown:
    """A picture (S, S, 3) that is done."""
    request = record["request"]
    seed = request["seed"] + (record["picture"] or 0)
    name = f"{record['variant']}-{seed}.png"
    return Shown(png_bytes(pixels, record), caption, name, f"{described(request)}, seed {seed}")


def asked(model: str, request: dict[str, Any]) -> str:
    """One line on what a drawing was asked for."""
    weights = ", ".join(f"{spoken(name)} × {weight:g}" for name, weight in request.get("weights", {}).items())
    steered = f"weights {weights}" if weights else f"guidance {request['guidance']:g}"
    return f"{model}: {described(request)}, {steered}, {request['steps']} steps"


def spoken(perspective: str) -> str:
    """A perspective by the name of its field on the page."""
    return "picture" if perspective == "image" else perspective.replace("_", " ")


def previews(pictures: np.ndarray) -> str:
    """Pictures (B, S, S, 3) that are not done yet; a blank where the caption will stand, so that nothing moves."""
    figure = "<figure>{}<figcaption>&nbsp;</figcaption></figure>"
    return _grid([figure.format(_image(_png(pixels), "being drawn")) for pixels in pictures])


def html(pictures: Sequence[Shown]) -> str:
    """Pictures in rows of four."""
    return _grid(
        [
            f'<figure><a href="{_uri(shown.png)}" download="{escape(shown.name)}" title="Download as PNG">'
            f"{_image(shown.png, shown.about)}</a><figcaption>{escape(shown.caption)}</figcaption></figure>"
            for shown in pictures
        ]
    )


def session(drawings: Session) -> str:
    """Every drawing's pictures below what was asked for."""
    parts = [f'<p class="asked">{escape(what)}</p>{html(pictures)}' for what, pictures in drawings]
    return f"<h3>This session</h3>{''.join(parts)}"


def _grid(figures: Sequence[str]) -> str:
    return f'<div class="pictures">{"".join(figures)}</div>'


def _image(png: bytes, about: str) -> str:
    return f'<img src="{_uri(png)}" alt="{escape(about)}">'


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
