"""What the pages share: their template engine, pictures as data URIs, facts as text."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from condmix.metrics import significant

TEMPLATES = Path(__file__).parents[1] / "reporting/templates"


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A page from one of templates/, which may name nothing that `content` has not.

    Its only script is sort.js: the page's policy names that by its hash, so that no text of others can run.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(content, script=Markup(script), script_sha256=sha256)


def strip(pictures: Sequence[np.ndarray] | np.ndarray) -> str:
    """Pictures (S, S, 3) uint8 side by side, a white line between two, as one PNG data URI."""
    gap = np.full((pictures[0].shape[0], 1, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return data_uri(np.concatenate(parts[:-1], axis=1))


def data_uri(pixels: np.ndarray) -> str:
    """(S, S, 3) uint8 as a PNG data URI, pixel for pixel; the page enlarges it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def fact(value: Any) -> str:
    """A value as text: numbers in digits that people read, lists with commas."""
    if isinstance(value, float):
        return significant(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return ", ".join(map(fact, value)) or "–" if isinstance(value, list) else str(value)
