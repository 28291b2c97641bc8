"""What the page does, without the page: forms that people filled in -> requests, refusals beside fields, pictures.

A form is checked field by field, each as a request of its own, so that a sentence can stand beside what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np

from condmix import CondmixError
from condmix.sampling.drawing import Drawing
from condmix.sampling.loaded import LoadedModel, load
from condmix.sampling.request import Request, pixels_of
from condmix.settings.load import VARIANTS
from condmix.settings.perspectives import fill_slots, most_texts

MOST_CAPTIONS = 5
MOST_PICTURES = 64
ALL, NOTHING = "everything", "nothing"


@dataclass(frozen=True)
class Form:
    """The fields of the page as they were filled in; None or "" is an empty field."""

    captions: tuple[str, ...] = ()
    picture: str | None = None  # path of an uploaded file
    prompt: str = ""
    class_name: str | None = None
    guidance: float | None = None
    steps: int | None = None
    n: int | None = None
    seed: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)  # {perspective: weight}; empty: joint guidance


class Models:
    """The models that can be chosen, each loaded when it is first needed, and once."""

    def __init__(self, loader: Callable[[str], LoadedModel] = load):
        self._loader = loader
        self._loaded: dict[str, LoadedModel] = {}

    @property
    def names(self) -> list[str]:
        """The variants trained in this project, the experiment first, and the demo that comes with condmix."""
        order = sorted(VARIANTS, key=lambda variant: variant != "experiment")
        return [variant for variant in order if Path("models", variant, "model.json").is_file()] + ["demo"]

    def __getitem__(self, name: str) -> LoadedModel:
        if name not in self._loaded:
            self._loaded[name] = self._loader(name)
        return self._loaded[name]


def caption_fields(model: LoadedModel) -> int:
    """How many captions the page asks for."""
    return min(MOST_CAPTIONS, most_texts(model.perspectives))


def requests(form: Form, model: LoadedModel) -> dict[str, Request]:
    """{field of the page: what it asks for}, of the fields that were filled in; together they are the whole request."""
    asked: dict[str, Any] = {}
    for number, text in enumerate(form.captions):
        if text.strip():
            asked[f"caption_{number}"] = {"captions": [text]}
    for name, keyword, value in (
        ("picture", "image", form.picture),
        ("prompt", "prompt", form.prompt.strip()),
        ("class", "class_name", form.class_name),
        ("guidance", "guidance", form.guidance),
        ("steps", "steps", form.steps),
        ("n", "n", form.n),
        ("seed", "seed", form.seed),
    ):
        if value not in (None, ""):
            asked[name] = {keyword: value}
    return asked


def request_of(form: Form, model: LoadedModel) -> Request:
    """The whole request."""
    request = Request()
    for asked in requests(form, model).values():
        request |= asked
    request |= _in_their_slots(form.captions[: caption_fields(model)], model)
    if form.picture:  # where a server keeps an upload is nothing to record
        request["image"] = pixels_of(form.picture)
    if form.weights:
        given = _given(model.checked(**request))
        request["weights"] = {name: weight for name, weight in form.weights.items() if name in given}
    return request


def refusals(form: Form, model: LoadedModel) -> dict[str, str]:
    """{field: a sentence} for each field that can't be meant so; "form" where only the whole is refused."""
    found = {}
    for name, request in requests(form, model).items():
        if name == "n" and form.n is not None and form.n > MOST_PICTURES:
            found[name] = f"{form.n} pictures: the page draws up to {MOST_PICTURES}; `condmix generate` draws more"
        try:
            model.checked(**request)
        except CondmixError as error:
            found[name] = _without_folder(str(error), form)
    if not found:
        try:
            model.checked(**request_of(form, model))
        except CondmixError as error:
            found["form"] = str(error)
    return found


def _without_folder(sentence: str, form: Form) -> str:
    """A sentence that names an upload as people know it, and not where the server keeps it."""
    return sentence.replace(form.picture, Path(form.picture).name) if form.picture else sentence


def watched(drawing: Drawing) -> Iterator[tuple[float, np.ndarray]]:
    """(share done, pictures (B, S, S, 3) as they look now) while it is drawn, and at the end (1.0, all pictures).

    Samplers call back, and a page wants to be fed: so it is drawn in a thread, which ends where nobody looks any more.
    """
    queue: SimpleQueue[tuple[float, np.ndarray] | BaseException | None] = SimpleQueue()
    left = Event()

    def watch(share: float, pictures: np.ndarray) -> None:
        if left.is_set():
            raise InterruptedError
        queue.put((share, pictures))

    def draw() -> None:
        try:
            queue.put((1.0, drawing(watch)))
            queue.put(None)
        except BaseException as error:  # raised again where the pictures are waited for
            queue.put(error)

    Thread(target=draw, daemon=True).start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()


def strip(request: Request, model: LoadedModel) -> Iterator[tuple[str, Drawing]]:
    """(what was left out, a drawing of one picture) with the same seed: nothing, each source in turn, everything."""
    one: Any = {**request, "n": 1}
    whole = model.checked(**one)
    given = _given(whole)
    yield NOTHING, whole
    for name in given if len(given) > 1 else ():
        yield name, model.checked(**_less(one, [name]))
    if given:
        yield ALL, model.checked(**_less(one, given))


def _less(request: Any, names: list[str]) -> Any:
    """The request without these perspectives, and without their weights."""
    weights = {name: weight for name, weight in request.get("weights", {}).items() if name not in names}
    return {**request, "weights": weights, "without": [*request.get("without", ()), *names]}


def _given(drawing: Drawing) -> list[str]:
    """The perspectives that a drawing is conditioned on."""
    names = drawing.model.architecture.perspectives
    return [name for name, present in zip(names, drawing.condition[1][0].tolist(), strict=True) if present]


def _in_their_slots(captions: tuple[str, ...], model: LoadedModel) -> Any:
    """Captions so that each stands in the slot of its field, though fields before it may be empty.

    Those before it hold its text too, and are left out. Where a slot takes several texts there is no such place, and
    the captions move up.
    """
    filled = [text for text in captions if text.strip()]
    if not filled:
        return {}
    slots = fill_slots(model.perspectives, [str(number) for number in range(len(captions))])
    if any(len(texts) > 1 for texts in slots.values()):
        return {"captions": filled}
    last = max(number for number, text in enumerate(captions) if text.strip())
    texts = [text if text.strip() else filled[0] for text in captions[: last + 1]]
    empty = [name for name, (number,) in slots.items() if int(number) <= last and not captions[int(number)].strip()]
    return {"captions": texts, "without": empty}
