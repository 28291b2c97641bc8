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
from condmix.clip.folder import CARD
from condmix.clip.shifted_diffusion import CARD as PRIOR_CARD
from condmix.clip.shifted_diffusion import PriorCard
from condmix.diffusion.model import Card
from condmix.files.artifacts import damaged, read_checked_json, read_json, read_tensors
from condmix.pipeline import tree_sha256
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
    remedy: str | None = None  # for damage to an exported folder; None in a project, whose files say their own

    # An exported folder's own checksums, compared before others read its files and advise what mends a project's.

    def check_model(self, folder: Path) -> None:
        """CondmixError where an exported model is damaged."""
        if self.remedy is not None:
            card = read_checked_json(folder / "model.json", Card, self.remedy)
            read_tensors(folder / "model.safetensors", self.remedy, card["sha256"])

    def check_clip(self, encoder: str) -> None:
        """CondmixError where an exported CLIP is damaged: it is not `encoder` any more."""
        if self.remedy is not None and f"clip sha256:{tree_sha256(self.clip, CARD)}" != encoder:
            raise damaged(self.clip, "it is not the CLIP that model.json names", self.remedy)

    def check_prior(self) -> None:
        """CondmixError where an exported folder has no prior, or a damaged one."""
        if self.remedy is None:
            return
        path = self.prior / PRIOR_CARD
        card: Any = read_checked_json(path, PriorCard, self.remedy) if path.is_file() else {"trained": False}
        if not card["trained"]:
            raise CondmixError(f"{self.prior.parent} was exported without a prior: leave out prior")
        read_tensors(self.prior / "model.safetensors", self.remedy, card["sha256"])


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


def exported_setup(folder: Path, remedy: str = REMEDY) -> Setup:
    """That of an exported folder; CondmixError where it is damaged, or of a condmix that writes it otherwise."""
    config = read_json(folder / CONFIG, dict[str, Any], remedy)
    if config.get("library_name") != "condmix":
        raise CondmixError(f"{folder} holds no model of condmix: {CONFIG} does not name condmix as its library")
    if config.get("format") != FORMAT:
        raise CondmixError(
            f"{folder} was exported by condmix {config.get('condmix')} in format {config.get('format')}, and this one "
            f"reads format {FORMAT}: install that version of condmix, or export the model again with this one"
        )
    config = read_json(folder / CONFIG, Exported, remedy)
    return Setup(config["defaults"], folder / "clip", folder / "prior", remedy)
