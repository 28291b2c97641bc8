"""Stage captions: archives -> captions/<split>.json: what people wrote, or class templates where they wrote nothing.

Pictures of which neither is known have no captions; they train what sees pictures alone, as `pseudo` does.

The file holds {"captions": [[text, ...], ...], "sources": [["human" | "template", ...], ...]}, one row per picture
in the order of the data set's ids. No picture is decoded. Data that some later stage cannot use stop the pipeline here.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from condmix import CondmixError
from condmix.data.captionfile import tidy
from condmix.data.requirements import Holds, lacking
from condmix.datasets import SPLITS, Dataset
from condmix.files.atomic import write_text
from condmix.settings import load


def main(params) -> None:
    """Writes {train,test}.json to `params.paths.captions`."""
    name = params.data.dataset
    data = load.plugin("datasets", name)(params.paths.archives, params.data.world)
    rows = {split: collect(data, split, params.captions.templates, name) for split in SPLITS}
    holds = {split: count(data, captions, data.labels(split)) for split, (captions, _) in rows.items()}
    for sentence in lacking(params, **holds):
        raise CondmixError(sentence)
    for split, (captions, source) in rows.items():
        write_captions(params.paths.captions / f"{split}.json", captions, source)


def collect(data: Dataset, split: str, templates: Iterable[str], name: str) -> tuple[list[list[str]], str]:
    """Each picture's captions, maybe none, and where they are from, "human" or "template"; `name` is for the errors."""
    human = data.captions(split)
    if human is not None:
        check_text(human, split)
        return [tidy(texts) for texts in human], "human"
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
