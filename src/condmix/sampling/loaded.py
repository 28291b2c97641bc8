"""A trained model in memory, ready to draw: what `condmix.load` gives.

    model = condmix.load("models/experiment")
    pictures = model(captions=["a red ring", "navy backdrop"], n=4, guidance=2.0, seed=0)  # four PIL pictures

The command line goes through it too.
"""

from __future__ import annotations

import os
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from typing_extensions import Unpack

from condmix import CondmixError
from condmix.clip.shifted_diffusion import Trained, load_prior
from condmix.clip.vocabulary import with_known_words
from condmix.data.captions import one_text
from condmix.data.embeddings import centred, mean
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.encoders import Encoder
from condmix.runtime.messages import reason
from condmix.runtime.oserrors import one_line
from condmix.sampling.drawing import Drawing
from condmix.sampling.request import STRENGTH, Request, check_request, check_weights, pixels_of, typed
from condmix.sampling.sample import Sampling, Start, ViewsAndMask
from condmix.sampling.setup import CONFIG, DEMO, Setup, exported_setup, is_exported, setup_of
from condmix.settings.load import VARIANTS, plugin, unknown
from condmix.settings.load import load as load_params
from condmix.settings.perspectives import fill_slots, most_texts, parse

TEXT = "caption_1"  # the cache by whose mean a text in another perspective's place is centred
ALWAYS = (0.0, 1.0)  # the interval in which guidance acts where none is set
HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
EXPORTED = ["*.json", "*.safetensors", "clip/*", "prior/*"]  # what is fetched of a model on the hub


class VectorSource(NamedTuple):
    """What a vector is made of: one thing, or several that are averaged."""

    encoder: str
    contents: Sequence[Any]
    caches: Sequence[str]  # whose vectors each is like, and is centred like


class LoadedModel:
    """A trained variant. Calling it draws pictures; weights are read once, encoders when first needed."""

    def __init__(self, folder: Path, setup: Setup, device: str | torch.device | None = None):
        """`folder` holds model.safetensors and model.json; `setup` says where CLIP and prior lie, and the defaults."""
        setup.check_model(folder)
        self.model, self.card = load_model(folder)
        self.device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model.to(self.device)
        self.folder = folder
        self._setup = setup
        self._encoders: dict[str, Encoder] = {}

    @property
    def variant(self) -> str:
        """The variant's name."""
        return str(self.card["variant"])

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return str(self.card["sha256"])

    @property
    def perspectives(self) -> list[str]:
        """The names of what the model sees of a picture, such as caption_1, image or class."""
        return list(self.model.architecture.perspectives)

    @property
    def class_names(self) -> list[str]:
        """The values of `class_name`."""
        return list(self.card["class_names"])

    @property
    def size(self) -> int:
        """The pictures' side in pixels."""
        return self.model.architecture.image_size

    def __call__(self, **request: Unpack[Request]) -> list[Image.Image]:
        """PIL pictures, one per seed; the keywords are those of `Request`.

        A picture depends on its condition and seed alone, not on how many are drawn with it (up to rounding).
        CondmixError for an invalid value, before anything is drawn.
        """
        return [Image.fromarray(pixels) for pixels in self.draw(**request)]

    def draw(self, **request: Unpack[Request]) -> np.ndarray:
        """The same as one array (n, S, S, 3) uint8."""
        return self.checked(**request)()

    def pngs(self, **request: Unpack[Request]) -> list[bytes]:
        """The same as PNG files that say how they were made, which `condmix generate --like` makes again."""
        from condmix.sampling.record import png_bytes, record_of

        drawing = self.checked(**request)
        record = record_of(self, drawing)  # once, as it hashes what the model was shown
        return [png_bytes(pixels, {**record, "picture": i}) for i, pixels in enumerate(drawing())]

    def checked(self, **request: Unpack[Request]) -> Drawing:
        """`draw` in two steps, for a caller with checks of its own: what comes back draws, and nothing is drawn yet."""
        request = self.resolved(request)
        check_request(request)
        sampling = self._sampling(request)
        n, seed, ends = request["n"], request["seed"], self._slots(request.get("to", ()), "captions of to")
        unwanted = self._slots(request.get("negatives", ()), "negatives")
        given = self._without(self._given(request), request.get("without", ()))
        check_weights(request.get("weights", {}), self.perspectives, given)
        for name in ends.keys() - given.keys():
            raise CondmixError(f"to: nothing was given for {name}, where the way would begin; give it a caption")
        prior = self._prior() if request.get("prior") else None
        return Drawing(
            self.model,
            sampling,
            self._between(given, ends, n),
            [seed] * n if ends else range(seed, seed + n),
            self._setup.defaults["batch_size"],
            request,
            self._between(unwanted, {}, n) if unwanted else None,
            prior,
        )

    def _prior(self) -> Trained:
        self._setup.check_prior()
        return load_prior(self._setup.prior, self.card["encoder"])

    @property
    def prior(self) -> Path:
        """The folder of the prior, which may be missing."""
        return self._setup.prior

    def resolved(self, request: Request) -> Request:
        """The request, typed, with the model's defaults for what it leaves open."""
        defaults: Any = {name: value for name, value in self._setup.defaults.items() if name in Request.__annotations__}
        defaults["interval"] = tuple(defaults["interval"] or ALWAYS)
        given: Any = {name: value for name, value in typed(request).items() if value is not None}
        if "start" in given:
            defaults["strength"] = STRENGTH
        return cast(Request, {**defaults, "n": 1, "seed": 0, **given})

    def _sampling(self, request: Any) -> Sampling:  # a `resolved` one, which has every setting
        times, steps, interval = self.card["diffusion.steps"], request["steps"], request["interval"]
        if not 1 <= steps <= times:
            raise CondmixError(f"steps {steps}: {self.variant} was trained with {times} times; give 1 to {times}")
        return Sampling(
            Schedule(self.card["diffusion.schedule"], times),
            self.card["diffusion.prediction"],
            request["sampler"],
            steps,
            request["guidance"],
            request.get("weights") or None,
            request.get("composed", False),
            None if interval == ALWAYS else interval,
            request["threshold"],
            request["spacing"],
            self._setup.defaults["last_time"],
            self._start(request),
        )

    def _start(self, request: Any) -> Start | None:
        picture = request.get("start")
        if picture is None:
            return None
        square = ImageOps.fit(
            Image.fromarray(pixels_of(picture, "start")), (self.size, self.size), Image.Resampling.LANCZOS
        )
        x_0 = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 127.5 - 1
        return Start(x_0, request["strength"])

    def _given(self, request: Request) -> dict[str, VectorSource]:
        """What was given for each perspective; CondmixError for what this model does not see."""
        variant, seen = self.variant, ", ".join(self.perspectives)
        captions, image, prompt = request.get("captions", ()), request.get("image"), request.get("prompt")
        room = most_texts(self.perspectives)
        if len(captions) > room:
            raise CondmixError(
                f"{len(captions)} captions were given, but {variant} sees {room} (its perspectives are {seen})"
            )
        given = self._texts(captions)
        for name, encoder, content, keyword in (
            ("image", "clip_image", None if image is None else pixels_of(image), "image"),
            ("image", "clip_text", prompt, "prompt"),
            ("class", "class_label", request.get("class_name"), "class_name"),
        ):
            if content is None:
                continue
            if name not in self.perspectives:
                raise CondmixError(f"{keyword}: {variant} does not see {name}; its perspectives are {seen}")
            given[name] = VectorSource(encoder, [content], [TEXT if encoder == "clip_text" else name])
        return given

    def sources(self, request: Request) -> set[str]:
        """The perspectives for which the request gives something, whether or not it is left out again."""
        return set(self._given(typed(request)))

    def _texts(self, captions: Sequence[str]) -> dict[str, VectorSource]:
        """What stands in the slots for captions."""
        filled = fill_slots(self.perspectives, captions)
        joined = {name: [one_text(texts)] for name, texts in filled.items() if parse(name).merge == "joined"}
        return {
            name: VectorSource("clip_text", texts, [TEXT] if name == "pseudo" else parse(name).sources)
            for name, texts in (filled | joined).items()
        }

    def _slots(self, texts: Sequence[str], what: str) -> dict[str, VectorSource]:
        """Texts in the slots for captions or, where there are none, the image's place."""
        in_slots = most_texts(self.perspectives)
        room = in_slots or int("image" in self.perspectives)
        if len(texts) > room:
            raise CondmixError(
                f"{len(texts)} {what} were given, but {self.variant} has room for {room} of them "
                f"(its perspectives are {', '.join(self.perspectives)})"
            )
        return self._texts(texts) if in_slots or not texts else {"image": VectorSource("clip_text", texts, [TEXT])}

    def _without(self, given: dict[str, VectorSource], names: Sequence[str]) -> dict[str, VectorSource]:
        """What was given, less these perspectives."""
        for name in names:
            if name not in self.perspectives:
                raise CondmixError(unknown("perspective", name, self.perspectives, "without"))
            if name not in given:
                raise CondmixError(f"without {name}: none was given, so there is nothing to leave out")
        return {name: source for name, source in given.items() if name not in names}

    def _between(self, given: Mapping[str, VectorSource], ends: Mapping[str, VectorSource], n: int) -> ViewsAndMask:
        """Vectors {perspective: (n, d_p)} and mask (n, P); absent perspectives are zeros, masked.

        Rows lead from `given` to `ends` along the great circle, as Ramesh et al. 2022 (arXiv:2204.06125, section 3.2)
        go from one vector of CLIP to another; what has no end is the same in all of them.
        """
        widths = self.model.architecture.perspectives
        vectors = {name: torch.zeros(1, width) for name, width in widths.items()}
        vectors |= {name: self._encode(*source) for name, source in given.items()}
        for name, source in ends.items():
            vectors[name] = slerp(vectors[name], self._encode(*source), torch.linspace(0, 1, n)[:, None])
        mask = torch.tensor([[name in given for name in widths]])
        return {name: rows.expand(n, -1) for name, rows in vectors.items()}, mask.expand(n, -1)

    def _encode(self, kind: str, contents: Sequence[Any], caches: Sequence[str]) -> Tensor:
        """The vector (1, d_p) of one picture, text or class name, or the mean of several."""
        clip = self._setup.clip
        if kind not in self._encoders:
            self._setup.check_clip(self.card["encoder"])
            encoder = plugin("encoders", kind).open(clip, self.class_names)
            if encoder.reads == "captions":
                encoder.clip = with_known_words(encoder.clip, clip)
            if encoder.reads != "labels" and encoder.id != self.card["encoder"]:
                raise CondmixError(
                    f"{self.variant} was trained on vectors of {self.card['encoder']}, but {clip} holds "
                    f"{encoder.id}: run dvc repro, or check out the CLIP that belongs to the model"
                )
            self._encoders[kind] = encoder
        encoder = self._encoders[kind]
        if encoder.reads == "labels":
            for name in contents:
                if name not in self.class_names:
                    raise CondmixError(unknown("class", name, self.class_names))
            contents = [self.class_names.index(name) for name in contents]
        if encoder.reads == "captions":
            _say_what_is_cut(encoder, contents)
        vectors, centres = encoder.encode(contents).cpu(), self.model.centres.state_dict()
        for row, cache in enumerate(caches[: len(vectors)]):
            if cache in centres:
                vectors[row] = centred(vectors[row], centres[cache].cpu())
        return mean(vectors)[None] if len(vectors) > 1 else vectors


def slerp(start: Tensor, end: Tensor, way: Tensor) -> Tensor:
    """Unit vectors (n, D) on the great circle from `start` to `end`, both (n, D) or (1, D), at shares `way` (n, 1)."""
    cosine = (start * end).sum(dim=-1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6)  # else the sine below could be 0
    angle = cosine.acos()
    return (((1 - way) * angle).sin() * start + (way * angle).sin() * end) / angle.sin()


def load(model: str | os.PathLike[str] | None = None, device: str | torch.device | None = None) -> LoadedModel:
    """A trained model: of the current project, of a folder, of the Hugging Face hub, or the demo.

    A variant's name means that of the current project, "models/experiment" a folder of any project, whose params.yaml
    two levels up says where the CLIP lies and what the defaults are. A folder that `condmix export` wrote stands alone;
    "owner/name" or "owner/name@revision" is one on the hub. "demo" is the small model that comes with condmix. Without
    a name it is the current project's experiment or, where none was trained yet, the demo.

    `device` is a GPU if there is one. CondmixError where there is no whole model.
    """
    if model is None:
        model = "experiment" if Path("models", "experiment", "model.json").is_file() else "demo"
    if not isinstance(model, str | os.PathLike):
        raise CondmixError(f"load was given {reprlib.repr(model)}: give a folder models/<variant> or a variant's name")
    if model == "demo":
        return LoadedModel(DEMO, exported_setup(DEMO), device)
    if isinstance(model, str) and model in VARIANTS:
        instead = 'or draw with the demo that comes with condmix, --demo or condmix.load("demo")'
        if not Path("params.yaml").exists():
            raise CondmixError(f"no params.yaml: run condmix in the root of a condmix project, {instead}")
        params = load_params()
        if not (params.paths.model(model) / "model.json").exists():
            raise CondmixError(f"{model} is not trained yet: run dvc repro train@{model}, {instead}")
        return LoadedModel(params.paths.model(model), setup_of(params), device)
    if _names_hub(model):
        folder, again = _from_hub(str(model)), f"hf cache rm model/{str(model).partition('@')[0]}, and load it again"
        return LoadedModel(folder, exported_setup(folder, again), device)
    folder = Path(model)
    if (folder / CONFIG).is_file():
        return LoadedModel(folder, exported_setup(folder), device)
    return LoadedModel(folder, setup_of(load_params(_project_of(folder))), device)


def _project_of(folder: Path) -> Path:
    """The root of the project that a folder models/<variant> lies in."""
    root = folder.absolute().parent.parent
    if not (root / "params.yaml").is_file():
        raise CondmixError(
            f"{folder} lies in no condmix project ({root} has no params.yaml) and was not written by `condmix export`: "
            f"give a folder models/<variant> of a project or, inside it, a variant ({', '.join(VARIANTS)})"
        )
    if folder.name not in VARIANTS and not (folder / "model.json").is_file():
        raise CondmixError(f"{folder} holds no trained variant: those are models/{', models/'.join(VARIANTS)}")
    return root


def _names_hub(model: str | os.PathLike[str]) -> bool:
    """Whether this is a name on the hub: no folder here, and not one that a project's training would write."""
    if not isinstance(model, str) or not HUB_NAME.fullmatch(model):
        return False
    return not Path(model).exists() and not Path(model).absolute().parent.exists()


def _from_hub(model: str) -> Path:
    """The folder in which huggingface_hub keeps this model; downloaded unless it is there."""
    from huggingface_hub import snapshot_download

    found = HUB_NAME.fullmatch(model)
    assert found is not None
    try:
        folder = Path(snapshot_download(found["name"], revision=found["revision"], allow_patterns=EXPORTED))
    except Exception as error:  # the hub, requests and the disk each raise their own kinds
        raise CondmixError(
            f"{model} is no folder here, and the Hugging Face hub does not give it ({reason(error)})"
        ) from error
    if not is_exported(folder):
        raise CondmixError(f"{model} on the Hugging Face hub was not written by `condmix export`")
    return folder


def _usable(device: str | torch.device) -> torch.device:
    """The device, if tensors can be put there and read back."""
    try:
        tensor = torch.zeros(1, device=device)
        tensor.cpu()
        return tensor.device
    except (AssertionError, RuntimeError, TypeError) as error:
        raise CondmixError(
            f'device {reprlib.repr(device)} can\'t be used here ({one_line(error)}): leave it out, or give "cpu" or a '
            'GPU such as "cuda:0"'
        ) from None


def _say_what_is_cut(encoder: Encoder, texts: Sequence[str]) -> None:
    """On stderr, as nothing else would tell that the end of a text does not count."""
    for text, tokens in zip(texts, encoder.tokens(texts), strict=True):
        if tokens > encoder.limit:
            print(
                f'the text "{text[:60]}..." has {tokens} tokens, but the encoder reads {encoder.limit}: its end is cut',
                file=sys.stderr,
            )
