"""What the pages share: their template engine, pictures as data URIs, facts as text."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from condmix.metrics import significant


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """A page from one of templates/, which may name nothing that `content` has not."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1] / "reporting/templates"),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(content)


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
    return ", ".join(map(fact, value)) if isinstance(value, list) else str(value)
