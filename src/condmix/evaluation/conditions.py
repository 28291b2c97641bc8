"""How a variant is conditioned on a held-out picture, and what may be changed about its condition; as values, no text.

Their texts are keys of metrics/<variant>.json and of pictures.npz, and names of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Condition(StrEnum):
    """What stands in the views for a held-out picture."""

    CAPTIONS = "captions"  # captions, its class, or vectors made from them
    PROMPT = "prompt"  # a caption's CLIP vector in the image's place
    ORACLE = "oracle"  # the picture's own embedding
    PRIOR = "prior"  # the image vector that the prior samples for the prompt

    @property
    def is_oracle(self) -> bool:
        return self is Condition.ORACLE

    @property
    def ranked(self) -> bool:
        """Have its rows a rank? An oracle knows the answer, and the prior's rows are of fewer pictures."""
        return self in (Condition.CAPTIONS, Condition.PROMPT)

    @property
    def label(self) -> str:
        """What stands in the image's place; "" where the views have none."""
        return {
            Condition.PROMPT: "caption_1 as prompt",
            Condition.ORACLE: "the real picture",
            Condition.PRIOR: "caption_1 through the prior",
        }.get(self, "")


class Kind(StrEnum):
    """A kind of change."""

    NONE = ""
    WITHOUT = "without"  # one perspective is left out
    WRONG = "wrong"  # one perspective is another picture's, beside what is right
    SHUFFLED = "shuffled"  # all perspectives are another picture's
    REPEATED = "repeated"  # several pictures of each condition
    PUBLISHED = "published"  # as many pictures as published distances take, for all test conditions in turn


@dataclass(frozen=True)
class Change:
    """What is changed about a condition; a perspective belongs to WITHOUT and WRONG alone."""

    kind: Kind = Kind.NONE
    perspective: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.perspective}".strip()

    @property
    def array(self) -> str:
        """The array of pictures.npz that says what is right under it."""
        return f"right {self}"

    @classmethod
    def of_array(cls, name: str) -> Change | None:
        """The change that an array of pictures.npz is of; None for all other arrays."""
        start, _, rest = name.partition(" ")
        kind, _, perspective = rest.partition(" ")
        return cls(Kind(kind), perspective) if start == "right" and kind in list(Kind)[1:] else None

    @property
    def label(self) -> str:
        if self.kind is Kind.WITHOUT:
            return f"without {self.perspective}"
        return f"another picture's {self.perspective or 'everything'}"

    def of(self, facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The figures under it in metrics/<variant>.json; None where it was not evaluated."""
        figures = facts.get(self.kind)
        return figures.get(self.perspective) if figures and self.perspective else figures


def changes_of(facts: Mapping[str, Any]) -> list[Change]:
    """The changes that metrics/<variant>.json holds, those of everything last."""
    single = [Change(kind, name) for kind in (Kind.WITHOUT, Kind.WRONG) for name in facts.get(kind, {})]
    return [*single, *([Change(Kind.SHUFFLED)] if Kind.SHUFFLED in facts else [])]
