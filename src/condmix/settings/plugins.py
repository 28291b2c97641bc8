"""Plug-ins, found by file name: condmix/<kind>/<name>.py defines one under its own name."""

from __future__ import annotations

import difflib
import importlib
import json
from pathlib import Path
from typing import Any

from condmix import CondmixError


def plugins(kind: str) -> list[str]:
    """Names of the plug-ins of a kind: the files of the package condmix/<kind>/."""
    folder = Path(__file__).parents[1] / kind
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def plugin(kind: str, name: str) -> Any:
    """What the file condmix/<kind>/<name>.py defines under its own name.

    A class in CamelCase (`fusions/cross_attention.py` -> `CrossAttention`) or else a function
    (`samplers/ddim.py` -> `ddim`).
    """
    if name not in plugins(kind):
        raise CondmixError(unknown(kind.removesuffix("s"), name, plugins(kind)))
    module = importlib.import_module(f"condmix.{kind}.{name}")
    camel = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module, camel, None) or getattr(module, name)


def unknown(what: str, given: object, known: list[str], where: str = "") -> str:
    """The sentence for a name that does not exist, with the nearest name that does."""
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    prefix = f"{where}: " if where else ""
    shown = json.dumps(str(given)[:100], ensure_ascii=False)  # quoted, with line ends and escape sequences spelt out
    return f"{prefix}no {what} {shown}; found: {', '.join(known) or 'none'}{hint}"
