"""A scene's attributes -> five captions, each naming only some of them, in varied words, as people do."""

import re
from collections.abc import Sequence

from ._scenes import ATTRIBUTES, Dice

CAPTIONS = 5
NAMED = 3  # attributes per caption
NAMES = tuple(ATTRIBUTES)
SHAPE = NAMES.index("shape")

# Each word belongs to one value of one attribute only.
WORDS = {
    "square": ["square", "box"],
    "triangle": ["triangle", "pyramid"],
    "ring": ["ring", "hoop"],
    "hourglass": ["hourglass", "sandglass"],
    "red": ["red", "scarlet"],
    "green": ["green", "emerald"],
    "blue": ["blue", "azure"],
    "yellow": ["yellow", "golden"],
    "purple": ["purple", "violet"],
    "small": ["small", "little", "tiny"],
    "large": ["large", "big", "huge"],
    "upper left": ["in the upper left", "at the top left", "in the top left corner"],
    "upper right": ["in the upper right", "at the top right", "in the top right corner"],
    "lower left": ["in the lower left", "at the bottom left", "in the bottom left corner"],
    "lower right": ["in the lower right", "at the bottom right", "in the bottom right corner"],
    "centre": ["in the centre", "in the middle", "at the centre"],
    "grey": ["grey", "gray"],
    "navy": ["navy"],
    "brown": ["brown", "chestnut"],
    "pink": ["pink", "rosy"],
}
# What identifies a value: the phrase without the words around it, which a writer other than us may leave out.
KEYWORDS = {
    (attribute, number): re.compile(
        r"\b(?:" + "|".join(re.sub(r"^(in|at) the | corner$", "", phrase) for phrase in WORDS[value]) + r")\b"
    )
    for attribute, values in enumerate(ATTRIBUTES.values())
    for number, value in enumerate(values)
}
THINGS = ["object", "thing", "figure", "item"]  # where the shape is not named
GROUNDS = ["background", "backdrop"]

# {thing}: "a small red ring", {place}: "in the upper left", {ground}: "a navy backdrop"
FRAMES = {
    "thing": ["{thing}", "a picture of {thing}", "there is {thing}", "this is {thing}"],
    "thing place": [
        "{thing} {place}",
        "there is {thing} {place}",
        "{place} is {thing}",
        "{place} we see {thing}",
    ],
    "thing ground": ["{thing} on {ground}", "{thing} against {ground}", "{ground} with {thing}"],
    "thing place ground": [
        "{thing} {place} on {ground}",
        "on {ground} is {thing} {place}",
        "{place} of {ground}, {thing}",
    ],
}


def describe(values: Sequence[int], dice: Dice) -> tuple[list[str], list[list[bool]]]:
    """Five different captions and, per caption, which attributes it names. Together they name every attribute."""
    named = {name: options[value] for (name, options), value in zip(ATTRIBUTES.items(), values, strict=True)}
    subsets = choose_subsets(dice)
    captions = [caption({NAMES[index]: named[NAMES[index]] for index in subset}, dice) for subset in subsets]
    return captions, [[index in subset for index in range(len(NAMES))] for subset in subsets]


def choose_subsets(dice: Dice) -> list[frozenset[int]]:
    """Five different sets of three attributes that together cover all; the first names the shape, as people do."""
    others = dice.shuffled([index for index in range(len(NAMES)) if index != SHAPE])
    first = frozenset([SHAPE, *others[: NAMED - 1]])
    due = [index for index in others if index not in first]  # one for each of the next captions
    subsets = [first]
    while len(subsets) < CAPTIONS:
        place = len(subsets) - 1
        deck = due[place : place + 1] + dice.shuffled(range(len(NAMES)))
        subset = frozenset(list(dict.fromkeys(deck))[:NAMED])
        if subset not in subsets:
            subsets.append(subset)
    return subsets


def caption(named: dict[str, str], dice: Dice) -> str:
    """One sentence that names exactly these values ({attribute: value})."""
    words = {name: dice.pick(WORDS[value]) for name, value in named.items()}
    thing = with_article(words.get("size"), words.get("colour"), words.get("shape") or dice.pick(THINGS))
    parts = {"thing": thing}
    if "position" in words:
        parts["place"] = words["position"]
    if "background" in words:
        parts["ground"] = with_article(words["background"], dice.pick(GROUNDS))
    frame: str = dice.pick(FRAMES[" ".join(parts)])
    return frame.format(**parts)


def with_article(*words: str | None) -> str:
    """The words that are there, after "a" or "an"."""
    phrase = " ".join(word for word in words if word)
    return f"{'an' if phrase.startswith(('a', 'e', 'i', 'o', 'hour')) else 'a'} {phrase}"


def claims(caption: str) -> list[int]:
    """Which value a caption names of each attribute, -1 where none; the first one where it names several."""
    first: dict[int, tuple[int, int]] = {}
    for (attribute, number), words in KEYWORDS.items():
        if word := words.search(caption.lower()):
            first[attribute] = min(first.get(attribute, (len(caption), -1)), (word.start(), number))
    return [first[attribute][1] if attribute in first else -1 for attribute in range(len(NAMES))]
