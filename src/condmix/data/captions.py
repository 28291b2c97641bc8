"""Captions of every picture: out of a data set, into <split>.json (stages captions, generate_captions) and back.

The files are aligned with the data set's ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.data.requirements import Holds
from condmix.datasets import Dataset
from condmix.files.artifacts import damaged, read_json
from condmix.files.atomic import write_text


class Captions(TypedDict):
    """What is read of <split>.json."""

    captions: list[list[str]]


class Generated(Captions):
    """What is read of a <split>.json of generated captions."""

    claims: list[list[list[int]]] | None


def read_captions(folder: Path, split: str) -> list[list[str]]:
    """Every image's captions, in the order of the ids; an image may have none."""
    content: Captions = read_json(folder / f"{split}.json", Captions, "dvc repro captions")
    return content["captions"]


def read_generated(folder: Path, split: str) -> list[list[str]]:
    """Every image's generated captions; it may have none."""
    return _generated(folder, split)["captions"]


def read_claims(folder: Path, split: str) -> list[list[list[int]]] | None:
    """The value that each generated caption names of each attribute (A,), -1 where none; None where unknown."""
    return _generated(folder, split)["claims"]


def tidy(texts: Iterable[str]) -> list[str]:
    """Runs of white space become one space; empty captions and exact repetitions are dropped."""
    return list(dict.fromkeys(_spaced(texts)))


def _spaced(texts: Iterable[str]) -> list[str]:
    normal = (" ".join(text.split()) for text in texts)
    return [text for text in normal if not blank(text)]


def blank(text: str) -> bool:
    """Whether a text holds nothing but white space and invisible characters such as U+200B (zero-width space)."""
    return not any(character.isprintable() and not character.isspace() for character in text)


def one_text(texts: Sequence[str]) -> str:
    """Several captions as one text: sentences, separated by a space; a full stop ends those that nothing ends yet."""
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in texts)


def _generated(folder: Path, split: str) -> Generated:
    path, remedy = folder / f"{split}.json", "dvc repro generate_captions"
    content: Generated = read_json(path, Generated, remedy)
    captions, claims = content["captions"], content["claims"]
    if claims is not None and list(map(len, claims)) != list(map(len, captions)):
        raise damaged(path, "its claims are not one for each caption", remedy)
    return content


def collect(data: Dataset, split: str, templates: Iterable[str], name: str) -> tuple[list[list[str]], str]:
    """Each picture's captions, maybe none, and where they are from, "human" or "template"; `name` is for the errors."""
    human = data.captions(split)
    if human is not None:
        check_text(human, split)
        return [_spaced(texts) if data.every_answer_counts else tidy(texts) for texts in human], "human"
    labels, templates = data.labels(split), list(templates)
    if labels is None:
        return [[] for _ in data.ids(split)], "human"
    if not templates:
        raise CondmixError(
            f'the data set "{name}" has classes but no captions: '
            'list captions.templates in its profile, as in "a photo of a {}"'
        )
    per_class = [fill(templates, class_name) for class_name in data.class_names]
    check_text(per_class, split)
    return [per_class[label] if label >= 0 else [] for label in labels], "template"


def check_text(captions: Iterable[Iterable[str]], split: str) -> None:
    """CondmixError for half a character, as JSON can spell one ("\\ud83d"): no file and no tokenizer takes it."""
    for text in (text for texts in captions for text in texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CondmixError(f'{split} has the caption "{text}", which is not valid text ({error.reason})') from error


def count(data: Dataset, captions: Sequence[Sequence[str]], labels: np.ndarray | None) -> Holds:
    """What a split with these captions and labels holds."""
    return Holds(
        pictures=len(captions),
        captioned=sum(map(bool, captions)),
        most_captions=max(map(len, captions), default=0),
        labelled=0 if labels is None else int((labels >= 0).sum()),
        attributes=bool(data.attributes),
    )


def fill(templates: Iterable[str], class_name: str) -> list[str]:
    """The class name in place of each template's "{}"."""
    for template in templates:
        if template.count("{}") != 1:
            raise CondmixError(f'the caption template "{template}" needs exactly one {{}} for the class name')
    return tidy(template.replace("{}", class_name) for template in templates)


def write_captions(path: Path, captions: list[list[str]], source: str) -> None:
    """Writes one split's file, whole or not at all."""
    content = {"captions": captions, "sources": [[source] * len(texts) for texts in captions]}
    write_text(path, json.dumps(content, ensure_ascii=False))
