"""The settings: every key of params.yaml and conf/<profile>.yaml, with its type and range.

No key has a value here: what is not written in a file, neither DVC nor a grid can see. Values that an older profile
lacks come from conf/reference/settings.yaml, by `condmix check --fill`.
"""

from __future__ import annotations

import re
import reprlib
import string
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
    model_validator,
)
from pydantic_core import ErrorDetails

from condmix import CondmixError
from condmix.settings.content import content_sha256, located
from condmix.settings.paths import Paths
from condmix.settings.perspectives import parse
from condmix.settings.plugins import unknown

VariantName = Literal["class_v1", "class_v2", "caption", "experiment"]
VARIANTS: tuple[str, ...] = get_args(VariantName)
FEATURES = ("inception", "judge", "clip")  # spaces in which sets of pictures are compared
EXPERIMENT = ("profile", "fusion", "perspectives", "guidance", "seed", "variants")  # keys of params.yaml

# Strict: "3" is no number, true is no 1, and 1 is no true.
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(max_length=4096)]
Name = Annotated[str, Strict(), Field(min_length=1, max_length=4096)]
Positive = Annotated[int, Strict(), Field(gt=0, le=10**9)]
Several = Annotated[int, Strict(), Field(ge=2, le=10**9)]  # pictures of a set: a covariance needs two
PictureCount = Annotated[int, Strict(), Field(gt=0, le=10**12)]
Side = Annotated[int, Strict(), Field(gt=0, le=4096)]  # pixels
Processes = Annotated[int, Strict(), Field(gt=0, le=1024)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]  # torch's CPU generator reads 32 bits
Number = Annotated[float, Strict(), Field(ge=0, le=1e6)]
AboveZero = Annotated[float, Strict(), Field(gt=0, le=1e6)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1)]
Guidance = Annotated[float, Strict(), Field(ge=0, le=1000)]
Rate = Annotated[float, Strict(), Field(gt=0, le=100)]  # learning rates
Sha256 = Annotated[str, Strict(), Field(pattern=r"^[0-9a-f]{64}$")]


class Undeclared(CondmixError, AttributeError):
    """A stage reads a setting that dvc.yaml does not declare for it (condmix.pipeline.view)."""


class Settings(BaseModel):
    """Base of every section: frozen, every key is required, an unknown one is an error, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # or every name would be a setting to mypy

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise Undeclared(f'this stage reads the setting "{name}", but dvc.yaml does not list it in its params')
            return super().__getattr__(name)


class Content(Settings):
    """A file or folder named by its checksum, so that DVC and grids see a change of it as a change of settings.

    "package:<name>/<rest>" as the path is what lies there in an installed Python package.
    """

    path: Name
    sha256: Sha256

    @model_validator(mode="before")
    @classmethod
    def _not_a_path_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(_content_of(value))
        return value

    @property
    def place(self) -> Path:
        """The path, in the installed package if it names one; unverified."""
        return located(self.path)

    def verified(self, setting: str) -> Path:
        """The path, whose content is what was meant; CondmixError names the `setting` and both checksums where not."""
        try:
            path = self.place
            actual = content_sha256(path)
        except CondmixError as error:
            raise CondmixError(f"{setting}: {error}") from None
        if actual != self.sha256:
            raise CondmixError(
                f"{setting}: {path} has sha256 {actual}, but the profile says {self.sha256}: put the right content "
                "there, or write the new checksum into the profile"
            )
        return path


def _content_of(path: str) -> str:
    return f"a path is written {{path: {path}, sha256: ...}} with what `condmix hash {path}` prints"


def _model_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "<content>" if value.keys() & {"path", "sha256"} else "<architecture>"
    return "<content>" if isinstance(value, Content) else "<name>"


def _model_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", value):
        raise ValueError(f"no model is called so; {_content_of(value)}")
    return value


ModelName = Annotated[Name, AfterValidator(_model_name), Tag("<name>")]
ModelContent = Annotated[Content, Tag("<content>")]
ArchitectureSettings = Annotated[dict[Text, Any], Field(min_length=1), Tag("<architecture>")]


def is_commit(revision: str | None) -> bool:
    """Whether a revision names one commit for good, and not a branch that moves."""
    return revision is not None and len(revision) == 40 and set(revision) <= set(string.hexdigits.lower())


def hub_revision(model: str | Content, revision: str | None) -> None:
    """ValueError unless a name on the Hugging Face hub comes with a commit, and a local folder with none."""
    if isinstance(model, Content) and revision is not None:
        raise ValueError(f"{model.path} is a local folder, which has no revision; write `revision: null`")
    if isinstance(model, str) and not is_commit(revision):
        raise ValueError(
            f"{model} is a name on the Hugging Face hub, so revision must be a commit of it (40 hex digits), which "
            "always means the same weights; a local folder is written {path: ..., sha256: ...} (condmix hash)"
        )


class File(Settings):
    """One archive to download: where it is, how large, and what proves it whole."""

    name: Name
    url: Name
    size: Annotated[int, Strict(), Field(gt=0, lt=2**63)]
    checksum: Annotated[str, Strict(), Field(pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]


class Data(Settings):
    """The data set (a plug-in of `datasets/`) and the size that the diffusion model sees."""

    dataset: Name
    image_size: Side
    flip: Flag  # horizontal flips in training; wrong where captions say "left"
    world: dict[Text, Annotated[int, Strict(), Field(ge=0, lt=2**32)]]  # settings of the data set's own
    files: tuple[File, ...]
    folder: Name | None  # files of one's own, which the stage fetch packs


def _template(text: str) -> str:
    if "{}" not in text or text.count("{") + text.count("}") > 2:
        raise ValueError(
            'a template has {} once, in the place of the class name, as in "a photo of a {}.", and no other braces'
        )
    return text


class CaptionsSettings(Settings):
    """Class templates for data that people did not caption; "{}" stands for the class name."""

    templates: tuple[Annotated[str, Strict(), AfterValidator(_template)], ...]


class CaptionerTraining(Settings):
    """How a captioner is trained on the training split's own captions."""

    steps: Positive
    batch_size: Positive
    lr: Rate
    warmup: Fraction  # share of the steps
    weight_decay: Number


class GeneratedSettings(Settings):
    """Captions that a captioner (a plug-in of `captioners/`) writes: generated_1 ... generated_K (docs/captions.md)."""

    captioner: Name
    captions: Annotated[int, Strict(), Field(gt=0, le=1000)]  # K, the most that are kept of a picture
    samples: Annotated[int, Strict(), Field(gt=0, le=1000)] | None  # drawn for each picture; null: K
    model: Annotated[ModelName | ModelContent | ArchitectureSettings, Discriminator(_model_kind)]
    revision: Name | None  # of the hub, a commit; of an open_clip model, the tag of its weights
    prompts: tuple[Text, ...]  # in turn over a picture's samples; empty: the captioner's own
    top_p: Fraction  # nucleus sampling; 0: the likeliest word each time
    temperature: Annotated[float, Strict(), Field(ge=1e-3, le=100)]
    max_tokens: Positive  # longer captions are cut
    batch_size: Positive  # pictures at a time
    shard: Positive  # pictures after which what is done is kept
    precision: Literal["fp32", "bf16"]
    seed: Seed  # its own, so that every seed of the experiment has the same captions
    training: CaptionerTraining | None
    min_similarity: Annotated[float, Strict(), Field(ge=-1, le=1)] | None  # of CLIP, caption and picture
    better_than: Fraction | None  # keep what is more similar than this share of captions to other pictures

    @model_validator(mode="after")
    def _fits(self) -> GeneratedSettings:
        if isinstance(self.model, Content):
            hub_revision(self.model, self.revision)
        if self.better_than is not None and self.batch_size < 2:
            raise ValueError("better_than compares the pictures of a batch, so batch_size must be 2 or more")
        return self


Rgb = tuple[Fraction, Fraction, Fraction]


def _above_zero(std: Any) -> Any:
    if not all(std):
        raise ValueError("a standard deviation is above 0")
    return std


class Towers(Settings):
    """Pretrained towers that stay as they are, while `clip` learns their projections into one space."""

    image: Content  # file of weights of clip.model.vision_cfg.timm_model_name
    text: Content  # folder of a text encoder of transformers
    mean: Rgb  # of pixels in 0..1, as `image` was trained
    std: Annotated[Rgb, AfterValidator(_above_zero)]


class ClipSettings(Settings):
    """The CLIP whose towers embed: pretrained (open_clip name + tag, or a weights file), or trained here."""

    model: Text | dict[Text, Any] | None
    pretrained: Name | None
    weights: Content | None
    towers: Towers | None  # of a CLIP that is trained here: null, or pretrained ones that are locked
    steps: Positive
    batch_size: Annotated[int, Strict(), Field(ge=2, le=10**9)]  # a picture is compared with the others of its batch
    optimizer: Literal["adamw", "muon"]
    lr: Rate
    warmup: Fraction  # share of the steps
    weight_decay: Number
    joined: Fraction  # share of the texts that join several captions of an image
    seed: Seed  # its own, so that every seed of the experiment has the same vectors
    processes: Processes  # CPU processes that train it together


class T5(Settings):
    """The text encoder of the perspectives t5_k: a local folder, or a name on the Hugging Face hub and a commit."""

    model: Annotated[ModelName | ModelContent, Discriminator(_model_kind)]
    revision: Name | None
    max_tokens: Positive  # longer captions are cut
    precision: Literal["fp32", "bf16"]

    @model_validator(mode="after")
    def _fixed(self) -> T5:
        hub_revision(self.model, self.revision)
        return self


def _network_name(name: str) -> str:
    if parse(f"image_{name}") is None or name in FEATURES:
        raise ValueError(f"a network's name is a lowercase word, such as dino, and not {' or '.join(FEATURES)}")
    return name


class Backbone(Settings):
    """A network of timm, by a name of one's own: the perspective image_<name>, and features of distances."""

    model: Name  # timm's name
    weights: Content
    image_size: Side
    mean: Rgb  # of pixels in 0..1, as it was trained
    std: Annotated[Rgb, AfterValidator(_above_zero)]


class Import(Content):
    """Vectors that someone else computed, of one perspective and split: a file as docs/embeddings.md describes it."""

    perspective: Name
    split: Literal["train", "test"]


def _batch_size(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or not 1 <= value <= 10**9):
        raise ValueError('a batch size is a whole number from 1, or "auto"')
    return value


class Embed(Settings):
    """Which encoders make perspectives, and how many captions per image become caption_1 ... caption_K."""

    encoders: Annotated[tuple[Name, ...], Field(min_length=1)]
    captions: Annotated[int, Strict(), Field(gt=0, le=1000)]
    joined: tuple[Annotated[int, Strict(), Field(ge=2, le=1000)], ...]  # k of caption_joined_k, each encoded besides
    centre: Flag  # subtract the training split's mean vector from those of pictures and texts
    batch_size: Annotated[Any, AfterValidator(_batch_size)]  # items at once, less where memory ends
    length_buckets: Flag  # batches of captions of like length: less padding, other rounding
    precision: Literal["auto", "fp32", "bf16"]  # of CLIP's towers
    processes: Processes  # CPU processes that share the work; on GPUs launch with accelerate
    t5: T5 | None  # what the encoder t5_text loads
    timm: dict[Annotated[str, AfterValidator(_network_name)], Backbone]  # what the encoder timm_image loads
    imports: tuple[Import, ...]


class JudgeSettings(Settings):
    """The network that judges pictures: trained on real ones here, or a CIFAR-10 ResNet-56 checkpoint."""

    weights: Content | None
    steps: Positive
    batch_size: Annotated[int, Strict(), Field(ge=2, le=10**9)]  # batch normalisation takes no single picture
    lr: Rate
    seed: Seed  # its own, so that every experiment has the same judge
    probe: Backbone | None  # a network of timm whose features a second judge reads


Multiplier = Annotated[int, Strict(), Field(gt=0, le=1024)]


class ModelSettings(Settings):
    """The U-Net of Ho et al. 2020; `attention` lists the resolutions with self-attention."""

    channels: Annotated[int, Strict(), Field(ge=4, le=8192, multiple_of=2)]  # sines and cosines of the time
    multipliers: Annotated[tuple[Multiplier, ...], Field(min_length=1, max_length=13)]
    blocks: Annotated[int, Strict(), Field(gt=0, le=64)]
    attention: tuple[Positive, ...]
    dropout: Annotated[float, Strict(), Field(ge=0, lt=1)]
    position_map: Flag
    scale_shift: Flag  # condition by scale and shift, not by a shift alone as in DDPM
    match_parameters: Annotated[int, Strict(), Field(gt=0, lt=10**12)] | None  # widen until the model has so many


class Diffusion(Settings):
    """Forward process and what the network predicts."""

    schedule: Literal["linear", "cosine"]
    steps: Annotated[int, Strict(), Field(ge=2, le=10**6)]
    prediction: Literal["epsilon", "v", "x0"]
    min_snr_gamma: AboveZero | None


class Train(Settings):
    """Budget and optimiser; `images` counts pictures seen, so that batch sizes compare."""

    images: PictureCount
    batch_size: Positive  # of an optimiser step, over all processes
    micro_batch: Positive | None  # pictures that a process takes at once; null: its whole share
    optimizer: Literal["adamw", "muon"]  # muon: Muon for matrices, AdamW for all other weights
    lr: Rate
    warmup: Fraction  # share of the steps
    decay: Fraction  # share of the steps over which lr falls to zero at the end
    weight_decay: Number
    clip_norm: AboveZero
    ema: Fraction
    p_uncond: Fraction
    p_source: Fraction
    pseudo_noise: Number  # xi of the perspective `pseudo` (condmix.clip.pseudo)
    caption_noise: Number  # xi of CLIP's vectors of real captions
    logit_normal_times: (
        tuple[Annotated[float, Strict(), Field(ge=-100, le=100)], Annotated[float, Strict(), Field(gt=0, le=100)]]
        | None
    )  # (mean, sd); null: uniform
    precision: Literal["auto", "fp32", "bf16"]
    compile: Flag
    processes: Processes  # CPU processes that this stage starts itself; on GPUs launch with accelerate
    checkpoint_seconds: Number
    log_every: Positive


class Prior(Settings):
    """From a text's vector to a picture's, condmix.clip.shifted_diffusion; a profile whose `prior` is null has none."""

    clusters: Annotated[int, Strict(), Field(ge=0, le=10**6)]  # whose means and sds are the start; 0: N(0, I)
    width: Annotated[int, Strict(), Field(gt=0, le=65536)]
    blocks: Annotated[int, Strict(), Field(gt=0, le=1000)]
    steps: Positive
    batch_size: Positive
    lr: Rate
    p_uncond: Fraction
    guidance: Guidance
    sample_steps: Positive
    ablation: Flag  # also train and measure the start N(0, I), for as many steps
    seed: Seed  # its own, like CLIP's


def _resamples(count: int) -> int:
    if count and count < 40:
        raise ValueError("a 95% interval needs at least 40 resamples; 0 leaves it out")
    return count


def _interval(shares: tuple[float, float]) -> tuple[float, float]:
    if not shares[0] < shares[1]:
        raise ValueError("an interval's first share must lie below its second")
    return shares


Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_interval)]


class Evaluate(Settings):
    """What is sampled and measured for each variant."""

    n: Several
    batch_size: Positive
    other_n: Several | None  # pictures of each further way of asking (the oracle, the prior); null: n
    sampler: Name
    steps: Positive
    spacing: Literal["uniform", "karras"]  # of the times that the sampler visits
    last_time: Annotated[float, Strict(), Field(ge=0, lt=1)] | None  # as a share of the diffusion time; null: 1 / steps
    sweep: tuple[Guidance, ...]
    sweep_n: Several
    published_n: Several | None  # pictures for the distance to the training split; null: it is not measured
    processes: Processes
    composed: Flag  # guide every source by itself, with weights s / K
    interval: Interval | None  # shares of the diffusion time between which guidance acts
    threshold: Fraction  # of dynamic thresholding; 0: clip to the range of pictures
    # Bootstrap of the distances' intervals; 0: none
    resamples: Annotated[int, Strict(), Field(ge=0, le=10**6), AfterValidator(_resamples)]
    features: Annotated[tuple[Name, ...], Field(min_length=1)]  # of FEATURES, or a name in embed.timm
    scorer: Content | None  # folder of a CLIP that conditions nothing, to score captions that were held out
    inception_weights: Content | None  # null: downloaded


def _some_weight(weights: tuple[float, float]) -> tuple[float, float]:
    if not sum(weights):
        raise ValueError("one of the two weights must be above 0")
    return weights


Weights = Annotated[tuple[Number, Number], AfterValidator(_some_weight)]


class Params(Settings):
    """Everything a stage may ask for."""

    root: Path
    profile: Name
    fusion: Text
    perspectives: Annotated[tuple[Text, ...], Field(min_length=1)]
    guidance: Guidance
    seed: Seed
    variants: Annotated[tuple[VariantName, ...], Field(min_length=1)]

    data: Data
    captions: CaptionsSettings
    generated: GeneratedSettings | None  # null: no captioner writes anything
    mixed_any: Weights | None  # of the true and the generated captions that it draws from; null: all alike
    clip: ClipSettings
    embed: Embed
    judge: JudgeSettings
    model: ModelSettings
    diffusion: Diffusion
    prior: Prior | None
    train: Train
    evaluate: Evaluate

    @property
    def paths(self) -> Paths:
        """Where this profile's files lie."""
        return Paths(self.root, self.profile)


# What pydantic says of a wrong value, as one sentence


def key_of(location: tuple[int | str, ...]) -> str:
    """The dotted key of a value; the tags of a choice between types are no part of it."""
    return ".".join(str(part) for part in location if not str(part).startswith("<"))


def sentence(problem: ErrorDetails, model: type[Settings], where: str) -> str:
    """One of `ValidationError.errors()` of a model: the file, the key, what was given, what is expected."""
    location, key = problem["loc"], key_of(problem["loc"])
    if problem["type"] == "extra_forbidden":
        section = key_of(location[:-1])
        known = [f"{section}.{name}" if section else name for name in sorted(fields_at(model, location[:-1]))]
        return unknown("setting", key, known, where)
    if problem["type"] == "missing":
        return f"{where}: {key} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "too_short":
        message = f"list at least {problem['ctx']['min_length']}"
    message = message[0].lower() + message[1:]
    given = "" if isinstance(problem["input"], dict) else f" is {_shown(problem['input'])};"
    return f"{where}: {key}{given or ':'} {message}"


def fields_at(model: type[Settings], location: tuple[int | str, ...]) -> dict[str, Any]:
    """The settings that exist in the section at `location`: name -> pydantic's field."""
    section: Any = model
    for part in location:
        if part in section.model_fields:  # else a place in a list, a name in a mapping, or a tag
            section = _section_in(section.model_fields[part].annotation) or section
    return {name: field for name, field in section.model_fields.items() if name not in ("root", "name")}


def _section_in(annotation: Any) -> type[Settings] | None:
    """The model that an annotation is of, or holds: Prior in `Prior | None`, File in `tuple[File, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def nullable(field: Any) -> bool:
    """Whether a field may be null."""
    return NoneType in get_args(field.annotation)


def _shown(value: Any) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = 100
    return short.repr(value)
