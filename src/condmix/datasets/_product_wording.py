"""A product's attributes -> captions that name two of them each, in varied words; and what a caption names."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import comb

from ._products import COLUMNS, GROUPS
from ._scenes import Dice
from ._wording import with_article

TOLD = 4  # captions of a product, besides its name
NAMED = 2  # attributes of each
NAMES = tuple(COLUMNS)
TYPE = NAMES.index("type")

PAIR = "a pair of"
# A type's words, in the singular after "a", and in the plural after "a pair of" or nothing. Others have their own name.
NOUNS = {
    "backpacks": ("a", ["backpack", "rucksack"]),
    "bangle": ("a", ["bangle"]),
    "belts": ("a", ["belt"]),
    "boxers": (PAIR, ["boxers"]),
    "bra": ("a", ["bra"]),
    "bracelet": ("a", ["bracelet"]),
    "briefs": (PAIR, ["briefs"]),
    "capris": (PAIR, ["capris"]),
    "caps": ("a", ["cap"]),
    "casual shoes": (PAIR, ["casual shoes"]),
    "clutches": ("a", ["clutch"]),
    "cufflinks": (PAIR, ["cufflinks"]),
    "dresses": ("a", ["dress"]),
    "duffel bag": ("a", ["duffel bag"]),
    "dupatta": ("a", ["dupatta"]),
    "earrings": (PAIR, ["earrings"]),
    "flats": (PAIR, ["flats"]),
    "flip flops": (PAIR, ["flip flops"]),
    "formal shoes": (PAIR, ["formal shoes"]),
    "handbags": ("a", ["handbag"]),
    "heels": (PAIR, ["heels"]),
    "innerwear vests": ("a", ["innerwear vest", "vest"]),
    "jackets": ("a", ["jacket"]),
    "jeans": (PAIR, ["jeans"]),
    "kurtas": ("a", ["kurta"]),
    "kurtis": ("a", ["kurti"]),
    "laptop bag": ("a", ["laptop bag"]),
    "leggings": (PAIR, ["leggings"]),
    "mufflers": ("a", ["muffler"]),
    "nightdress": ("a", ["nightdress"]),
    "ring": ("a", ["ring"]),
    "sandals": (PAIR, ["sandals"]),
    "sarees": ("a", ["saree"]),
    "scarves": ("a", ["scarf"]),
    "shirts": ("a", ["shirt"]),
    "shorts": (PAIR, ["shorts"]),
    "skirts": ("a", ["skirt"]),
    "socks": (PAIR, ["socks"]),
    "sports shoes": (PAIR, ["sports shoes"]),
    "stoles": ("a", ["stole"]),
    "sunglasses": (PAIR, ["sunglasses"]),
    "sweaters": ("a", ["sweater", "pullover"]),
    "sweatshirts": ("a", ["sweatshirt"]),
    "ties": ("a", ["tie"]),
    "tops": ("a", ["top"]),
    "track pants": (PAIR, ["track pants"]),
    "trousers": (PAIR, ["trousers"]),
    "trunk": (PAIR, ["trunks"]),
    "tshirts": ("a", ["t-shirt", "tee"]),
    "tunics": ("a", ["tunic"]),
    "wallets": ("a", ["wallet"]),
    "watches": ("a", ["watch", "wristwatch"]),
}
THINGS = ["item", "product", "piece"]  # where the type is not named
# Of gender and usage: words before the noun, and behind it. A value that is not here stands before it as it is.
PHRASES = {
    "men": (["men's"], ["for men"]),
    "women": (["women's"], ["for women"]),
    "unisex": (["unisex"], ["for anyone"]),
    "children": (["children's", "kids'"], ["for children", "for kids"]),
    "casual": (["casual", "everyday"], ["for everyday wear"]),
    "formal": (["formal"], ["for formal wear"]),
    "sports": (["sporty"], ["for sport", "for sports"]),
    "ethnic": (["ethnic", "traditional"], ["in ethnic style", "for traditional wear"]),
}
# Further words by which people name a value, as regular expressions.
SPOKEN = {
    "men": ["mens?", "males?", "him"],
    "women": ["wom[ae]ns?", "lad(?:y|ies)", "females?", "her"],
    "children": ["kids?", "child", "boys?", "girls?"],
    "unisex": ["anyone"],
    "casual": ["everyday"],
    "sports": ["sport"],
    "ethnic": ["traditional"],
    "blue": ["navy", "turquoise"],
    "grey": ["gray"],
    "sweatshirts": ["sweat[- ]shirts?"],
}
FRAMES = ["{}", "a photo of {}", "a picture of {}", "this is {}", "here is {}"]


def describe(values: Sequence[str | None], dice: Dice) -> tuple[list[str], list[list[bool]]]:
    """Four different captions, each of two of the known values, of which there are three at least; which each names.

    The first names the type where that is known, and the first three name all that is known.
    """
    known = [index for index, value in enumerate(values) if value is not None]
    captions: list[str] = []
    pairs = choose_pairs(known, dice)
    for pair in pairs:
        named = {NAMES[index]: str(values[index]) for index in sorted(pair)}
        text = caption(named, dice)
        while text in captions:  # the same pair may be told twice, in other words
            text = caption(named, dice)
        captions.append(text)
    return captions, [[index in pair for index in range(len(NAMES))] for pair in pairs]


def choose_pairs(known: Sequence[int], dice: Dice) -> list[frozenset[int]]:
    """Different pairs of the known attributes, as far as there are so many."""
    first = [index for index in known if index == TYPE] + dice.shuffled([index for index in known if index != TYPE])
    pairs, due = [frozenset(first[:NAMED])], first[NAMED:]  # what is due comes in the next captions
    while len(pairs) < TOLD:
        deck = due[len(pairs) - 1 : len(pairs)] + dice.shuffled(known)
        pair = frozenset(list(dict.fromkeys(deck))[:NAMED])
        if pair not in pairs or len(set(pairs)) == comb(len(known), NAMED):
            pairs.append(pair)
    return pairs


def caption(named: Mapping[str, str], dice: Dice) -> str:
    """One phrase that names exactly these values ({attribute: value})."""
    article, nouns = NOUNS.get(named["type"], ("", [named["type"]])) if "type" in named else ("a", THINGS)
    noun = dice.pick(nouns)
    before: list[str] = []
    after: list[str] = []
    for name in ("gender", "usage"):
        if name in named:
            fronts, backs = PHRASES.get(named[name], ([named[name]], [f"for {named[name]} use"]))
            if noun.split()[0] in PHRASES:  # "casual shoes for everyday wear", not "everyday casual shoes"
                fronts = []
            chosen = dice.pick([*fronts, *backs])
            (before if chosen in fronts else after).append(chosen)
    words = [*before, *([named["colour"]] if "colour" in named else []), noun]
    thing = with_article(*words) if article == "a" else " ".join([article, *words]).strip()
    return str(dice.pick(FRAMES)).format(" ".join([thing, *after]))


class Claims:
    """Which values any caption names, whoever wrote it."""

    def __init__(self, attributes: Mapping[str, Sequence[str]]):
        """`attributes`: the values of each, in the order of their numbers."""
        self._patterns = {name: _pattern(values) for name, values in attributes.items()}

    def __call__(self, caption: str) -> list[int]:
        """The number of the value that it names of each attribute, -1 where none.

        Where it names several, the last type and colour count: in "Red Tape Men Brown Shoes", what stands at the end is
        the product, and what stands first is the brand. Of other attributes the first value counts.
        """
        text, found = caption.lower(), dict.fromkeys(self._patterns, -1)
        for name, pattern in self._patterns.items():
            matches = list(pattern.finditer(text))
            if matches:
                found[name] = _number(matches[-1 if name in ("type", "colour") else 0])
            if name == "type":  # the "sports" of sports shoes tells of no usage
                text = pattern.sub("_", text)
        return list(found.values())


def _pattern(values: Sequence[str]) -> re.Pattern[str]:
    """Matches the words of any value, the longest ones first; the group's name tells which value's."""
    words = [(word, number) for number, value in enumerate(values) for word in _expressions(value)]
    words.sort(key=lambda pair: -len(pair[0]))
    parts = [f"(?P<v{number}_{place}>{word})" for place, (word, number) in enumerate(words)]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(parts) or '(?!)'})(?![\w-])")


def _number(match: re.Match[str]) -> int:
    return int(str(match.lastgroup)[1:].split("_")[0])


def _expressions(value: str) -> Iterator[str]:
    """Regular expressions of a value's words, in singular and plural, with or without a hyphen or space."""
    grouped = [written for groups in GROUPS.values() for written in groups.get(value, ())]
    fronts, _ = PHRASES.get(value, ([], []))
    _, nouns = NOUNS.get(value, ("", []))
    for words in dict.fromkeys([value, *grouped, *fronts, *nouns]):
        stem = re.escape(re.sub(r"(?<=ch)es$|(?<=ss)es$|(?<!s)s$|'s?$", "", words))
        yield re.sub(r"(?:\\ |\\-)", "[- ]?", stem) + r"(?:e?s|'s|s')?"
    yield from _given(SPOKEN.get(value, ()))


def _given(expressions: Iterable[str]) -> Iterator[str]:
    for expression in expressions:
        yield rf"{expression}(?:'s|')?"
