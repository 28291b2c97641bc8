"""metrics/details/<variant>/ and metrics/losses/<variant>.csv -> what one variant left for people to look at."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from pydantic import Field, JsonValue
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.evaluation.conditions import Condition
from condmix.files.artifacts import damaged, read_array, read_checked_json, read_text
from condmix.settings.schema import Params


class Environment(TypedDict):
    """Where a model was trained, as far as the page sets it in words of its own."""

    gpus: NotRequired[list[str]]
    date: NotRequired[str]


class ShownCard(TypedDict):
    """What pages compute with of a model's card."""

    parameters: NotRequired[int]
    images_seen: NotRequired[int]
    seconds: NotRequired[float]
    environment: NotRequired[Environment]


ShownSample = TypedDict(
    "ShownSample",  # one held-out picture that the pages show; "class" is a word of Python
    {
        "id": int,
        "captions": list[str],
        "condition_captions": list[str],
        "seed": int,
        "class": NotRequired[str | None],
    },
)


class DetailsFile(TypedDict):
    """details.json."""

    metrics: dict[str, JsonValue]
    card: ShownCard
    samples: Annotated[list[ShownSample], Field(min_length=1)]


@dataclass(frozen=True)
class Details:
    """What one variant's evaluation and training left for people to look at."""

    metrics: Mapping[str, Any]
    card: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    pictures: Mapping[str, np.ndarray]  # "real", the headline condition's, maybe "oracle": (N, S, S, 3) uint8
    losses: Sequence[tuple[float, float]]  # (images seen, loss)

    @property
    def name(self) -> str:
        return str(self.metrics["variant"])

    @property
    def side(self) -> int:
        """Height and width of the pictures."""
        return int(self.pictures["real"].shape[1])

    @classmethod
    def read(cls, params: Params, metrics: Mapping[str, Any]) -> Details:
        """The files of the variant that `metrics` is of; CondmixError where they don't belong together."""
        variant = metrics["variant"]
        remedy = f"dvc repro --force evaluate@{variant}"
        folder = params.paths.details(variant)
        content = read_checked_json(folder / "details.json", DetailsFile, remedy)
        if content["metrics"] != metrics:
            raise CondmixError(
                f"{folder / 'details.json'} is of another evaluation than {params.paths.metrics / variant}.json: "
                f"run {remedy}"
            )
        others = [Condition.ORACLE] if metrics.get(Condition.ORACLE) else []
        names = ["real", metrics["condition"], *others]
        pictures = {name: read_pictures(folder / f"{name}.npy", len(content["samples"]), remedy) for name in names}
        losses = read_losses(params.paths.metrics / "losses" / f"{variant}.csv", f"dvc repro train@{variant}")
        return cls(metrics, content["card"], content["samples"], pictures, losses)


def scene_texts(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The texts of one picture, given its sample of every variant: "captions", by people or templates, each with
    whether it conditioned a variant, and "generated", those of a captioner that did.
    """
    captions, name = samples[0]["captions"], samples[0].get("class")
    used = dict.fromkeys(text for sample in samples for text in sample["condition_captions"])
    return {
        "captions": [(caption, caption in used) for caption in captions],
        # where a class conditions, its name is among the texts that condition
        "generated": [text for text in used if text not in captions and text != name],
    }


def read_pictures(path: Path, count: int, remedy: str) -> np.ndarray:
    """(count, S, S, 3) uint8."""
    return read_array(path, np.uint8, (count, None, None, 3), remedy)


def read_losses(path: Path, remedy: str) -> list[tuple[float, float]]:
    """(images seen, loss) at every logged step."""
    try:
        rows = csv.DictReader(read_text(path, remedy).splitlines())
        if not {"images", "loss"} <= set(rows.fieldnames or ()):
            raise KeyError("images, loss")
        points = [(float(row["images"]), float(row["loss"])) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(path, f"{error!r}", remedy) from None
    if not np.isfinite(points).all():
        raise damaged(path, "it holds NaN or infinity", remedy)
    return points
