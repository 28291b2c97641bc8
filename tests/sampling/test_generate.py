"""`condmix generate` draws what `sample` draws with the settings and vectors that its options stand for."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

import condmix
from condmix import CondmixError
from condmix.cli import main
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior, save_prior
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.sampling.sample import Sampling, grid, sample, sample_batches
from condmix.settings.perspectives import fill_slots

WORDS = {"caption_any": 16, "caption_2": 16, "image": 16, "caption_1": 16}  # those of conftest's models
PICTURE = {"image": 16, "class": 3}


def texts(encoder, perspectives, of):
    """The condition of captions {perspective: caption}, for two pictures."""
    vectors = {name: torch.zeros(1, width) for name, width in perspectives.items()}
    vectors |= {name: encoder[0].encode([text]) for name, text in of.items()}
    mask = torch.tensor([[name in of for name in perspectives]])
    return {name: row.expand(2, -1) for name, row in vectors.items()}, mask.expand(2, -1)


def drawn(project, variant, condition, negative=None, guidance=2.0, **settings):
    model, _ = load_model(project.paths.model(variant))
    settings = {"last_time": project.evaluate.last_time, **settings}
    sampling = Sampling(Schedule("cosine"), "v", project.evaluate.sampler, 5, guidance, **settings)
    return grid(sample(model, sampling, condition, [0, 1], negative).numpy())


def test_every_option_of_guidance_reaches_the_sampler(drawing, encoder, sheet):
    asked = ["--caption", "red", "--caption", "left", "--caption", "small"]
    condition = texts(encoder, WORDS, {"caption_1": "red", "caption_2": "left", "caption_any": "small"})
    away = texts(encoder, WORDS, {"caption_1": "blue", "caption_2": "right"})
    cases = [
        ([], None, {}),
        (["--composed"], None, {"composed": True}),
        (["--weight", "caption_1=3", "--weight", "caption_any=-0.5"], None,
         {"weights": {"caption_1": 3.0, "caption_any": -0.5}}),
        (["--interval", "0.2", "0.8"], None, {"interval": (0.2, 0.8)}),
        (["--threshold", "0.995"], None, {"threshold": 0.995}),
        (["--spacing", "karras"], None, {"spacing": "karras"}),
        (["--negative", "blue", "--negative", "right"], away, {}),
        (["--negative", "blue", "--negative", "right", "--composed", "--guidance", "4", "--interval", "0", "0.6"], away,
         {"composed": True, "guidance": 4.0, "interval": (0.0, 0.6)}),
    ]  # fmt: skip
    sheets = []
    for options, negative, settings in cases:
        sheets.append(sheet(*asked, *options))
        assert np.array_equal(sheets[-1], drawn(drawing, "experiment", condition, negative, **settings)), options
    assert len({one.tobytes() for one in sheets}) == len(cases)  # each changes the pictures


def test_captions_fill_the_true_slots_then_the_generated_ones_then_those_that_draw():
    model = ["generated_10", "mixed_any", "image", "caption_2", "caption_1_again", "generated_2", "caption_1"]
    order = ["caption_1", "caption_2", "generated_2", "generated_10", "mixed_any", "caption_1_again"]
    assert fill_slots(model, "abcdef") == {name: [text] for name, text in zip(order, "abcdef", strict=True)}
    assert fill_slots(model, "ab") == {"caption_1": ["a"], "caption_2": ["b"]}


def test_what_was_typed_is_joined_or_averaged_as_the_models_captions_were(drawing, encoder, save_random, run, sheet):
    asked = ["--caption", "red", "--caption", "it is left."]
    together = {"caption_1": 16, "caption_joined_2": 16, "caption_mean_2": 16}
    save_random("experiment", together)
    condition = texts(encoder, together, {"caption_1": "red", "caption_joined_2": "red. it is left."})
    vectors = encoder[0].encode(["red", "it is left."]).sum(dim=0, keepdim=True)
    condition[0]["caption_mean_2"] = (vectors / vectors.norm()).expand(2, -1)
    condition = condition[0], torch.ones(2, 3, dtype=torch.bool)
    assert np.array_equal(sheet(*asked), drawn(drawing, "experiment", condition))

    one = texts(encoder, together, {"caption_1": "red", "caption_joined_2": "red.", "caption_mean_2": "red"})
    assert np.array_equal(sheet("--caption", "red"), drawn(drawing, "experiment", one))
    assert "3 captions were given, but experiment sees 2" in run(*asked, "--caption", "small").output
    away = run(*asked, "--negative", "blue", "--negative", "right", "--negative", "small")
    assert "3 negatives were given, but experiment has room for 2 of them" in away.output
    assert not np.array_equal(sheet(*asked, "--negative", "blue", "--negative", "right"), sheet(*asked))


def test_vectors_are_centred_as_those_in_training_were(drawing, encoder, save_random, sheet):
    seen = {"caption_2": 16, "image": 16, "caption_mean_2": 16, "pseudo": 16}
    save_random("experiment", seen, ["caption_1", "caption_2", "image"])
    centres = load_model(drawing.paths.model("experiment"))[0].centres.state_dict()

    def vector(text, cache):
        moved = encoder[0].encode([text])[0] - centres[cache]
        return moved / moved.norm()

    mean = vector("red", "caption_1") + vector("left", "caption_2")
    rows = {
        "caption_2": vector("red", "caption_2"),
        "pseudo": vector("left", "caption_1"),
        "caption_mean_2": mean / mean.norm(),
        "image": vector("small", "caption_1"),  # words are centred like words, whatever place they stand in
    }
    condition = {name: row.expand(2, -1) for name, row in rows.items()}, torch.ones(2, 4, dtype=torch.bool)
    output = sheet("--caption", "red", "--caption", "left", "--prompt", "small")
    assert np.abs(output.astype(int) - drawn(drawing, "experiment", condition)).max() <= 1  # rounding of the vectors
    uncentred = {name: encoder[0].encode([text])[0].expand(2, -1) for name, text in zip(rows, "abcd", strict=True)}
    assert not np.array_equal(output, drawn(drawing, "experiment", (uncentred, condition[1])))


def test_a_text_that_is_too_long_is_cut_and_this_is_said(drawing, run, capsys):
    words = " ".join(["red"] * 11)  # and two more tokens, of twelve that the tiny CLIP reads
    assert f'"{words}..." has 13 tokens, but the encoder reads 12' in run("--caption", words).output
    assert "its end is cut" not in run("--caption", words[4:]).output


def test_without_a_slot_for_captions_a_negative_one_stands_in_the_images_place(drawing, encoder, sheet):
    condition, away = (texts(encoder, PICTURE, {"image": text}) for text in ("red", "blue"))
    output = sheet("--variant", "class_v1", "--prompt", "red", "--negative", "blue")
    assert np.array_equal(output, drawn(drawing, "class_v1", condition, away))
    assert not np.array_equal(output, drawn(drawing, "class_v1", condition))


def test_a_prior_gives_every_picture_a_vector_of_its_own(drawing, encoder, run, sheet):
    torch.manual_seed(0)
    network = ShiftedPrior(Shape(16, clusters=2, width=8, blocks=1)).eval()
    network.means = torch.randn(2, 16)
    save_prior(drawing.paths.prior, network, {"encoder": encoder[0].id, "sample_steps": 3, "guidance": 1.0})
    vectors, mask = texts(encoder, PICTURE, {"image": "red"})
    vectors["image"] = network.sample(vectors["image"], [0, 1], 3, 1.0)
    output = sheet("--variant", "class_v1", "--prompt", "red", "--prior")
    assert np.array_equal(output, drawn(drawing, "class_v1", (vectors, mask)))
    assert "give a prompt" in run("--variant", "class_v1", "--class", "round", "--prior").output


def test_names_without_a_weight_share_the_scale(drawing, encoder):
    condition = texts(encoder, WORDS, {"caption_1": "red", "caption_2": "left"})
    some = drawn(drawing, "experiment", condition, guidance=3.0, weights={"caption_2": 4.0})
    every = drawn(drawing, "experiment", condition, weights={"caption_1": 1.5, "caption_2": 4.0})
    assert np.array_equal(some, every)


def test_batches_take_their_own_part_of_the_negative_condition(drawing):
    model, _ = load_model(drawing.paths.model("class_v1"))
    sampling = Sampling(Schedule("cosine"), "v", "ddim", 3, 3.0)
    vectors, away = ({n: torch.randn(4, w) for n, w in PICTURE.items()} for _ in range(2))
    mask, away_mask = torch.ones(4, 2, dtype=torch.bool), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()
    parts = sample_batches(model, sampling, (vectors, mask), range(4), 3, (away, away_mask))
    whole = sample(model, sampling, (vectors, mask), range(4), (away, away_mask))
    # batches of other sizes are rounded differently
    assert (torch.cat(list(parts)).int() - whole.int()).abs().max() <= 1


def test_a_weight_for_a_perspective_that_the_model_lacks_is_refused(drawing, encoder):
    with pytest.raises(CondmixError, match='"caption_3", but the model sees caption_any, caption_2, image, caption_1'):
        drawn(drawing, "experiment", texts(encoder, WORDS, {"caption_1": "red"}), weights={"caption_3": 2.0})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--weight", "caption_1"], 'NAME=NUMBER, as in caption_1=2; "caption_1" was given'),
        (["--weight", "caption_1=nan"], '"caption_1=nan" was given'),
        (["--weight", "captoin_1=2"], 'weights: no perspective "captoin_1"; found: caption_any'),
        (["--weight", "caption_1=1e300"], "caption_1=1e+300: give a number"),
        (["--weight", "image=2"], "no image was given"),
        (["--weight", "caption_1=2", "--weight", "caption_1=3"], "twice for caption_1"),
        (["--interval", "0.8", "0.2"], "interval 0.8 0.2: give two shares of the diffusion time"),
        (["--negative", "a"] * 4, "4 negatives were given, but experiment has room for 3"),
    ],
)
def test_mistakes_are_said_in_one_sentence(drawing, given, says, run):
    done = run("--caption", "red", *given)
    assert done.exit_code == 1 and says in done.output
    assert done.output.count("\n") == 1


def test_what_cannot_be_led_away_from_is_refused(drawing, run):
    done = run("--variant", "class_v2", "--class", "round", "--negative", "blue")
    assert "class_v2 has room for 0" in done.output
    done = run("--negative", "blue", "--composed")
    assert "some pictures have no source" in done.output


@pytest.fixture
def undrawn(drawing, monkeypatch):
    """The tiny project, in which drawing would be noticed."""

    def refuse(*_):
        raise AssertionError("drawn before all options were checked")

    monkeypatch.setattr("condmix.sampling.sample._predict", refuse)
    drawing.root.joinpath("folder.png").mkdir()
    Image.new("RGB", (9, 9), "red").save("red.png")
    return drawing


@pytest.mark.parametrize(
    ("given", "says"),
    [
        *((["--out", name], "the name must end in .png, .jpg, .jpeg, .webp") for name in ("x", "x.svg", "-", "")),
        (["--out", "params.yaml/"], "--out params.yaml/ can't be written (File exists)"),
        (["--out", "new/", "--n", "20000"], "more than 10,000 pictures; lower it, and go on with --seed"),
        (["--like", "nothing.png"], "there is no file nothing.png"),
        (["--like", "params.yaml"], "params.yaml is no whole PNG file"),
        (["--to", "left"], "to: nothing was given for caption_1, where the way would begin"),
        (["--caption", "red", "--to", "left", "--n", "1"], "n 1: from captions to others it takes at least 2"),
        (["--caption", "red", "--to", " "], "a caption of to has no words"),
        (["--without", "caption_7"], 'without: no perspective "caption_7"; found: caption_any'),
        (["--without", "caption_1"], "without caption_1: none was given"),
        (["--start", "params.yaml"], "params.yaml does not decode (not an image)"),
        (["--strength", "0.5"], "strength says how much of a start picture is redrawn; give a start picture"),
        *((["--start", "red.png", "--strength", text], f"strength {text}: give") for text in ("0", "1.5", "nan")),
        (["--out", "folder.png"], "folder.png is there already and is not a file"),
        (["--out", "params.yaml/x.png"], "params.yaml/x.png can't be written (File exists)"),
        (["--out", "x" * 300 + ".png"], "can't be written (File name too long)"),
        (["--out", "/proc/x.png"], "/proc/x.png can't be written"),
        *((["--guidance", scale], f"guidance {scale}: give a number") for scale in ("nan", "inf", "1e+39", "-1e+39")),
        (["--interval", "nan", "1"], "interval nan 1: give two shares"),
        (["--scale", "1000000"], "make a sheet 19,000,000 pixels wide, more than 16,383; lower --scale or --n"),
        (["--n", "1000000000"], "lower --scale or --n"),
        (["--steps", "1001"], "steps 1001: experiment was trained with 1000 times; give 1 to 1000"),
        (["--seed", str(2**32 - 1)], "below 2^32"),
        (["--variant", "judge"], '--variant: no variant "judge"; found: class_v1'),
        (["--variant", "../models/experiment"], '--variant: no variant "../models/experiment"'),
        *((["--caption", text], "a caption has no words") for text in ("", " ", "\u200b")),
        (["--negative", " "], "a negative has no words"),
        (["--prompt", " "], "the prompt has no words"),
        (["--caption", "caf\udce9"], "a caption, 'caf\\udce9', is not valid text"),
        (["--prior"], "prior turns the words of a prompt"),
        (["--caption", "a"] * 4, "4 captions were given, but experiment sees 3"),
        (["--class", "round"], "experiment does not see class; its perspectives are caption_any, caption_2, image"),
        (["--variant", "class_v1", "--class", "rond"], 'no class "rond"; found: round, square, long'),
        (["--variant", "class_v1", "--image", "nothing.png"], "there is no file nothing.png"),
        (["--variant", "class_v1", "--image", "params.yaml"], "params.yaml does not decode (not an image)"),
        (
            ["--sampler", "ddimm"],
            'no sampler "ddimm"; found: ddim, ddpm, dpmpp_2m, dpmpp_2m_sde, euler, heun; did you mean "ddim"?',
        ),
    ],
)
def test_every_option_is_checked_before_anything_is_drawn(undrawn, given, says, run):
    done = run(*given)
    assert done.exit_code == 1 and done.output.startswith("condmix: ") and done.output.count("\n") == 1, done.output
    assert says in done.output
    assert not list(undrawn.root.glob("*.part")) and not list(undrawn.root.glob(".*.part"))


def test_a_refused_request_makes_no_folder(undrawn, run):
    for given in (["--caption", " "], ["--class", "round"], ["--steps", "1001"]):
        assert run(*given, "--out", "new/x.png").exit_code == 1
    assert not undrawn.root.joinpath("new").exists()


@pytest.mark.parametrize(("name", "form"), [("a.png", "PNG"), ("b.JPG", "JPEG"), ("new/c.webp", "WEBP")])
def test_the_format_is_what_the_name_says(drawing, name, form, run):
    assert run("--out", name).exit_code == 0
    with Image.open(name) as picture:
        assert picture.format == form


# ---- what a PNG says of how it was made ----


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def seen(drawing):
    """A picture for the model to look at, and one to draw over."""
    for name, seed in (("seen.png", 0), ("start.png", 1)):
        noise = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(noise).save(name)


MADE = [
    ["--caption", "red", "--caption", "left", "--without", "caption_1", "--seed", "3"],
    ["--caption", "red", "--to", "left", "--n", "3", "--composed"],
    ["--caption", "red", "--negative", "blue", "--weight", "caption_1=3", "--interval", "0.2", "0.8"],
    ["--variant", "class_v1", "--image", "seen.png", "--class", "round", "--guidance", "3", "--threshold", "0.99"],
    ["--start", "start.png", "--strength", "0.4", "--sampler", "ddpm"],
]


@pytest.mark.parametrize("options", MADE)
def test_a_sheet_is_made_again_to_the_bit(options, seen, sheet):
    first = sheet(*options)
    again = CliRunner().invoke(main, ["generate", "--like", "grid.png", "--out", "again.png"])
    assert again.exit_code == 0, again.output
    assert np.array_equal(pixels("again.png"), first)
    with Image.open("grid.png") as one, Image.open("again.png") as other:
        assert one.info["condmix"] == other.info["condmix"]


def test_a_single_file_is_made_again_with_the_batch_that_it_was_drawn_in(drawing, run):
    asked = ["generate", "--caption", "red", "--steps", "5", "--n", "12", "--scale", "2", "--out", "some/"]
    assert CliRunner().invoke(main, asked).exit_code == 0
    assert sorted(path.name for path in drawing.root.glob("some/*")) == [f"{i:02}.png" for i in range(12)]
    again = CliRunner().invoke(main, ["generate", "--like", "some/07.png", "--out", "again.png"])
    assert again.exit_code == 0, again.output
    assert np.array_equal(pixels("again.png"), pixels("some/07.png")) and pixels("again.png").shape == (16, 16, 3)


def test_what_is_typed_beside_like_replaces_what_was_recorded(drawing, sheet, run):
    sheet("--caption", "red", "--seed", "7")
    assert run("--like", "grid.png", "--caption", "left", "--out", "other.png").exit_code == 0
    assert np.array_equal(pixels("other.png"), sheet("--caption", "left", "--seed", "7"))


@pytest.mark.parametrize(
    ("recorded", "given", "same_as"),
    [
        (["--image", "seen.png"], ["--prompt", "red"], ["--prompt", "red"]),
        (["--prompt", "red"], ["--image", "seen.png"], ["--image", "seen.png"]),
        (["--caption", "left", "--image", "seen.png"], ["--prompt", "red"], ["--caption", "left", "--prompt", "red"]),
        (["--caption", "left", "--caption", "red"], ["--caption", "small"], ["--caption", "small"]),
        (["--prompt", "red"], ["--seed", "5", "--steps", "4"], ["--prompt", "red", "--seed", "5", "--steps", "4"]),
        (["--guidance", "3", "--prompt", "red"], ["--guidance", "1"], ["--prompt", "red", "--guidance", "1"]),
        (["--caption", "red", "--weight", "caption_1=3"], ["--guidance", "4"], ["--caption", "red", "--guidance", "4"]),
        (
            ["--caption", "red", "--caption", "left", "--weight", "caption_1=3", "--weight", "caption_2=1"],
            ["--caption", "small"],
            ["--caption", "small", "--weight", "caption_1=3"],
        ),
        (
            ["--caption", "red", "--caption", "left", "--without", "caption_2"],
            ["--caption", "red"],
            ["--caption", "red"],
        ),
        (
            ["--caption", "left", "--prompt", "red", "--without", "image"],
            ["--image", "seen.png"],
            ["--caption", "left", "--image", "seen.png"],
        ),
        (["--caption", "red", "--to", "left"], ["--to", "small"], ["--caption", "red", "--to", "small"]),
        (["--caption", "red", "--sampler", "ddpm"], ["--sampler", "ddim"], ["--caption", "red", "--sampler", "ddim"]),
        (
            ["--caption", "red", "--start", "seen.png", "--strength", "0.9"],
            ["--strength", "0.3"],
            ["--caption", "red", "--start", "seen.png", "--strength", "0.3"],
        ),
    ],
)
def test_what_is_typed_beside_like_is_never_mixed_with_what_it_replaces(seen, sheet, recorded, given, same_as):
    sheet(*recorded)
    typed = [*given, "--steps", "5"] if "--steps" not in given else given
    again = CliRunner().invoke(main, ["generate", "--like", "grid.png", *typed, "--out", "again.png"])
    assert again.exit_code == 0, again.output
    assert np.array_equal(pixels("again.png"), sheet(*same_as))


def test_a_picture_that_was_replaced_is_not_looked_for(seen, sheet, run, drawing):
    sheet("--image", "seen.png")
    drawing.root.joinpath("seen.png").unlink()
    done = run("--like", "grid.png", "--prompt", "red", "--out", "other.png")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("to", [[], ["--to", "left"]])
def test_one_of_several_pictures_is_drawn_from_the_seed_that_is_typed(drawing, run, to):
    def files(folder, *options):
        asked = ["generate", "--steps", "5", "--scale", "1", *options, "--out", f"{folder}/"]
        done = CliRunner().invoke(main, asked)
        assert done.exit_code == 0, done.output
        return [pixels(path) for path in sorted(drawing.root.glob(f"{folder}/*"))]

    asked = ["--caption", "red", *to]
    some = files("some", *asked, "--n", "3", "--seed", "2")
    [again] = files("again", "--like", "some/1.png", "--seed", "40")
    expected = (
        files("whole", *asked, "--n", "3", "--seed", "40")[1]
        if to
        else files("one", *asked, "--n", "1", "--seed", "40")[0]
    )
    assert close(again, expected) and not close(again, some[1])
    more = files("more", "--like", "some/1.png", "--n", "4")
    assert len(more) == 4 and close(more[0], some[0 if to else 1])


def close(one, other):
    """Equal up to rounding, which depends on how many pictures are drawn together."""
    return np.abs(one.astype(int) - other).max() <= 1


def test_a_file_says_in_words_what_was_asked_for(drawing, sheet):
    sheet("--caption", "red", "--caption", "caf\u00e9")
    with Image.open("grid.png") as picture:
        assert picture.info["Description"] == '"red" + "caf\\xe9"'
        assert picture.info["Software"].startswith("condmix ")
        record = json.loads(picture.info["condmix"])
    assert record["request"]["captions"] == ["red", "caf\u00e9"] and record["variant"] == "experiment"
    assert record["request"]["steps"] == 5 and record["request"]["guidance"] == drawing.guidance


def test_a_picture_that_cannot_be_made_again_is_one_sentence(drawing, seen, sheet, run, save_random):
    Image.fromarray(sheet("--caption", "red")).save("bare.png")
    assert 'bare.png does not say how it was made: it has no text "condmix"' in run("--like", "bare.png").output
    Image.fromarray(sheet()).save("bad.png", pnginfo=texts_of({"condmix": '{"variant": 3}'}))
    assert 'bad.png: its text "condmix" is damaged' in run("--like", "bad.png").output

    sheet()
    with Image.open("grid.png") as picture:
        record = json.loads(picture.info["condmix"])
    record["request"]["n"] = "many"
    Image.fromarray(sheet()).save("bad.png", pnginfo=texts_of({"condmix": json.dumps(record)}))
    again = CliRunner().invoke(main, ["generate", "--like", "bad.png"])
    assert "n is 'many'; input should be a valid integer" in again.output

    sheet("--variant", "class_v1", "--image", "seen.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save("seen.png")
    assert "another picture than seen.png is now: give that one with --image" in run("--like", "grid.png").output
    drawing.root.joinpath("seen.png").unlink()
    assert "from seen.png, which is not there" in run("--like", "grid.png").output

    sheet("--caption", "red")
    for other in (["--variant", "class_v1"], ["--demo"]):
        output = run("--like", "grid.png", *other).output
        assert output.endswith(f"drawn by experiment, which draws it again: leave out {' '.join(other)}\n")
    save_random("experiment", WORDS)
    output = run("--like", "grid.png").output
    assert "grid.png was drawn by experiment with weights of sha256" in output and output.count("\n") == 1


def texts_of(texts):
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    return info


# ---- from captions to others, and from a start picture ----


def test_the_way_begins_and_ends_at_the_pictures_of_both_captions(drawing):
    model = condmix.load("experiment")
    way = model.draw(captions=["red", "left"], to=["blue"], n=5, seed=3, steps=3)
    ends = [model.draw(captions=[word, "left"], seed=3, steps=3)[0] for word in ("red", "blue")]
    for picture, end in zip(way[[0, -1]], ends, strict=True):
        assert np.abs(picture.astype(int) - end).max() <= 1  # batches of other sizes are rounded differently
    assert len({picture.tobytes() for picture in way}) == 5


def test_where_words_stand_in_the_images_place_the_way_leads_there(drawing):
    model = condmix.load("class_v1")
    way = model.draw(prompt="red", to=["blue"], n=3, seed=3, steps=3)
    assert np.abs(way[2].astype(int) - model.draw(prompt="blue", seed=3, steps=3)[0]).max() <= 1


def test_what_is_left_out_is_as_if_it_had_not_been_given(drawing):
    model = condmix.load("experiment")
    left_out = model.draw(captions=["red", "left"], without=["caption_2"], steps=3)
    assert np.array_equal(left_out, model.draw(captions=["red"], steps=3))
    assert np.array_equal(model.draw(captions=["red"], without=["caption_1"], steps=3), model.draw(steps=3))
