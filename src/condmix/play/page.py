"""The page of `condmix play`: Gradio's components around condmix.play.studio.

It is served to this machine alone, and fetches nothing from elsewhere.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any

from condmix import CondmixError
from condmix.play import gallery, studio
from condmix.play.studio import MOST_CAPTIONS, Form, Models
from condmix.sampling.loaded import LoadedModel
from condmix.sampling.record import record_of

HOST = "127.0.0.1"
SOURCES = 7  # sliders for weights: five captions, a picture and a class
NUMBER = 112  # pixels at least for a number's field: four in a row on a desktop, two on a phone
KEPT = 20  # drawings in the session's gallery
STRIP = {studio.NOTHING: "all sources", studio.ALL: "no source"}
CAPTIONS = [f"caption_{i}" for i in range(MOST_CAPTIONS)]
FIELDS = [*CAPTIONS, "picture", "prompt", "class", "guidance", "steps", "n", "seed"]
CSS = """
.html-container {padding: 0 !important}
.pictures {display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 8px}
.pictures figure {margin: 0}
.pictures a {display: block; padding: 0}
.pictures img {width: 100%; margin: 0; image-rendering: pixelated; display: block}
.pictures figcaption {margin: 2px 0 0; font-size: 12px; overflow-wrap: anywhere}
.asked {margin: 12px 0 4px; font-size: 13px; overflow-wrap: anywhere}
.refused p {margin: 0; overflow-wrap: anywhere; color: #b91c1c !important}
.dark .refused p {color: #fca5a5 !important}
"""
DEMO_CAPTIONS = ("a large red ring", "a navy backdrop")
DEMO_NOTE = (
    "This is the demo that comes with condmix: scenes of 16 by 16 pixels, drawn from one or two captions. It knows the "
    "words of its own captions only, such as *{}* and *{}*. Models that you train appear in the list above."
).format(*DEMO_CAPTIONS)


def main(port: int, say: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; `say` is told its address when it is about to answer."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise CondmixError("condmix play needs Gradio, which is not installed: pip install 'condmix[play]'") from None
    check_port(port)
    models = Models()
    first = models[models.names[0]]  # so that what is wrong with it is said here
    studio.refusals(Form(("a",), prompt="a"), first)  # opens the encoder, so that the first picture need not wait
    say(f"http://{HOST}:{port}   (Ctrl-C ends it)")
    serve(models, port)


def serve(models: Models, port: int, block: bool = True) -> Any:
    """Gradio's server, which answers from now on; with `block`, until it is interrupted."""
    import gradio as gr

    fonts = ["system-ui", "sans-serif"]  # Gradio's own come from the network
    page = Page(models).blocks
    page.queue(default_concurrency_limit=1)
    page.launch(
        server_name=HOST,
        server_port=port,
        prevent_thread_lock=not block,
        quiet=True,
        footer_links=[],
        css=CSS,
        theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
    )
    return page


def check_port(port: int) -> None:
    """CondmixError where another program has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            another = port + 1 if port < 65_535 else port - 1
            raise CondmixError(
                f"port {port} can't be used ({error.strerror}): end what uses it, or take another, --port {another}"
            ) from None


class Page:
    """Gradio's components, and what happens when people use them. `blocks` is the whole, not yet served."""

    def __init__(self, models: Models):
        import gradio as gr

        self._gr, self._models = gr, models
        first = models.names[0]
        with gr.Blocks(title="condmix play", analytics_enabled=False) as self.blocks:
            gr.Markdown("# condmix play")
            with gr.Row():
                with gr.Column(min_width=320):
                    self.variant = gr.Dropdown(models.names, value=first, label="Model", elem_id="variant")
                    self.note = gr.Markdown(note_on(first))
                    filled = DEMO_CAPTIONS if first == "demo" else ()  # so that Draw shows something at once
                    self.inputs, self.errors = _fields(gr, layout(models[first], filled))
                    self.weighted = gr.Checkbox(
                        label="A weight for each source in place of guidance", elem_id="weighted"
                    )
                    self.weights = [gr.Slider(-2, 8, 1.0, step=0.25, visible=False) for _ in range(SOURCES)]
                    with gr.Row():
                        self.draw = gr.Button("Draw", variant="primary", elem_id="draw", min_width=100)
                        self.stop = gr.Button("Stop", elem_id="stop", min_width=100)
                    self.errors["form"] = gr.HTML(visible=False, elem_classes="refused", elem_id="form-error")
                with gr.Column(min_width=320):
                    self.parts = {"status": gr.Markdown("Press Draw, and pictures appear here.", elem_id="status")}
                    self.parts["pictures"] = gr.HTML(elem_id="pictures")
                    self.parts["strip"] = gr.HTML(elem_id="strip")
                    self.parts["session"] = gr.HTML(elem_id="session")
            self.parts["history"] = gr.State([])
            self._connect()

    def _connect(self) -> None:
        """Which event calls what."""
        chosen = [self.note, self.errors["form"], *self.inputs.values()]
        self.variant.change(self.chosen, [self.variant], chosen, show_progress="hidden")
        for change in (self.variant.change, self.weighted.change):
            steered = [self.inputs["guidance"], *self.weights]
            change(self.weigh, [self.variant, self.weighted], steered, show_progress="hidden")
        given = [self.variant, self.weighted, self.parts["history"], *self.inputs.values(), *self.weights]
        drawing = self._gr.on(
            [self.draw.click, *(self.inputs[key].submit for key in (*CAPTIONS, "prompt"))],
            self.drawn,
            given,
            [*self.errors.values(), *self.parts.values()],
            show_progress="hidden",
            trigger_mode="always_last",
        )
        stopped = self.stop.click(None, cancels=[drawing])  # said after: a share under way would replace it
        stopped.then(lambda: "Stopped.", None, self.parts["status"], show_progress="hidden")

    def chosen(self, name: str) -> list[Any]:
        """Updates of the note, the form's refusal and every field, for a model that was chosen."""
        try:
            settings = layout(self._models[name])
        except CondmixError as error:
            return ["", self._said(str(error)), *[self._gr.skip()] * len(FIELDS)]
        fields = [self._gr.update(**settings.get(field, {})) for field in FIELDS]
        return [note_on(name), self._said(""), *fields]

    def weigh(self, name: str, weighted: bool) -> list[Any]:
        """Updates of guidance and of the weights that replace it: those of this model's sources, if they are wanted."""
        try:
            sees = self._models[name].perspectives[:SOURCES] if weighted else []
        except CondmixError:  # which `chosen` says
            sees = []
        hidden = [self._gr.update(visible=False)] * (SOURCES - len(sees))
        shown = [self._gr.update(visible=True, label=f"Weight of {gallery.spoken(source)}") for source in sees]
        return [self._gr.update(visible=not weighted), *shown, *hidden]

    def drawn(self, name: str, weighted: bool, past: gallery.Session, *values: Any) -> Iterator[dict[Any, Any]]:
        """Updates of the refusals and, where there are none, of the pictures, while they are drawn."""
        fields, numbers = dict(zip(FIELDS, values, strict=False)), values[len(FIELDS) :]
        if weighted:
            fields["guidance"] = None  # hidden
        try:
            model = self._models[name]
            form = form_of(fields, dict(zip(model.perspectives, numbers, strict=False)) if weighted else {})
            refused = studio.refusals(form, model)
            yield {error: self._said(refused.get(field, "")) for field, error in self.errors.items()}
            for part in draw_parts(name, model, form, past) if not refused else ():
                yield {self.parts[key]: value for key, value in part.items()}
        except CondmixError as error:
            yield {self.errors["form"]: self._said(str(error))}

    def _said(self, sentence: str) -> Any:
        """A refusal, as text: what people typed is no HTML."""
        return self._gr.update(value=f'<p role="alert">{escape(sentence)}</p>', visible=bool(sentence))


def note_on(name: str) -> str:
    """What to know of a model before it is asked."""
    return DEMO_NOTE if name == "demo" else ""


def draw_parts(name: str, model: LoadedModel, form: Form, past: gallery.Session) -> Iterator[dict[str, Any]]:
    """{part of the page: what it shows now}, again and again while the pictures are drawn."""
    began = time.monotonic()
    request = studio.request_of(form, model)
    drawing = model.checked(**request)
    for share, pixels in studio.watched(drawing):
        yield {"pictures": gallery.previews(pixels), "status": f"Drawing, {share:.0%}"}
    record = record_of(model, drawing)
    done = [
        gallery.finished(picture, {**record, "picture": number}, f"seed {drawing.seeds[number]}")
        for number, picture in enumerate(pixels)
    ]
    seconds = time.monotonic() - began
    past = [(gallery.asked(name, {**drawing.request}), done), *past][:KEPT]
    yield {
        "pictures": gallery.html(done),
        "status": f"{len(done)} picture{'s' if len(done) > 1 else ''} in {seconds:.1f} s. Click one to download it.",
        "strip": "",
        "session": gallery.session(past),
        "history": past,
    }
    shown = []
    for left_out, one in studio.strip(request, model):
        caption = STRIP.get(left_out, f"without {gallery.spoken(left_out)}")
        shown.append(gallery.finished(one()[0], record_of(model, one, picture=0), caption))
        yield {"strip": f"<h3>The same seed, each source left out</h3>{gallery.html(shown)}"}


def form_of(fields: dict[str, Any], weights: dict[str, float]) -> Form:
    """What the page's fields hold, by their names in FIELDS."""
    captions = tuple(fields[name] or "" for name in CAPTIONS)
    others = {name: fields[name] for name in ("picture", "guidance", "steps", "n", "seed")}
    return Form(captions, prompt=fields["prompt"] or "", class_name=fields["class"] or None, weights=weights, **others)


def layout(model: LoadedModel, filled: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """{field: what is set of its component} of the fields that this model has; the others are hidden and empty.

    `filled` are captions to begin with.
    """
    defaults, sees = model.resolved({}), model.perspectives
    hidden: dict[str, Any] = {"visible": False, "value": None}
    captions = studio.caption_fields(model)
    settings: dict[str, dict[str, Any]] = {
        name: {"visible": True} if number < captions else hidden for number, name in enumerate(CAPTIONS)
    }
    for name, caption in zip(CAPTIONS[:captions], filled, strict=False):
        settings[name] = settings[name] | {"value": caption}
    settings["picture"] = settings["prompt"] = {"visible": True} if "image" in sees else hidden
    settings["class"] = {"visible": True, "choices": ["", *model.class_names]} if "class" in sees else hidden
    return settings | {"guidance": {"value": defaults["guidance"]}, "steps": {"value": defaults["steps"]}}


def _fields(gr: Any, settings: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """{field: its component} and {field: where its refusal stands}, one below the other."""
    inputs: dict[str, Any] = {}
    errors: dict[str, Any] = {}

    def add(name: str, component: Callable[..., Any], label: str, **more: Any) -> None:
        inputs[name] = component(label=label, elem_id=name, **more, **settings.get(name, {}))

    def add_error(name: str) -> None:
        errors[name] = gr.HTML(visible=False, elem_classes="refused", elem_id=f"{name}-error")

    for number, name in enumerate(CAPTIONS, 1):
        add(name, gr.Textbox, f"Caption {number}", max_lines=1)
        add_error(name)
    add("picture", gr.File, "Picture", height=120)
    add_error("picture")
    add("prompt", gr.Textbox, "Words in the picture's place", max_lines=1)
    add_error("prompt")
    add("class", gr.Dropdown, "Class")
    add_error("class")
    with gr.Row():
        add("guidance", gr.Number, "Guidance", min_width=NUMBER)
        add("steps", gr.Number, "Steps", min_width=NUMBER, precision=0)
        add("n", gr.Number, "Pictures", min_width=NUMBER, precision=0, value=4)
        add("seed", gr.Number, "Seed", min_width=NUMBER, precision=0, value=0)
    for name in ("guidance", "steps", "n", "seed"):  # each sentence names its field, and has the whole width
        add_error(name)
    return inputs, errors
