"""`condmix data check`: every picture and caption of the profile's data set, and what is wrong with which.

Works through what every data set offers. Three methods, where a data set has them, name the files:
`files(split)` yields (name, undecoded bytes) of each picture in the order of `ids`; `passed_over()` yields
(what it is, where it is) of what is there and not read, `remarks(folder)` of what fetch leaves out of `data.folder`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from condmix import CondmixError, shown
from condmix.data.captions import collect, count, one_text
from condmix.data.imported import read_splits
from condmix.data.requirements import Holds, doubtful, lacking
from condmix.datasets import SPLITS, Dataset
from condmix.files.pictures import decode
from condmix.settings.load import Params, plugin

EXAMPLES = 5
UNBALANCED = 10  # times as many pictures in the largest class as in the smallest
CONTEXT = 77  # tokens of CLIP's text tower, two of them begin and end


@dataclass
class Findings:
    """What is wrong -> where. What `stops` the pipeline, and what it would go on with."""

    stops: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    warns: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Takes down the sentence that the pipeline would stop with, once, and goes on."""
        try:
            yield
        except CondmixError as error:
            self.stops.setdefault(str(error), [])

    def lines(self) -> Iterator[str]:
        """One line per kind of finding with its number, and the first places below it."""
        for level, problems in (("error", self.stops), ("warning", self.warns)):
            for what, places in problems.items():
                yield f"{level}: {shown(what)}" + (f": {len(places)}" if places else "")
                yield from (f"    {shown(place)}" for place in places[:EXAMPLES])
                if len(places) > EXAMPLES:
                    yield f"    ... and {len(places) - EXAMPLES} more"


@dataclass
class SplitSummary:
    """What one split turned out to hold."""

    names: list[str]  # of its pictures, in the order of their ids
    sides: list[int] = field(default_factory=list)  # the shorter side of each that decodes, in pixels
    classes: Counter[str] = field(default_factory=Counter)  # class name -> pictures
    captions: list[list[str]] = field(default_factory=list)  # of each picture, as the stage captions gives them
    holds: Holds | None = None  # None where something of it could not be read


def check_data(params: Params, also: Sequence[Callable[[Params, Dataset], None]] = ()) -> tuple[str, Findings]:
    """Reads everything; returns a table of what is there, and what is wrong with it.

    `also` are further checks, which raise CondmixError: of what this package must not import.
    """
    data = plugin("datasets", params.data.dataset)(params.paths.archives, params.data.world)
    findings, seen = Findings(), {}
    digests: dict[bytes, tuple[str, str]] = {}  # of every picture's bytes -> the split and name that it came with first
    for split in SPLITS:
        with findings.noting():
            seen[split] = SplitSummary([f"{split} picture {number}" for number in data.ids(split)])
        if split not in seen:
            continue
        with findings.noting():
            check_pictures(data, split, params.data.image_size, seen[split], digests, findings)
        with findings.noting():  # what is known of the pictures besides may be damaged too
            data.attribute_values(split)
            data.mentions(split)
        with findings.noting():
            check_classes(data, split, seen[split], findings)
        with findings.noting():
            check_captions(data, split, params, seen[split], findings)
            seen[split].holds = count(data, seen[split].captions, data.labels(split))
    if len(seen) == len(SPLITS):
        compare_classes(seen, findings)
        if all(content.holds for content in seen.values()):  # else what is missing has been said
            holds: dict[str, Any] = {split: content.holds for split, content in seen.items()}
            for sentence in lacking(params, **holds):
                findings.stops.setdefault(sentence, [])
            findings.warns.update(doubtful(params, **holds))
        check_imports(data, params, seen, findings)
        for check in also:
            with findings.noting():
                check(params, data)
    if hasattr(data, "passed_over") and seen:
        with findings.noting():
            for what, where in data.passed_over():
                findings.warns[what].append(where)
    if params.data.folder is not None and hasattr(data, "remarks"):
        with findings.noting():
            for what, where in data.remarks(params.root / params.data.folder):
                findings.warns[what].append(where)
    return table(seen), findings


def check_pictures(
    data: Dataset,
    split: str,
    size: int,
    seen: SplitSummary,
    digests: dict[bytes, tuple[str, str]],
    findings: Findings,
) -> None:
    """Decodes every picture; fills in the sides and, where pictures are files, the names."""
    pictures = tqdm(_pictures(data, split, seen), f"check {split}", len(seen.names), unit="img", mininterval=0.5)
    for row, (name, content) in enumerate(pictures):
        seen.names[row] = name
        payload = content if isinstance(content, bytes) else content.tobytes()
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        first_split, first = digests.setdefault(digest, (split, name))
        if (first_split, first) != (split, name):
            what = "the same picture twice" if first_split == split else f"{split} picture that is in {first_split} too"
            findings.warns[what].append(f"{name} = {first}")
        try:
            picture = decode(content, name) if isinstance(content, bytes) else content
        except CondmixError as error:
            findings.stops["picture that does not decode"].append(str(error))
            continue
        height, width = picture.shape[:2]
        seen.sides.append(min(height, width))
        if min(height, width) < size:
            findings.warns[f"picture smaller than data.image_size {size}"].append(f"{name} is {width}x{height}")


def _pictures(data: Dataset, split: str, seen: SplitSummary) -> Iterable[tuple[str, bytes | np.ndarray]]:
    """Files as they are, or what a data set without files gives."""
    if hasattr(data, "files"):
        files: Iterable[tuple[str, bytes]] = data.files(split)
        return files
    return zip(seen.names, data.images(split), strict=True)


def check_classes(data: Dataset, split: str, seen: SplitSummary, findings: Findings) -> None:
    """Counts the pictures of each class."""
    labels = data.labels(split)
    if labels is None:
        return
    if len(labels) and labels.max() >= len(data.class_names):
        raise CondmixError(f"{split} has label {labels.max()}, but there are {len(data.class_names)} classes")
    seen.classes.update(data.class_names[label] for label in labels if label >= 0)
    unknown = [name for name, label in zip(seen.names, labels, strict=True) if label < 0]
    if unknown:
        findings.warns[f"{split} picture without a class"] += unknown
    if seen.classes:
        (largest, most), (smallest, fewest) = seen.classes.most_common()[0], seen.classes.most_common()[-1]
        if most > UNBALANCED * fewest:
            findings.warns[f"unbalanced classes in {split}"].append(f"{largest} has {most}, {smallest} has {fewest}")


def compare_classes(seen: dict[str, SplitSummary], findings: Findings) -> None:
    for split, other in (SPLITS, SPLITS[::-1]):
        only = sorted(seen[split].classes.keys() - seen[other].classes.keys())
        if only:
            findings.warns[f"class that occurs in {split} only"] += only


def check_captions(data: Dataset, split: str, params: Params, seen: SplitSummary, findings: Findings) -> None:
    """Captions as people wrote them, and as the stage captions would hand them on."""
    written = data.captions(split)
    seen.captions, source = collect(data, split, params.captions.templates, params.data.dataset)
    if written is not None:
        empty = [name for name, texts in zip(seen.names, written, strict=True) if not all(map(str.strip, texts))]
        if empty:
            findings.warns[f"empty caption in {split}"] += empty
    none = [name for name, texts in zip(seen.names, seen.captions, strict=True) if not texts]
    if none and source == "human":
        findings.warns[f"{split} picture without a caption"] += none
    limit = context_length(params.clip.model)
    together = {
        f"caption_joined_{k}": [[one_text(texts[:k])] if len(texts) >= k else [] for texts in seen.captions]
        for k in params.embed.joined
    }
    for what, captions in {"caption": seen.captions, **together}.items():
        long = too_long(captions, limit)
        where = dict.fromkeys(
            f"{name}: {long[text]} tokens: {text[:60]}..."
            for name, texts in zip(seen.names, captions, strict=True)
            for text in texts
            if text in long
        )
        if where:
            findings.warns[f"{split} {what} of more than {limit} tokens, which CLIP cuts off"] += where


def check_imports(data: Dataset, params: Params, seen: dict[str, SplitSummary], findings: Findings) -> None:
    """Imported vectors must be of this data's pictures, and of captions that it has."""
    longest = max((len(texts) for content in seen.values() for texts in content.captions), default=0)
    for perspective in dict.fromkeys(one.perspective for one in params.embed.imports):
        with findings.noting():
            named = {one.split: one for one in params.embed.imports if one.perspective == perspective}
            files: dict[str, Any] = {split: one.verified("embed.imports") for split, one in named.items()}
            for split, file in read_splits(files, perspective, min(params.embed.captions, longest)).items():
                _, present = file.ordered(data.ids(split))
                without = [name for name, has in zip(seen[split].names, present, strict=True) if not has]
                if without:
                    findings.warns[f"{split} picture without a vector of {perspective}"] += without


def too_long(captions: Iterable[Sequence[str]], limit: int) -> dict[str, int]:
    """Text -> its tokens, of those that have more than `limit`: in CLIP's own byte-pair encoding, begin and end too."""
    texts = dict.fromkeys(text for several in captions for text in several)
    # A token is at least a byte, unless cleaning makes the text longer: "&" could begin an HTML entity.
    doubtful = [text for text in texts if len(text) + 2 > limit or not text.isascii() or "&" in text]
    if not doubtful:
        return {}
    from open_clip import SimpleTokenizer  # takes seconds to import

    tokenizer = SimpleTokenizer()
    counts = {text: len(tokenizer.encode(text)) + 2 for text in tqdm(doubtful, "count tokens", unit="caption")}
    return {text: count for text, count in counts.items() if count > limit}


def context_length(model: str | dict[str, Any] | None) -> int:
    """Tokens that the profile's CLIP reads."""
    if isinstance(model, str):
        from open_clip import get_model_config

        model = get_model_config(model)
    architecture: Any = model or {}
    return int(architecture.get("text_cfg", {}).get("context_length", CONTEXT))


def table(seen: dict[str, SplitSummary]) -> str:
    """One row per split."""
    rows = [["split", "pictures", "shorter side", "classes", "per class", "captions", "per picture"]]
    for split, content in seen.items():
        counts = [len(texts) for texts in content.captions]
        rows.append(
            [
                split,
                f"{len(content.names):,}",
                _range(content.sides, " px"),
                str(len(content.classes)),
                _range(list(content.classes.values())),
                f"{sum(counts):,}",
                _range(counts),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def _range(numbers: Sequence[int], unit: str = "") -> str:
    """The smallest and the largest."""
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return f"{low}{unit}" if low == high else f"{low}-{high}{unit}"
