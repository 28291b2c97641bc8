"""Reads what the stages `captions` and `generate_captions` wrote: <split>.json, aligned with the data set's ids."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from condmix import CondmixError


def read_captions(folder: Path, split: str) -> list[list[str]]:
    """Every image's captions, in the order of the ids; an image may have none."""
    return _read(folder / f"{split}.json", "captions", "captions")


def read_generated(folder: Path, split: str) -> list[list[str]]:
    """Every image's generated captions; it may have none."""
    return _read(folder / f"{split}.json", "captions", "generate_captions")


def read_claims(folder: Path, split: str) -> list[list[list[int]]] | None:
    """The value that each generated caption names of each attribute (A,), -1 where none; None where unknown."""
    return _read(folder / f"{split}.json", "claims", "generate_captions")


def tidy(texts: Iterable[str]) -> list[str]:
    """Runs of white space become one space; empty captions and exact repetitions are dropped."""
    normal = (" ".join(text.split()) for text in texts)
    return list(dict.fromkeys(text for text in normal if text))


def _read(path: Path, key: str, stage: str) -> list:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except FileNotFoundError:
        raise CondmixError(f"no {path}: make the captions first (dvc repro {stage})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CondmixError(f"{path} is damaged ({error!r}): make it again (dvc repro {stage})") from error
