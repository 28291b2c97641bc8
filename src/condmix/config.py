"""params.yaml + conf/<profile>.yaml -> one frozen, checked `Params`; and the plug-ins, found by file name.

params.yaml holds the experiment, conf/<profile>.yaml everything that a profile fixes. Names and types are
checked here once; the stages trust them.
"""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from condmix import CondmixError
from condmix.perspectives import ALONE, parse
from condmix.perspectives import known as known_perspectives

VARIANTS = ("class_v1", "class_v2", "caption", "experiment")

Name = Annotated[str, Field(min_length=1)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class File(Settings):
    """One archive to download: where it is, how large, and what proves it whole."""

    name: Name
    url: Name
    size: Positive
    checksum: Annotated[str, Field(pattern=r"^(md5|sha256):[0-9a-f]+$")]


class Data(Settings):
    """The data set (a plug-in of `datasets/`) and the size that the diffusion model sees."""

    dataset: Name
    image_size: Positive
    flip: bool = False  # horizontal flips in training; wrong where captions say "left"
    world: dict[str, int] = {}  # settings of the data set's own
    files: tuple[File, ...] = ()
    folder: Name | None = None  # files of one's own, which the stage fetch packs


class Captions(Settings):
    """Class templates for data that people did not caption; "{}" stands for the class name."""

    templates: tuple[str, ...] = ()


class CaptionerTraining(Settings):
    """How a captioner is trained on the training split's own captions."""

    steps: Positive
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Fraction = 0.1  # share of the steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.1


class Generated(Settings):
    """Captions that a captioner (a plug-in of `captioners/`) writes: generated_1 ... generated_K (docs/captions.md)."""

    captioner: Name
    captions: Positive = 3  # K, the most that are kept of a picture
    samples: Positive | None = None  # drawn for each picture; null: K
    model: Name | dict[str, Any]  # a local folder, or a name; or the architecture of a captioner that is trained
    revision: str | None = None  # of the hub, a commit; of an open_clip model, the tag of its weights
    prompts: tuple[str, ...] = ()  # in turn over a picture's samples; empty: the captioner's own
    top_p: Fraction = 0.9  # nucleus sampling; 0: the likeliest word each time
    temperature: Annotated[float, Field(gt=0)] = 1.0
    max_tokens: Positive = 60  # longer captions are cut
    batch_size: Positive = 64  # pictures at a time
    shard: Positive = 2048  # pictures after which what is done is kept
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: Annotated[int, Field(ge=0)] = 0  # its own, so that another seed of the experiment is told the same captions
    training: CaptionerTraining | None = None
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None  # of CLIP, caption and picture
    better_than: Fraction | None = None  # keep what is more similar than this share of captions to other pictures


class Clip(Settings):
    """The CLIP whose towers embed: pretrained (open_clip name + tag, or a weights file), or trained here."""

    model: str | dict[str, Any] = {}
    pretrained: str | None = None
    weights: str | None = None
    steps: Positive = 1000
    batch_size: Positive = 256
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Fraction = 0.1  # share of the steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    joined: Fraction = 0.5  # share of the texts that join several captions of an image
    seed: Annotated[int, Field(ge=0)] = 0  # its own, so that another seed of the experiment is told the same vectors
    processes: Positive = 1  # CPU processes that train it together


class T5(Settings):
    """The text encoder of the perspectives t5_k: a local folder, or a name on the Hugging Face hub and a revision."""

    model: Name
    revision: str | None = None  # of the hub: a commit, so that the same settings always mean the same weights
    max_tokens: Positive = 128  # longer captions are cut
    precision: Literal["fp32", "bf16"] = "fp32"


class Import(Settings):
    """Vectors that someone else computed, of one perspective and split: a file as docs/embeddings.md describes it."""

    perspective: Name
    split: Literal["train", "test"]
    path: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # DVC tracks the file by it


def _batch_size(value: Any) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise ValueError('a batch size is a whole number from 1, or "auto"')
    return value


class Embed(Settings):
    """Which encoders make perspectives, and how many captions per image become caption_1 ... caption_K."""

    encoders: tuple[str, ...] = ("clip_image", "clip_text", "class_label")
    captions: Positive = 5
    batch_size: Annotated[Any, AfterValidator(_batch_size)] = "auto"  # items at once, less where memory ends
    length_buckets: bool = False  # batches of captions of like length: less padding, other rounding
    precision: Literal["auto", "fp32", "bf16"] = "fp32"  # of CLIP's towers
    processes: Positive = 1  # CPU processes that share the work; on GPUs launch with accelerate
    t5: T5 | None = None  # what the encoder t5_text loads
    imports: tuple[Import, ...] = ()


class Judge(Settings):
    """The network that judges pictures: trained on real ones here, or a CIFAR-10 ResNet-56 checkpoint."""

    weights: str | None = None
    steps: Positive = 600
    batch_size: Positive = 128
    lr: Annotated[float, Field(gt=0)] = 2e-3
    seed: Annotated[int, Field(ge=0)] = 0  # its own, so that every experiment has the same judge


class Model(Settings):
    """The U-Net of Ho et al. 2020; `attention` lists the resolutions with self-attention."""

    channels: Positive
    multipliers: tuple[Positive, ...]
    blocks: Positive
    attention: tuple[Positive, ...]
    dropout: Fraction = 0.0
    position_map: bool = False
    scale_shift: bool = False  # condition by scale and shift, not by a shift alone as in DDPM
    match_parameters: Positive | None = None  # widen the conditioning until the model has so many, to compare fusions


class Diffusion(Settings):
    """Forward process and what the network predicts."""

    schedule: Literal["linear", "cosine"] = "cosine"
    steps: Positive = 1000
    prediction: Literal["epsilon", "v", "x0"] = "v"
    min_snr_gamma: float | None = None


class Train(Settings):
    """Budget and optimiser; `images` counts pictures seen, so that batch sizes compare."""

    images: Positive
    batch_size: Positive  # of an optimiser step, over all processes
    micro_batch: Positive | None = None  # pictures that a process takes at once; null: its whole share
    lr: Annotated[float, Field(gt=0)]
    warmup: Fraction = 0.02  # share of the steps
    decay: Fraction = 0.4  # share of the steps over which lr falls to zero at the end
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    ema: Fraction = 0.9995
    p_uncond: Fraction = 0.1
    p_source: Fraction = 0.1
    pseudo_noise: Annotated[float, Field(ge=0)] = 3.0  # xi of the perspective `pseudo` (condmix.pseudo)
    caption_noise: Annotated[float, Field(ge=0)] = 0.0  # xi of CLIP's vectors of real captions
    logit_normal_times: tuple[float, Annotated[float, Field(gt=0)]] | None = None  # (mean, sd); null: uniform
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    processes: Positive = 1  # CPU processes that this stage starts itself; on GPUs launch with accelerate
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    log_every: Positive = 50


class Prior(Settings):
    """From a text's vector to a picture's (condmix.shifted_diffusion); a profile whose `prior` is null has none."""

    clusters: Annotated[int, Field(ge=0)] = 32  # whose means and sds are the start; 0: N(0, I)
    width: Positive = 512
    blocks: Positive = 4
    steps: Positive = 20000
    batch_size: Positive = 512
    lr: Annotated[float, Field(gt=0)] = 5e-4
    p_uncond: Fraction = 0.1
    guidance: Annotated[float, Field(ge=0)] = 1.0
    sample_steps: Positive = 16
    ablation: bool = True  # also train and measure the start N(0, I), for as many steps
    seed: Annotated[int, Field(ge=0)] = 0  # its own, like CLIP's


def _resamples(count: int) -> int:
    if count and count < 40:
        raise ValueError("a 95% interval needs at least 40 resamples; 0 leaves it out")
    return count


class Evaluate(Settings):
    """What is sampled and measured for each variant."""

    n: Positive
    batch_size: Positive = 100
    other_n: Positive | None = None  # pictures of each further way of asking (the oracle, the prior); null: n
    sampler: Name = "dpmpp_2m"
    steps: Positive = 16
    sweep: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
    sweep_n: Positive = 100
    processes: Positive = 1
    composed: bool = False  # guide every source by itself, with weights s / K
    interval: tuple[Fraction, Fraction] | None = None  # shares of the diffusion time between which guidance acts
    resamples: Annotated[int, AfterValidator(_resamples)] = 200  # bootstrap of the distances' intervals; 0: none
    features: tuple[Literal["inception", "judge", "clip"], ...] = ("judge", "clip")
    scorer: str | None = None  # folder of a CLIP that conditions nothing, to score captions that were not told
    inception_weights: str | None = None


def _some_weight(weights: tuple[float, float]) -> tuple[float, float]:
    if not sum(weights):
        raise ValueError("one of the two weights must be above 0")
    return weights


Weights = Annotated[tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], AfterValidator(_some_weight)]


class Paths:
    """Where a profile's files lie, relative to the repository's root."""

    def __init__(self, root: Path, profile: str):
        self.root = root
        data = root / "data" / profile
        self.archives = data / "archives"
        self.partial = data / "partial"
        self.dataset = data / "dataset"
        self.captions = data / "captions"
        self.generated = data / "generated"
        self.embeddings = data / "embeddings"
        self._packed = data / "packed"
        self._drawn = data / "drawn"
        self.models = root / "models"
        self.clip = self.models / "clip"
        self.judge = self.models / "judge"
        self.prior = self.models / "prior"
        self.metrics = root / "metrics"
        self.statistics = data / "statistics"
        self.report = self.metrics / "report"
        self.params_ok = root / "data" / "params.ok"

    def packed(self, variant: str) -> Path:
        """Folder of a variant's packed perspectives."""
        return self._packed / variant

    def model(self, variant: str) -> Path:
        """Folder of a trained variant."""
        return self.models / variant

    def drawn(self, variant: str) -> Path:
        """Folder in which the processes of an evaluation leave their pictures for the one that measures them."""
        return self._drawn / variant

    def details(self, variant: str) -> Path:
        """Folder of a variant's evaluation in full: rows, sweep, sample pictures."""
        return self.metrics / "details" / variant


class Params(Settings):
    """Everything a stage may ask for."""

    root: Path
    profile: Name
    fusion: Name
    perspectives: Annotated[tuple[str, ...], Field(min_length=1)]
    guidance: Annotated[float, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    variants: Annotated[tuple[Literal[VARIANTS], ...], Field(min_length=1)]

    data: Data
    captions: Captions = Captions()
    generated: Generated | None = None  # null: no captioner writes anything
    mixed_any: Weights | None = None  # of the true and the generated captions that it draws from; null: all alike
    clip: Clip
    embed: Embed = Embed()
    judge: Judge = Judge()
    model: Model
    diffusion: Diffusion = Diffusion()
    prior: Prior | None = None
    train: Train
    evaluate: Evaluate

    @property
    def paths(self) -> Paths:
        """Where this profile's files lie."""
        return Paths(self.root, self.profile)


def load(root: Path = Path("."), profile: str | None = None) -> Params:
    """The checked parameters of the project in `root`; CondmixError names the first thing that is wrong.

    `profile` stands in for that of params.yaml.
    """
    experiment = _read_yaml(root / "params.yaml")
    if profile is not None:
        experiment["profile"] = profile
    profile = experiment.get("profile")
    profiles = sorted(path.stem for path in (root / "conf").glob("*.yaml"))
    if profile not in profiles:
        raise CondmixError(unknown("profile", profile, profiles, where="params.yaml"))
    settings = _read_yaml(root / "conf" / f"{profile}.yaml")
    for key in settings.keys() & experiment.keys():
        raise CondmixError(f"{key} stands in both params.yaml and conf/{profile}.yaml; remove one of them")
    try:
        params = Params(root=root, **experiment, **settings)
    except ValidationError as error:
        raise CondmixError(_first_problem(error, experiment, profile)) from None
    _check_names(params)
    return params


def plugins(kind: str) -> list[str]:
    """Names of the plug-ins of a kind: the files of the package condmix/<kind>/."""
    folder = Path(__file__).parent / kind
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def plugin(kind: str, name: str) -> Any:
    """What the file condmix/<kind>/<name>.py defines under its own name.

    A class in CamelCase (`fusions/cross_attention.py` -> `CrossAttention`) or else a function
    (`samplers/ddim.py` -> `ddim`).
    """
    if name not in plugins(kind):
        raise CondmixError(unknown(kind.removesuffix("s"), name, plugins(kind)))
    module = importlib.import_module(f"condmix.{kind}.{name}")
    camel = "".join(part.capitalize() for part in name.split("_"))
    return getattr(module, camel, None) or getattr(module, name)


def unknown(what: str, given: object, known: list[str], where: str = "") -> str:
    """The sentence for a name that does not exist, with the nearest name that does."""
    near = difflib.get_close_matches(str(given), known, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    prefix = f"{where}: " if where else ""
    return f'{prefix}no {what} "{given}"; found: {", ".join(known)}{hint}'


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise CondmixError(f"no {path}: run condmix in the root of a condmix project") from None
    except yaml.YAMLError as error:
        raise CondmixError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CondmixError(f"{path} must be a mapping of settings, not {type(content).__name__}")
    return content


def _check_names(params: Params) -> None:
    for kind, name, where in [
        ("fusions", params.fusion, "params.yaml"),
        ("datasets", params.data.dataset, f"conf/{params.profile}.yaml"),
        ("samplers", params.evaluate.sampler, f"conf/{params.profile}.yaml"),
        *(("captioners", one.captioner, f"conf/{params.profile}.yaml") for one in (params.generated,) if one),
        *(("encoders", name, f"conf/{params.profile}.yaml") for name in params.embed.encoders),
    ]:
        if name not in plugins(kind):
            raise CondmixError(unknown(kind.removesuffix("s"), name, plugins(kind), where))
    t5 = "t5_text" in params.embed.encoders
    if t5 and params.embed.t5 is None:
        raise CondmixError(
            f"conf/{params.profile}.yaml: embed.encoders has t5_text, but embed.t5 does not say which model that is"
        )
    _check_imports(params, t5)
    imported = dict.fromkeys(one.perspective for one in params.embed.imports)
    generated = params.generated.captions if params.generated else 0
    known = known_perspectives(params.embed.captions, t5, list(imported), generated)
    for name in params.perspectives:
        if name not in known:
            raise CondmixError(unknown("perspective", name, known, "params.yaml"))
    for field in ("perspectives", "variants"):
        names = getattr(params, field)
        if len(set(names)) < len(names):
            raise CondmixError(f"params.yaml: {field} names one twice: {', '.join(names)}")
    for one in map(parse, params.perspectives):
        missing = [name for name in one.drawn_before if name not in params.perspectives]
        if missing:
            raise CondmixError(
                f"params.yaml: {one.name} is drawn from the captions that {' and '.join(missing)} left over, so "
                f"perspectives must list {'it' if len(missing) == 1 else 'them'} too"
            )
    size, levels = params.data.image_size, len(params.model.multipliers)
    if size % 2 ** (levels - 1):
        raise CondmixError(
            f"conf/{params.profile}.yaml: data.image_size {size} cannot be halved {levels - 1} times, "
            f"as the {levels} model.multipliers ask"
        )


def _check_imports(params: Params, t5: bool) -> None:
    """Imported perspectives have names of their own, and one file per split."""
    seen = set()
    for one in params.embed.imports:
        name, where = one.perspective, f"conf/{params.profile}.yaml: embed.imports"
        parsed = parse(name)
        if parsed is None or parsed.source != name:
            raise CondmixError(f'{where}: "{name}" must be a lowercase word and a number, as in dino_1')
        ours = (*ALONE, "caption", *(["t5"] if t5 else []), *(["generated"] if params.generated else []))
        if parsed.kind in ours:
            raise CondmixError(f'{where}: "{name}" is the name of what our own encoders make; choose another word')
        if (name, one.split) in seen:
            raise CondmixError(f"{where}: {name} has two files for the split {one.split}; leave one of them")
        seen.add((name, one.split))


def _first_problem(error: ValidationError, experiment: dict[str, Any], profile: str) -> str:
    """One sentence for pydantic's first complaint: the file, the key, what was given, what is expected."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    top = problem["loc"][0]
    where = "params.yaml" if top in experiment else f"conf/{profile}.yaml"
    if problem["type"] == "extra_forbidden":
        known = sorted(_fields(problem["loc"][:-1]))
        return unknown("setting", key, [_join(problem["loc"][:-1], name) for name in known], where)
    if problem["type"] == "missing":
        return f"{where if len(problem['loc']) > 1 else f'params.yaml or conf/{profile}.yaml'}: {key} is missing"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {key} is {problem['input']!r}; {message}"


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """The settings that exist in the section at `location`."""
    section: Any = Params
    for part in location:
        if isinstance(part, str):
            section = section.model_fields[part].annotation
            if isinstance(section, UnionType):  # a section that may be null
                section = section.__args__[0]
        else:  # an item of a list of sections
            section = section.__args__[0]
    return [name for name in section.model_fields if name != "root"]


def _join(location: tuple[int | str, ...], name: str) -> str:
    return ".".join([*(str(part) for part in location), name])
