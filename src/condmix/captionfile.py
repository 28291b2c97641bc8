"""Reads what the stage `captions` wrote: captions/<split>.json, aligned with the data set's ids."""

from __future__ import annotations

import json
from pathlib import Path

from condmix import CondmixError


def read_captions(folder: Path, split: str) -> list[list[str]]:
    """Every image's captions, in the order of the ids; an image may have none."""
    path = folder / f"{split}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["captions"]
    except FileNotFoundError:
        raise CondmixError(f"no {path}: make the captions first (dvc repro captions)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CondmixError(f"{path} is damaged ({error!r}): make it again (dvc repro captions)") from error
