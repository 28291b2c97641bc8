"""README.md of an exported model: what it is, what it was trained on, how it did, what it must not be used for.

The sections are those of Mitchell et al. 2019 (arXiv:1810.03993), the front matter is the Hugging Face hub's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from condmix.metrics import Measure
from condmix.reporting.tables import cell, conditioned_on
from condmix.results.rows import columns, oracles, ranked
from condmix.settings.load import Params

TEMPLATE = Path(__file__).with_name("model_card.md")
# What is known of a data set's licence and of the people in it; others are the exporter's own to describe.
DATA = {
    "demo": (
        "Scenes that condmix draws and describes itself (MIT licence). They show no people, and nothing that exists.",
        "mit",
    ),
    "cifar10": (
        "CIFAR-10 (Krizhevsky 2009): 60,000 pictures collected from the web by search terms. Its authors state no "
        "licence; the rights in the pictures lie with whoever took them, who were not asked.",
        "unknown",
    ),
    "coco": (
        "COCO 2017 (Lin et al. 2014): photographs from Flickr, each under its own Creative Commons licence, some of "
        "them non-commercial; captions and annotations are CC BY 4.0. Many show people, with their faces, who were not "
        "asked.",
        "other",
    ),
    "fashion": (
        "Fashion Product Images (Kaggle, paramaggarwal): photographs of clothes, shoes and accessories from a shop, "
        "with names and attributes that people wrote. The data set's page states its licence. Many show models, "
        "with their faces.",
        "other",
    ),
}
OWN_DATA = (
    "TODO before you publish: say what these pictures and captions are, where they come from, who holds the rights in "
    "them, under which licence they may be used, and whether people can be recognised in them and were asked.",
    "unknown",
)


def model_card(params: Params, card: Mapping[str, Any], facts: Mapping[str, Any] | None, small: bool) -> str:
    """The text in Markdown; `facts` are the variant's metrics, None where it was not evaluated."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    about, licence = DATA.get(params.data.dataset, OWN_DATA)
    rows = [] if facts is None else [*ranked([facts]), *oracles([facts])]
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        card={"parameters": None, "images_seen": None, **card},
        data=about,
        example=example_of(list(card["architecture"]["perspectives"]), card["class_names"]),
        explanations=explained(columns(rows)),
        facts=facts,
        licence=licence,
        measures=[(m, [cell(row, m).text for row in rows]) for m in columns(rows)],
        params=params,
        pretrained=pretrained_clip(params),
        rows=[conditioned_on(row) for row in rows],
        small=small,
    ).rstrip() + "\n"  # fmt: skip


def explained(measures: Sequence[Measure]) -> list[tuple[list[str], str]]:
    """(headings, what they measure), each explanation once."""
    grouped: dict[str, list[str]] = {}
    for measure in measures:
        grouped.setdefault(measure.explanation, []).append(measure.heading)
    return [(headings, explanation) for explanation, headings in grouped.items()]


def pretrained_clip(params: Params) -> str | None:
    """A CLIP that was trained elsewhere, in whole or in its towers; None where it was trained on the data here."""
    if params.clip.towers is not None:
        towers: Any = params.clip.model  # open_clip's configuration, which stands beside towers
        image = towers["vision_cfg"]["timm_model_name"]
        return f"between {image} and the text encoder of {params.clip.towers.text.path}"
    if params.clip.pretrained is None and params.clip.weights is None:
        return None
    model = params.clip.model if isinstance(params.clip.model, str) else "a CLIP of the exporter's own"
    return f"{model}, {params.clip.pretrained}" if params.clip.pretrained else model


def example_of(perspectives: list[str], class_names: list[str]) -> str:
    """Keywords of a call that this model takes."""
    if any(name.startswith(("caption", "generated", "mixed", "pseudo")) for name in perspectives):
        return 'captions=["..."], n=4'
    if "image" in perspectives:
        return 'image="photo.png", n=4'
    return f"class_name={class_names[0]!r}, n=4" if class_names else "n=4"
