"""The page of `condmix play`: Gradio's components around condmix.play.studio.

It is served to this machine alone, and fetches nothing from elsewhere.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from condmix import CondmixError
from condmix.play import gallery, studio
from condmix.play.studio import MOST_CAPTIONS, Form, Models
from condmix.sampling.loaded import LoadedModel
from condmix.sampling.record import record_of

HOST = "127.0.0.1"
SOURCES = 7  # sliders for weights: five captions, a picture and a class
KEPT = 60  # pictures in the session's gallery
STRIP = {studio.NOTHING: "all sources", studio.ALL: "no source"}
CAPTIONS = [f"caption_{i}" for i in range(MOST_CAPTIONS)]
FIELDS = [*CAPTIONS, "picture", "prompt", "class", "guidance", "steps", "n", "seed"]
CSS = """
.pictures {display: flex; flex-wrap: wrap; gap: 8px}
.pictures figure {margin: 0; width: 128px}
.pictures img {width: 128px; height: 128px; image-rendering: pixelated; display: block}
.pictures figcaption {font-size: 13px; overflow-wrap: anywhere}
.refused {color: var(--error-text-color, #b91c1c)}
@media (max-width: 480px) {.pictures figure, .pictures img {width: 104px} .pictures img {height: 104px}}
"""
DEMO_NOTE = (
    "This is the demo that comes with condmix: scenes of 16 by 16 pixels, drawn from one or two captions. It knows the "
    "demo's words only. Try *a large red ring* and *a navy backdrop*. A model that you train appears above."
)


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
    studio.refusals(Form(("a",)), first)  # opens the encoders, for which the first picture need not wait then
    say(f"http://{HOST}:{port}   (Ctrl-C ends it)")
    serve(models, port)


def serve(models: Models, port: int, block: bool = True) -> Any:
    """Gradio's server, which answers from now on; with `block`, until it is interrupted."""
    import gradio as gr

    fonts = ["system-ui", "sans-serif"]  # Gradio's own come from the network
    page = build(models)
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
            raise CondmixError(
                f"port {port} can't be used ({error.strerror}): end what uses it, or take another, --port {port + 1}"
            ) from None


def build(models: Models) -> Any:
    """The page, not yet served."""
    import gradio as gr

    first = models.names[0]
    with gr.Blocks(title="condmix play", analytics_enabled=False) as page:
        gr.Markdown("# condmix play")
        with gr.Row():
            with gr.Column(min_width=320):
                variant = gr.Dropdown(models.names, value=first, label="Model", elem_id="variant")
                note = gr.Markdown()
                inputs, errors = _fields(gr)
                weighted = gr.Checkbox(label="A weight for each source", elem_id="weighted")
                weights = [gr.Slider(-2, 8, 1.0, step=0.25, visible=False) for _ in range(SOURCES)]
                with gr.Row():
                    draw = gr.Button("Draw", variant="primary", elem_id="draw")
                    stop = gr.Button("Stop", elem_id="stop")
                errors["form"] = gr.HTML(visible=False, elem_classes="refused", elem_id="form-error")
            with gr.Column(min_width=320):
                status = gr.Markdown("Click a picture to download it.", elem_id="status")
                pictures = gr.HTML(elem_id="pictures")
                gr.Markdown("### The same seed, each source left out")
                left_out = gr.HTML(elem_id="strip")
                gr.Markdown("### This session")
                session = gr.HTML(elem_id="session")
        history = gr.State([])

        def chosen(name: str, weigh: bool) -> list[Any]:
            """The fields that this model has."""
            return _layout(gr, models, name, weigh)

        shown = [note, errors["form"], *inputs.values(), *weights]
        for change in (variant.change, weighted.change, page.load):
            change(chosen, [variant, weighted], shown, show_progress="hidden")

        def drawn(name: str, weigh: bool, past: list[gallery.Shown], *values: Any) -> Iterator[dict[Any, Any]]:
            fields, numbers = dict(zip(FIELDS, values, strict=False)), values[len(FIELDS) :]
            try:
                model = models[name]
                form = form_of(fields, dict(zip(model.perspectives, numbers, strict=False)) if weigh else {})
                refused = studio.refusals(form, model)
            except CondmixError as error:
                refused = {"form": str(error)}
            yield {field: _said(gr, refused.get(key, "")) for key, field in errors.items()}
            if refused:
                return
            try:
                for part in draw_parts(model, form, past):
                    yield {{"status": status, "pictures": pictures, "strip": left_out, "session": session,
                            "history": history}[key]: value for key, value in part.items()}  # fmt: skip
            except CondmixError as error:
                yield {errors["form"]: _said(gr, str(error))}

        outputs = [*errors.values(), status, pictures, left_out, session, history]
        given = [variant, weighted, history, *inputs.values(), *weights]
        texts = [inputs[key].submit for key in (*CAPTIONS, "prompt")]
        drawing = gr.on([draw.click, *texts], drawn, given, outputs, show_progress="hidden", trigger_mode="always_last")
        stop.click(None, cancels=[drawing])
    return page


def draw_parts(model: LoadedModel, form: Form, past: list[gallery.Shown]) -> Iterator[dict[str, Any]]:
    """{part of the page: what it shows now}, again and again while the pictures are drawn."""
    began = time.monotonic()
    request = studio.request_of(form, model)
    drawing = model.checked(**request)
    for share, pixels in studio.watched(drawing):
        yield {"pictures": gallery.previews(pixels), "status": f"Drawing, {share:.0%}"}
    done = []
    for number, picture in enumerate(pixels):
        record = record_of(model, drawing, picture=number)
        done.append(gallery.finished(picture, record, f"seed {drawing.seeds[number]}"))
    seconds = time.monotonic() - began
    past = [*done, *past][:KEPT]
    yield {
        "pictures": gallery.html(done),
        "status": f"{len(done)} picture{'s' if len(done) > 1 else ''} in {seconds:.1f} s. Click one to download it.",
        "strip": "",
        "session": gallery.html(past),
        "history": past,
    }
    shown = []
    for left_out, one in studio.strip(request, model):
        caption = STRIP.get(left_out, f"without {left_out}")
        shown.append(gallery.finished(one()[0], record_of(model, one, picture=0), caption))
        yield {"strip": gallery.html(shown)}


def form_of(fields: dict[str, Any], weights: dict[str, float]) -> Form:
    """What the page's fields hold, by their names in FIELDS."""
    captions = tuple(fields[name] or "" for name in CAPTIONS)
    others = {name: fields[name] for name in ("picture", "guidance", "steps", "n", "seed")}
    return Form(captions, prompt=fields["prompt"] or "", class_name=fields["class"] or None, weights=weights, **others)


def _fields(gr: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """{field: its component} and {field: where its refusal stands}, one below the other."""
    inputs, errors = {}, {}

    def add(name: str, component: Any) -> None:
        inputs[name] = component
        errors[name] = gr.HTML(visible=False, elem_classes="refused", elem_id=f"{name}-error")

    for number, name in enumerate(CAPTIONS, 1):
        add(name, gr.Textbox(label=f"Caption {number}", elem_id=name, max_lines=1))
    add("picture", gr.File(label="Picture", elem_id="picture", height=120))
    add("prompt", gr.Textbox(label="Words in the picture's place", elem_id="prompt", max_lines=1))
    add("class", gr.Dropdown([], label="Class", elem_id="class"))
    numbers = {"guidance": ("Guidance scale", None), "steps": ("Steps", 0), "n": ("Pictures", 0), "seed": ("Seed", 0)}
    with gr.Row():
        for name, (label, digits) in numbers.items():
            with gr.Column(min_width=130):
                value = {"n": 4, "seed": 0}.get(name)
                add(name, gr.Number(value, label=label, elem_id=name, precision=digits))
    return inputs, errors


def _layout(gr: Any, models: Models, name: str, weigh: bool) -> list[Any]:
    """Updates of the note, the form's error, every field and every weight."""
    try:
        model = models[name]
    except CondmixError as error:
        return ["", _said(gr, str(error)), *[gr.skip()] * (len(FIELDS) + SOURCES)]
    defaults, sees = model.resolved({}), model.perspectives
    updates: dict[str, Any] = {
        name: {"visible": number < studio.caption_fields(model)} for number, name in enumerate(CAPTIONS)
    }
    updates["picture"] = updates["prompt"] = {"visible": "image" in sees}
    updates["class"] = {"visible": "class" in sees, "choices": ["", *model.class_names]}
    updates |= {key: {"value": defaults[key]} for key in ("guidance", "steps")}  # type: ignore[literal-required]
    hidden = {"value": None, "visible": False}
    fields = [gr.update(**updates.get(key, {}) | ({} if updates.get(key, {}).get("visible", True) else hidden))
              for key in FIELDS]  # fmt: skip
    sliders = [
        gr.update(visible=weigh and i < len(sees), label=f"Weight of {sees[i]}" if i < len(sees) else "")
        for i in range(SOURCES)
    ]
    return [DEMO_NOTE if name == "demo" else "", _said(gr, ""), *fields, *sliders]


def _said(gr: Any, sentence: str) -> Any:
    """A refusal, as text: what people typed is no Markdown."""
    return gr.update(value=f'<p role="alert">{escape(sentence)}</p>', visible=bool(sentence))
