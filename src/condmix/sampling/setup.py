"""What a trained model is drawn with where a request leaves it open, and where its CLIP lies.

In a project, params.yaml and conf/<profile>.yaml say so. An exported folder (`condmix export`) stands alone:

    config.json          the variant, the format's number, the defaults (`Exported`)
    model.json           the model's card
    model.safetensors    its weights
    clip/                the CLIP whose vectors it was trained on
    prior/               from a text's vector to a picture's, if it has one
    README.md            the model card for people
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.files.artifacts import read_json
from condmix.settings.load import Params

CONFIG = "config.json"
FORMAT = 1  # of an exported folder; a later condmix that reads it otherwise counts up
DEMO = Path(__file__).parents[1] / "demo_model"  # an exported folder that comes with condmix
REMEDY = "condmix export again, or fetch it again where it came from"

Share = Annotated[float, Field(ge=0, le=1)]


class Defaults(TypedDict):
    """Of a request: `Request` says what each means.

    `last_time` is that of `condmix.samplers.times`, `batch_size` how many pictures are drawn at once.
    """

    guidance: float
    sampler: str
    spacing: str
    last_time: Share | None
    steps: Annotated[int, Field(ge=1)]
    interval: list[Share] | None
    threshold: Share
    batch_size: Annotated[int, Field(ge=1)]


class Exported(TypedDict):
    """config.json of an exported folder."""

    library_name: str
    format: int
    condmix: str
    variant: str
    defaults: Defaults


class Setup(NamedTuple):
    """What `LoadedModel` needs besides the model."""

    defaults: Defaults
    clip: Path
    prior: Path


def setup_of(params: Params) -> Setup:
    """That of a project."""
    evaluate = params.evaluate
    defaults: Any = {"guidance": params.guidance} | {
        name: getattr(evaluate, name) for name in Defaults.__annotations__ if name != "guidance"
    }
    return Setup(defaults, params.paths.clip, params.paths.prior)


def is_exported(folder: Path) -> bool:
    """Whether `condmix export` may have written this folder."""
    return (folder / CONFIG).is_file() and (folder / "model.json").is_file()


def exported_setup(folder: Path) -> Setup:
    """That of an exported folder; CondmixError where it is damaged, or of a condmix that writes it otherwise."""
    config = read_json(folder / CONFIG, dict[str, Any], REMEDY)
    if config.get("library_name") != "condmix":
        raise CondmixError(f"{folder} holds no model of condmix: {CONFIG} does not name condmix as its library")
    if config.get("format") != FORMAT:
        raise CondmixError(
            f"{folder} was exported by condmix {config.get('condmix')} in format {config.get('format')}, and this one "
            f"reads format {FORMAT}: install that version of condmix, or export the model again with this one"
        )
    config = read_json(folder / CONFIG, Exported, REMEDY)
    return Setup(config["defaults"], folder / "clip", folder / "prior")
