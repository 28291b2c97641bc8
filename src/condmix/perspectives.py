"""The names of perspectives, and what each puts into one slot of a picture's views.

    class           its class
    image           the picture itself
    caption_k       its k-th caption
    caption_any     one of its captions, drawn anew at every training step; its first one when it is evaluated
    generated_k     the k-th of the captions that a captioner wrote of it (docs/captions.md)
    mixed_any       one of its captions and generated captions, like caption_any; its first caption when it is evaluated
    t5_k            its k-th caption, through a text encoder other than CLIP's
    <word>_k        any other lowercase word: vectors that someone else computed (docs/embeddings.md)

Controls show that what helps is being told more, and not having a second slot:

    caption_k_again         the k-th caption, as a slot beside another that holds it already
    caption_k_of_another    the k-th caption of some other picture, always the same one

All names with a number have both controls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"(?P<kind>[a-z][a-z0-9]*)(_(?P<number>[1-9]\d*|any)(_(?P<control>again|of_another))?)?")
ALONE = ("class", "image")  # what a picture has one of, so that no number follows


@dataclass(frozen=True)
class Perspective:
    """A name, taken apart. `number` is k of the k-th caption, None where it is not one in particular."""

    name: str
    kind: str  # "class", "image", "caption", ...: perspectives of one kind lie in the same space
    number: int | None = None
    any: bool = False
    mixed: bool = False  # draws from generated captions as well
    of_another: bool = False

    @property
    def source(self) -> str:
        """The embedding cache that it reads; of those with `any` the one that it reads in evaluation."""
        return self.kind if self.caption is None else f"{self.kind}_{self.caption + 1}"

    @property
    def caption(self) -> int | None:
        """Index from 0 of the caption that it stands for in evaluation if it is of captions; None without a number."""
        return 0 if self.any else None if self.number is None else self.number - 1


def parse(name: str) -> Perspective | None:
    """The perspective of this name, None where no perspective can have it."""
    found = NAME.fullmatch(name)
    if found is None or (found["kind"] in ALONE) != (found["number"] is None):
        return None
    drawn = found["number"] == "any"
    if drawn and (found["control"] or found["kind"] not in ("caption", "mixed")):
        return None
    mixed = drawn and found["kind"] == "mixed"
    number = None if drawn or found["number"] is None else int(found["number"])
    kind = "caption" if mixed else found["kind"]
    return Perspective(name, kind, number, drawn, mixed, found["control"] == "of_another")


def known(captions: int, t5: bool = False, imported: Sequence[str] = (), generated: int = 0) -> list[str]:
    """Every name that a profile with so many captions, and generated captions, per picture has."""
    numbers = range(1, captions + 1)
    words = [f"caption_{k}" for k in numbers]
    written = [f"generated_{k}" for k in range(1, generated + 1)]
    drawn = ["caption_any", *(["mixed_any"] if generated else [])]
    others = [*written, *(f"t5_{k}" for k in numbers if t5), *imported]
    controls = [f"{name}_{control}" for control in ("again", "of_another") for name in (*words, *others)]
    return [*ALONE, *words, *drawn, *others, *controls]


def another(count: int) -> Any:
    """For each of `count` pictures the number of another one (count,), each picture being another's exactly once."""
    import numpy as np

    order = np.random.default_rng(0).permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)
    return other
