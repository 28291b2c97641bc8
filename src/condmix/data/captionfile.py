"""Reads what the stages `captions` and `generate_captions` wrote: <split>.json, aligned with the data set's ids."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from typing_extensions import TypedDict

from condmix.files.artifacts import damaged, read_json


class Captions(TypedDict):
    """What is read of <split>.json."""

    captions: list[list[str]]


class Generated(Captions):
    """What is read of a <split>.json of generated captions."""

    claims: list[list[list[int]]] | None


def read_captions(folder: Path, split: str) -> list[list[str]]:
    """Every image's captions, in the order of the ids; an image may have none."""
    return read_json(folder / f"{split}.json", Captions, "dvc repro captions")["captions"]


def read_generated(folder: Path, split: str) -> list[list[str]]:
    """Every image's generated captions; it may have none."""
    return _generated(folder, split)["captions"]


def read_claims(folder: Path, split: str) -> list[list[list[int]]] | None:
    """The value that each generated caption names of each attribute (A,), -1 where none; None where unknown."""
    return _generated(folder, split)["claims"]


def tidy(texts: Iterable[str]) -> list[str]:
    """Runs of white space become one space; empty captions and exact repetitions are dropped."""
    normal = (" ".join(text.split()) for text in texts)
    return list(dict.fromkeys(text for text in normal if not blank(text)))


def blank(text: str) -> bool:
    """Whether a text holds nothing but white space and invisible characters such as U+200B (zero-width space)."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def _generated(folder: Path, split: str) -> Generated:
    path, remedy = folder / f"{split}.json", "dvc repro generate_captions"
    content = read_json(path, Generated, remedy)
    captions, claims = content["captions"], content["claims"]
    if claims is not None and list(map(len, claims)) != list(map(len, captions)):
        raise damaged(path, "its claims are not one for each caption", remedy)
    return content
