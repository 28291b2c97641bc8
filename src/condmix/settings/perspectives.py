"""The names of perspectives, and what each puts into one slot of a picture's views.

    class           its class
    image           the picture itself
    pseudo          noise around the picture's vector in training, a caption when it is evaluated (perturbed in
                    condmix.training.batches)
    caption_k       its k-th caption
    caption_any     one of its captions, drawn anew at every training step; its first one when it is evaluated
    caption_any_j   another of them, so that caption_any ... caption_any_j are a random set of j different captions
                    at every training step; its j-th one when it is evaluated
    generated_k     the k-th of the captions that a captioner wrote of it (docs/captions.md)
    mixed_any       like caption_any, but of its captions and generated captions; mixed_any_j like caption_any_j
    image_<word>    the picture itself, through a network of timm that embed.timm names so
    t5_k            its k-th caption, through a text encoder other than CLIP's
    <word>_k        any other lowercase word: vectors that someone else computed (docs/embeddings.md)

Controls for the second slot itself, with no second text:

    caption_k_again         the k-th caption, as a slot beside another that holds it already
    caption_k_of_another    the k-th caption of some other picture, always the same one
    caption_k_wrong_p       the same in training for p in 100 pictures, always the same ones; else, and for every
                            picture when it is evaluated, the k-th caption: a source that is wrong at times

Controls for the additional text itself, with one slot (k is 2 or more):

    caption_joined_k        its first k captions as one text in one slot (condmix.data.captions.one_text)
    caption_mean_k          the mean of its first k captions' vectors in one slot (condmix.data.embeddings.mean)

All names with a number have the first three; caption, generated and t5 the last two. A picture with fewer than k
captions lacks caption_joined_k and caption_mean_k, as it lacks caption_k.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

NAME = re.compile(
    r"(?P<kind>image_(?!(?:again|any|joined|mean)$)[a-z][a-z0-9]*|[a-z][a-z0-9]*)"
    r"(_((?P<number>[1-9]\d*)(_(?P<control>again|of_another|wrong_(?P<wrong>[1-9]\d?)))?"
    r"|(?P<any>any)(_(?P<place>[2-9]|[1-9]\d+))?"
    r"|(?P<merge>joined|mean)_(?P<first>[2-9]|[1-9]\d+)))?"
)
MERGES = ("joined", "mean")
MERGED = ("caption", "generated", "t5")  # the kinds of which several can share a slot
UNNUMBERED = ("class", "image", "pseudo")


@dataclass(frozen=True)
class Perspective:
    """A name, taken apart. `number` is k of the k-th caption, None where it is not one in particular."""

    name: str
    kind: str  # "class", "image", "caption", ...: perspectives of one kind lie in the same space
    number: int | None = None
    place: int | None = None  # j of the j-th of a random set, from 1; None where nothing is drawn
    mixed: bool = False  # drawn from generated captions as well
    of_another: bool = False
    wrong: int = 0  # per cent of the training pictures for which it is another picture's
    merge: str | None = None  # "joined" or "mean": how the first `number` captions become one vector

    @property
    def sources(self) -> list[str]:
        """The embedding caches that it reads: in evaluation where it is drawn in training, in training if `pseudo`.

        It is one, but for the mean of several.
        """
        if self.kind == "pseudo":
            return ["image"]
        if self.merge == "joined":
            return [self.name]
        return [f"{self.kind}_{k + 1}" for k in self.captions] or [self.kind]

    @property
    def caption(self) -> int | None:
        """Index from 0 of the caption that it stands for in evaluation if it is of captions; None without a number.

        Of several, the last: a picture that lacks this one lacks the perspective.
        """
        number = 1 if self.kind == "pseudo" else self.place or self.number
        return None if number is None else number - 1

    @property
    def captions(self) -> range:
        """Indices from 0 of all captions that it stands for in evaluation."""
        if self.caption is None:
            return range(0)
        return range(0 if self.merge else self.caption, self.caption + 1)

    @property
    def takes(self) -> int:
        """How many captions its slot takes."""
        return len(self.captions)

    @property
    def drawn_before(self) -> list[str]:
        """The perspectives of its random set that are drawn before it."""
        first = "mixed_any" if self.mixed else "caption_any"
        return [first if j == 1 else f"{first}_{j}" for j in range(1, self.place or 1)]


def is_perspective(name: str) -> bool:
    """Whether a perspective can have this name."""
    parts = NAME.fullmatch(name)
    if parts is None:
        return False
    unnumbered = parts["kind"] in UNNUMBERED or parts["kind"].startswith("image_")
    if unnumbered != (not (parts["number"] or parts["any"] or parts["merge"])):
        return False
    if parts["any"] and parts["kind"] not in ("caption", "mixed") or parts["number"] and parts["kind"] == "mixed":
        return False
    return not parts["merge"] or parts["kind"] in MERGED


def parse(name: str) -> Perspective:
    """The perspective of this name; ValueError where `is_perspective` says no."""
    parts = NAME.fullmatch(name)
    if parts is None or not is_perspective(name):
        raise ValueError(f'no perspective is called "{name}"')
    mixed = parts["kind"] == "mixed"
    number = parts["number"] or parts["first"]
    return Perspective(
        name,
        "caption" if mixed else parts["kind"],
        number=int(number) if number else None,
        place=int(parts["place"] or 1) if parts["any"] else None,
        mixed=mixed,
        of_another=parts["control"] == "of_another",
        wrong=int(parts["wrong"] or 0),
        merge=cast(Any, parts["merge"]),  # one of the two that NAME lets through
    )


def known(
    captions: int,
    t5: bool = False,
    imported: Sequence[str] = (),
    generated: int = 0,
    joined: Sequence[int] = (),
    networks: Sequence[str] = (),
) -> list[str]:
    """Every name that a profile with so many captions, and generated captions, per picture has.

    `joined` are the numbers k for which the first k captions are encoded as one text, `networks` those of timm.
    """
    numbers = range(1, captions + 1)
    words = [f"caption_{k}" for k in numbers]
    written = [f"generated_{k}" for k in range(1, generated + 1)]
    others = [*written, *(f"t5_{k}" for k in numbers if t5), *imported]
    controls = [f"{name}_{control}" for control in ("again", "of_another") for name in (*words, *others)]
    families = ["caption_any", *(["mixed_any"] if generated else [])]
    drawn = [*families, *(f"{family}_{j}" for family in families for j in range(2, captions + 1))]
    counts = {"caption": captions, "generated": generated, "t5": captions if t5 else 0}
    merged = [
        *(f"{kind}_joined_{k}" for kind, count in counts.items() for k in sorted(joined) if k <= count),
        *(f"{kind}_mean_{k}" for kind, count in counts.items() for k in range(2, count + 1)),
    ]
    return [*UNNUMBERED, *(f"image_{name}" for name in networks), *words, *drawn, *others, *merged, *controls]


def fill_slots(names: Iterable[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """{perspective: its texts} of captions that someone typed, where each slot that takes captions gets its own.

    One text each for caption_k by number, then generated_k, then the others in order. caption_joined_k, caption_mean_k
    and those of generated captions have the first k of all texts, or as many as there are.
    """
    slots = _caption_slots(names)
    alone = dict(zip((slot.name for slot in slots if not slot.merge), texts, strict=False))
    several = {slot.name: list(texts[: slot.takes]) for slot in slots if slot.merge and texts}
    return {name: [text] for name, text in alone.items()} | several


def most_texts(names: Iterable[str]) -> int:
    """How many texts `fill_slots` has room for."""
    slots = _caption_slots(names)
    return max([sum(not slot.merge for slot in slots), *(slot.takes for slot in slots)])


def _caption_slots(names: Iterable[str]) -> list[Perspective]:
    perspectives = map(parse, filter(is_perspective, names))
    slots = [slot for slot in perspectives if slot.kind in ("caption", "generated", "pseudo")]
    numbered = [slot for slot in slots if slot.name == f"{slot.kind}_{slot.number}"]
    numbered.sort(key=lambda slot: (slot.kind, slot.number))
    return [*numbered, *(slot for slot in slots if slot not in numbered)]


def another(count: int) -> Any:
    """For each of `count` pictures the number of another one (count,), each picture being another's exactly once."""
    import numpy as np

    order = np.random.default_rng(0).permutation(count)
    other = np.empty(count, np.int64)
    other[order] = np.roll(order, 1)
    return other


def misled(count: int, percent: int) -> Any:
    """Which of `count` pictures (count,) bool get another's where so many per cent do: those of a lower share too."""
    import numpy as np

    return np.random.default_rng(1).random(count) < percent / 100
