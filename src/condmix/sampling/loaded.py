"""A trained model in memory, ready to draw: what `condmix.load` gives.

    model = condmix.load("models/experiment")
    pictures = model(captions=["a red ring", "navy backdrop"], n=4, guidance=2.0, seed=0)  # four PIL pictures

The command line goes through it too.
"""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import ConfigDict, SkipValidation, TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict, Unpack

from condmix import CondmixError
from condmix.clip.shifted_diffusion import load_prior
from condmix.data.captions import blank, one_text
from condmix.data.embeddings import centred, mean
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.encoders import Encoder
from condmix.files.pictures import read_picture, to_rgb
from condmix.runtime.oserrors import one_line
from condmix.samplers import SPACINGS
from condmix.sampling.sample import Condition, Sampling, sample_batches
from condmix.settings.load import VARIANTS, Params, plugin, plugins, unknown
from condmix.settings.load import load as load_params
from condmix.settings.perspectives import fill_slots, most_texts, parse

MOST_GUIDANCE = 1000
TEXT = "caption_1"  # the cache by whose mean a text in another perspective's place is centred
PictureLike = Image.Image | np.ndarray | str | os.PathLike[str]


class Request(TypedDict, total=False):
    """The keywords of a `LoadedModel` call. A source that is left out is absent: its learned null stands in.

    With no source at all the pictures are unconditional.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)  # type: ignore[misc]

    captions: Sequence[str]  # for caption_1, caption_2, ... in order; joined or averaged where the model's are
    image: SkipValidation[PictureLike | None]  # seen through CLIP: a PIL picture, (H, W, 3) uint8 RGB, or a file
    prompt: str | None  # words in the image's place: their CLIP text vector instead of a picture's
    prior: bool  # the trained prior turns the prompt's vector into one picture's vector per picture
    class_name: str | None
    negatives: Sequence[str]  # captions to steer away from, in the slots of `captions`
    guidance: float | None  # s in uncond + s (cond - uncond); 1 is the plain conditional model; None: the project's
    composed: bool  # guide by each source alone, with s shared among those given
    weights: Mapping[str, float]  # {perspective: its own scale}; implies `composed`
    interval: tuple[float, float] | None  # guide at these shares t / T of the diffusion time only; None: the project's
    threshold: float | None  # share of dynamic thresholding, 0: clip to the range of pictures; None: the project's
    sampler: str | None  # ddpm, ddim, dpmpp_2m, ...; None: the project's
    steps: int | None  # None: the project's
    spacing: str | None  # of the times that the sampler visits: uniform or karras; None: the project's
    n: int  # how many pictures; 1 where it is left out
    seed: int  # picture i is drawn from seed + i; 0 where it is left out


REQUEST = TypeAdapter(Request)


class VectorSource(NamedTuple):
    """What a vector is made of: one thing, or several that are averaged."""

    encoder: str
    contents: Sequence[Any]
    caches: Sequence[str]  # whose vectors each is like, and is centred like


class LoadedModel:
    """A trained variant. Calling it draws pictures; weights are read once, encoders when first needed."""

    def __init__(self, folder: Path, params: Params, device: str | torch.device | None = None):
        """`folder` holds model.safetensors and model.json; `params` say where CLIP and prior lie, and the defaults."""
        self.model, self.card = load_model(folder)
        self.device = _usable(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model.to(self.device)
        self._params = params
        self._encoders: dict[str, Encoder] = {}

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

    def checked(self, **request: Unpack[Request]) -> Callable[[], np.ndarray]:
        """`draw` in two steps, for a caller with checks of its own: what comes back draws, and nothing is drawn yet."""
        request = _typed(request)
        n, seed = request.get("n", 1), request.get("seed", 0)
        if n < 1 or seed < 0 or seed + n > 2**32:
            raise CondmixError(f"seed {seed} and n {n}: pictures use seed + 0 ... seed + n - 1, from 0 and below 2^32")
        _check_words(request)
        sampling = self._sampling(request)
        given, unwanted = self._given(request), self._negative(request.get("negatives", ()))
        _check_weights(request.get("weights", {}), self.perspectives, given)
        if request.get("prior") and request.get("prompt") is None:
            raise CondmixError("prior turns the words of a prompt into pictures' vectors; give a prompt")
        prior = load_prior(self._params.paths.prior, self.card["encoder"]) if request.get("prior") else None
        vectors, mask = self._repeated(given, n)
        negative = self._repeated(unwanted, n) if unwanted else None
        seeds, size = range(seed, seed + n), self._params.evaluate.batch_size

        def pictures() -> np.ndarray:
            seen = vectors if prior is None else {**vectors, "image": prior.sample(vectors["image"], seeds)}
            batches = sample_batches(self.model, sampling, (seen, mask), seeds, size, negative)
            return torch.cat([batch.cpu() for batch in batches]).numpy()

        return pictures

    def _sampling(self, request: Request) -> Sampling:
        guidance, interval = request.get("guidance"), request.get("interval")
        interval = self._params.evaluate.interval if interval is None else interval
        threshold = request.get("threshold")
        threshold = self._params.evaluate.threshold if threshold is None else threshold
        sampler, steps, times = request.get("sampler"), request.get("steps"), self.card["diffusion.steps"]
        sampler = self._params.evaluate.sampler if sampler is None else sampler
        steps = self._params.evaluate.steps if steps is None else steps
        if sampler not in plugins("samplers"):
            raise CondmixError(unknown("sampler", sampler, plugins("samplers")))
        spacing = request.get("spacing")
        if spacing is not None and spacing not in SPACINGS:
            raise CondmixError(unknown("spacing", spacing, list(SPACINGS)))
        if guidance is not None and not abs(guidance) <= MOST_GUIDANCE:
            raise CondmixError(f"guidance {guidance}: give a number from {-MOST_GUIDANCE} to {MOST_GUIDANCE}")
        if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
            raise CondmixError(
                f"interval {interval[0]:g} {interval[1]:g}: give two shares of the diffusion time, 0 <= low < high <= 1"
            )
        if not 0 <= threshold <= 1:
            raise CondmixError(f"threshold {threshold:g}: give a share of a picture's values, from 0 to 1")
        if not 1 <= steps <= times:
            variant = self.card["variant"]
            raise CondmixError(f"steps {steps}: {variant} was trained with {times} times; give 1 to {times}")
        return Sampling(
            Schedule(self.card["diffusion.schedule"], times),
            self.card["diffusion.prediction"],
            sampler,
            steps,
            self._params.guidance if guidance is None else guidance,
            request.get("weights") or None,
            request.get("composed", False),
            interval,
            threshold,
            self._params.evaluate.spacing if spacing is None else spacing,
            self._params.evaluate.last_time,
        )

    def _given(self, request: Request) -> dict[str, VectorSource]:
        """What was given for each perspective; CondmixError for what this model does not see."""
        variant, seen = self.card["variant"], ", ".join(self.perspectives)
        captions, image, prompt = request.get("captions", ()), request.get("image"), request.get("prompt")
        if image is not None and prompt is not None:
            raise CondmixError("image and prompt stand in the same place; give one of them")
        room = most_texts(self.perspectives)
        if len(captions) > room:
            raise CondmixError(
                f"{len(captions)} captions were given, but {variant} sees {room} (its perspectives are {seen})"
            )
        given = self._texts(captions)
        for name, encoder, content, keyword in (
            ("image", "clip_image", None if image is None else _pixels(image), "image"),
            ("image", "clip_text", prompt, "prompt"),
            ("class", "class_label", request.get("class_name"), "class_name"),
        ):
            if content is None:
                continue
            if name not in self.perspectives:
                raise CondmixError(f"{keyword}: {variant} does not see {name}; its perspectives are {seen}")
            given[name] = VectorSource(encoder, [content], [TEXT if encoder == "clip_text" else name])
        return given

    def _texts(self, captions: Sequence[str]) -> dict[str, VectorSource]:
        """What stands in the slots for captions."""
        filled = fill_slots(self.perspectives, captions)
        joined = {name: [one_text(texts)] for name, texts in filled.items() if parse(name).merge == "joined"}
        return {
            name: VectorSource("clip_text", texts, [TEXT] if name == "pseudo" else parse(name).sources)
            for name, texts in (filled | joined).items()
        }

    def _negative(self, captions: Sequence[str]) -> dict[str, VectorSource]:
        """In the slots for captions or, where there are none, the image's place."""
        in_slots = most_texts(self.perspectives)
        room = in_slots or int("image" in self.perspectives)
        if len(captions) > room:
            raise CondmixError(
                f"{len(captions)} negatives were given, but {self.card['variant']} has room for {room} of them "
                f"(its perspectives are {', '.join(self.perspectives)})"
            )
        return (
            self._texts(captions)
            if in_slots or not captions
            else {"image": VectorSource("clip_text", captions, [TEXT])}
        )

    def _repeated(self, given: Mapping[str, VectorSource], n: int) -> Condition:
        """Vectors {perspective: (n, d_p)} and mask (n, P): n equal rows; absent perspectives are zeros, masked."""
        widths = self.model.architecture.perspectives
        vectors = {name: torch.zeros(1, width) for name, width in widths.items()}
        vectors |= {name: self._encode(*source) for name, source in given.items()}
        mask = torch.tensor([[name in given for name in widths]])
        return {name: row.expand(n, -1) for name, row in vectors.items()}, mask.expand(n, -1)

    def _encode(self, kind: str, contents: Sequence[Any], caches: Sequence[str]) -> Tensor:
        """The vector (1, d_p) of one picture, text or class name, or the mean of several."""
        clip = self._params.paths.clip
        if kind not in self._encoders:
            encoder = plugin("encoders", kind).open(clip, self.class_names)
            if encoder.reads != "labels" and encoder.id != self.card["encoder"]:
                raise CondmixError(
                    f"{self.card['variant']} was trained on vectors of {self.card['encoder']}, but {clip} holds "
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


def load(model: str | os.PathLike[str], device: str | torch.device | None = None) -> LoadedModel:
    """The trained model in a folder such as "models/experiment", or of a variant's name in the current project.

    The folder's project (its params.yaml two levels up) says where the CLIP lies and what the defaults are. `device`
    is a GPU if there is one. CondmixError where the folder holds no whole model.
    """
    if not isinstance(model, str | os.PathLike):
        raise CondmixError(f"load was given {reprlib.repr(model)}: give a folder models/<variant> or a variant's name")
    if isinstance(model, str) and model in VARIANTS:
        folder, root = None, Path()
    else:
        folder = Path(model)
        root = folder.absolute().parent.parent
        if not (root / "params.yaml").is_file():
            raise CondmixError(
                f"{folder} lies in no condmix project ({root} has no params.yaml): give a folder models/<variant> of "
                f"one, or, inside it, a variant ({', '.join(VARIANTS)})"
            )
        if folder.name not in VARIANTS and not (folder / "model.json").is_file():
            raise CondmixError(f"{folder} holds no trained variant: those are models/{', models/'.join(VARIANTS)}")
    params = load_params(root)
    return LoadedModel(folder or params.paths.model(str(model)), params, device)


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


def _pixels(image: PictureLike) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    if isinstance(image, Image.Image):
        try:
            return np.asarray(to_rgb(image))
        except Exception as error:  # what Pillow raises where the file behind the picture is damaged
            raise CondmixError(f"image does not decode ({error or type(error).__name__})") from error
    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image))
    if not isinstance(image, np.ndarray):
        raise CondmixError(f"image is of type {type(image).__name__}: give a PIL picture, an array or a file")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise CondmixError(f"image has shape {image.shape} and type {image.dtype}: give (H, W, 3) uint8 RGB")
    return image


def _say_what_is_cut(encoder: Encoder, texts: Sequence[str]) -> None:
    """On stderr, as nothing else would tell that the end of a text does not count."""
    for text, tokens in zip(texts, encoder.tokens(texts), strict=True):
        if tokens > encoder.limit:
            print(
                f'the text "{text[:60]}..." has {tokens} tokens, but the encoder reads {encoder.limit}: its end is cut',
                file=sys.stderr,
            )


def _typed(request: Request) -> Request:
    """The request with values of the types that `Request` says; CondmixError where one is of another, or unknown."""
    try:
        return REQUEST.validate_python(request)
    except ValidationError as error:
        problem = error.errors()[0]
        keyword, given = ".".join(map(str, problem["loc"])), reprlib.repr(problem["input"])
        if problem["type"] == "extra_forbidden":
            raise CondmixError(unknown("keyword", keyword, list(Request.__annotations__))) from None
        said = problem["msg"][0].lower() + problem["msg"][1:]
        raise CondmixError(f"{keyword} is {given}; {said}") from None


def _check_words(request: Request) -> None:
    """Words that CLIP can read: training never sees an empty caption."""
    prompt = request.get("prompt")
    texts = {"a caption": request.get("captions", ()), "a negative": request.get("negatives", ())}
    for what, several in {**texts, "the prompt": () if prompt is None else (prompt,)}.items():
        for text in several:
            if blank(text):
                raise CondmixError(f"{what} has no words; leave it out for an unconditional picture")
            try:
                text.encode()
            except UnicodeEncodeError:  # bytes of the command line that are no text
                raise CondmixError(f"{what}, {text!r}, is not valid text; give it in the terminal's encoding") from None


def _check_weights(weights: Mapping[str, float], perspectives: Collection[str], given: Mapping[str, Any]) -> None:
    """CondmixError for a weight that has nothing to weigh."""
    for name, weight in weights.items():
        if name not in perspectives:
            raise CondmixError(unknown("perspective", name, list(perspectives), "weights"))
        if not abs(weight) <= MOST_GUIDANCE:
            raise CondmixError(f"weights: {name}={weight:g}: give a number from {-MOST_GUIDANCE} to {MOST_GUIDANCE}")
        if name not in given:
            raise CondmixError(f"weights: no {name} was given, so there is nothing to weigh")
