"""What the page of `condmix play` does with what people fill in; the model is the demo that comes with condmix."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import condmix
from condmix import CondmixError
from condmix.play import gallery, studio
from condmix.play.studio import Form, Models
from condmix.sampling.record import record_of

FILLED = Form(("a large red ring", "a navy backdrop"), guidance=2.0, steps=3, n=2, seed=5)


@pytest.fixture(scope="module")
def model():
    return condmix.load("demo")


def test_a_filled_form_asks_for_what_its_fields_say(model):
    assert studio.request_of(FILLED, model) == {
        "captions": ["a large red ring", "a navy backdrop"], "without": [],
        "guidance": 2.0, "steps": 3, "n": 2, "seed": 5,
    }  # fmt: skip
    assert studio.request_of(Form(), model) == {}


def test_a_caption_stands_in_the_slot_of_its_field(model):
    second = model.checked(**studio.request_of(Form(("", "a navy backdrop"), steps=2), model))
    assert second.condition[1].tolist() == [[False, True]]
    both = model.checked(captions=["a ring", "a navy backdrop"], without=["caption_1"], steps=2)
    assert np.array_equal(second(), both())


def test_weights_are_those_of_the_sources_that_were_given(model):
    weighed = Form(("a ring", " "), weights={"caption_1": 3.0, "caption_2": 1.0})
    assert studio.request_of(weighed, model)["weights"] == {"caption_1": 3.0}


@pytest.mark.parametrize(
    ("form", "field", "says"),
    [
        (Form(("a ring", "a dragon")), "caption_1", '"dragon" is not among the words'),
        (Form(("a dragon", "a ring")), "caption_0", '"dragon" is not among the words'),
        (Form(picture="nothing.png"), "picture", "there is no file nothing.png"),
        (Form(class_name="ring"), "class", "experiment does not see class"),
        (Form(guidance=5000.0), "guidance", "guidance 5000.0: give a number from"),
        (Form(steps=0), "steps", "steps 0: experiment was trained with 1000 times"),
        (Form(n=65), "n", "65 pictures: the page draws up to 64"),
        (Form(n=0), "n", "seed 0 and n 0"),
        (Form(seed=-1), "seed", "seed -1"),
        (Form(("a ring",), weights={"caption_1": 5000.0}), "form", "weights: caption_1=5000"),
    ],
)
def test_a_refusal_stands_beside_its_field(model, form, field, says):
    refused = studio.refusals(form, model)
    assert list(refused) == [field] and says in refused[field]


def test_a_broken_picture_is_one_sentence(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    refused = studio.refusals(Form(picture=str(tmp_path / "broken.png")), condmix.load("demo"))
    assert refused["picture"].startswith("broken.png does not decode (not an image): read are JPEG, PNG, ")


def test_what_is_wrong_in_two_fields_is_said_twice(model):
    assert set(studio.refusals(Form(("a dragon",), steps=0), model)) == {"caption_0", "steps"}
    assert studio.refusals(FILLED, model) == {}


def test_previews_come_before_the_pictures(model):
    drawing = model.checked(**studio.request_of(FILLED, model))
    shares, pictures = zip(*studio.watched(drawing), strict=True)
    assert shares == (1 / 3, 2 / 3, 1.0, 1.0)
    assert np.array_equal(pictures[-1], drawing()) and not np.array_equal(pictures[0], pictures[-1])


def test_what_fails_in_the_drawing_thread_is_raised_where_it_is_waited_for():
    def fails(watch):
        raise CondmixError("broken")

    with pytest.raises(CondmixError, match="broken"):
        list(studio.watched(fails))


def test_where_nobody_looks_any_more_drawing_ends(model):
    from threading import Event

    ended = Event()

    def endless(watch):
        try:
            while True:
                watch(0.1, np.zeros((1, 2, 2, 3), np.uint8))
        except InterruptedError:
            ended.set()
            raise

    parts = studio.watched(endless)
    next(parts)
    parts.close()
    assert ended.wait(60)


def test_the_strip_leaves_each_source_out_in_turn(model):
    request = studio.request_of(FILLED, model)
    parts = {name: drawing() for name, drawing in studio.strip(request, model)}
    assert list(parts) == [studio.NOTHING, "caption_1", "caption_2", studio.ALL]
    alone = {"steps": 3, "seed": 5}
    assert np.array_equal(parts[studio.NOTHING], model.draw(**{**request, "n": 1}))
    assert np.array_equal(parts["caption_2"], model.draw(captions=["a large red ring"], **alone))
    assert np.array_equal(parts[studio.ALL], model.draw(**alone))
    weighed = {**request, "weights": {"caption_1": 3.0, "caption_2": 1.0}}
    assert [name for name, _ in studio.strip(weighed, model)] == list(parts)
    one = [name for name, _ in studio.strip(studio.request_of(Form(("a ring",)), model), model)]
    assert one == [studio.NOTHING, studio.ALL]


def test_a_downloaded_picture_is_the_one_that_was_drawn_and_can_be_made_again(model, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from condmix.cli import main

    monkeypatch.chdir(tmp_path)
    drawing = model.checked(**studio.request_of(FILLED, model))
    pictures = drawing()
    page = gallery.html([gallery.finished(pictures[1], record_of(model, drawing, picture=1), "<seed>")])
    assert "&lt;seed&gt;" in page and 'download="experiment-6.png"' in page
    png = base64.b64decode(re.search('href="data:image/png;base64,([^"]+)"', page)[1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), pictures[1])
    (tmp_path / "one.png").write_bytes(png)
    done = CliRunner().invoke(main, ["generate", "--like", "one.png", "--out", "again.png"])
    assert done.exit_code == 0 and (tmp_path / "again.png").read_bytes() == png, done.output


def test_models_are_loaded_once_and_the_demo_is_always_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = []
    models = Models(lambda name: loaded.append(name) or name)
    assert models.names == ["demo"]
    for variant in ("caption", "experiment"):
        (tmp_path / "models" / variant).mkdir(parents=True)
        (tmp_path / "models" / variant / "model.json").touch()
    assert models.names == ["experiment", "caption", "demo"]
    assert [models["demo"], models["demo"], models["caption"]] == ["demo", "demo", "caption"]
    assert loaded == ["demo", "caption"]
