"""`condmix.load`: what the command line draws, as PIL pictures, with weights and encoders read once."""

import doctest
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import condmix
from condmix import CondmixError
from condmix.cli import main


def test_pictures_are_those_of_the_command_line_whatever_is_drawn_beside_them(drawing, sheet):
    model = condmix.load("experiment")
    pictures = model(captions=["red", "left"], n=3, seed=5, steps=5)
    assert [picture.size for picture in pictures] == [(8, 8)] * 3
    output = sheet("--caption", "red", "--caption", "left", "--seed", "6")  # two pictures, seeds 6 and 7
    for picture, left in zip(pictures[1:], (1, 10), strict=True):
        difference = np.asarray(picture).astype(int) - output[1:9, left : left + 8]
        assert abs(difference).max() <= 1  # batches of other sizes are rounded differently


def test_files_say_how_they_were_made(drawing):
    model = condmix.load("experiment")
    asked = {"captions": ["red", "left"], "n": 2, "seed": 5, "steps": 5}
    files = [Image.open(io.BytesIO(content)) for content in model.pngs(**asked)]
    assert np.array_equal(np.stack([np.asarray(file) for file in files]), model.draw(**asked))
    (drawing.root / "second.png").write_bytes(model.pngs(**asked)[1])
    done = CliRunner().invoke(main, ["generate", "--like", "second.png", "--out", "again.png"])
    assert done.exit_code == 0, done.output
    assert np.array_equal(np.asarray(Image.open("again.png")), np.asarray(files[1]))


def test_the_demo_is_one_model(drawing):
    done = CliRunner().invoke(main, ["generate", "--demo", "--variant", "caption", "--caption", "a red ring"])
    assert done.exit_code == 1 and "--demo draws with the model in the package: leave out --variant" in done.output


def test_a_picture_may_be_a_file_an_array_or_of_pil(drawing):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save("seen.png")
    model = condmix.load(drawing.root / "models" / "class_v1")
    drawn = [model.draw(image=one, steps=3) for one in ("seen.png", pixels, Image.fromarray(pixels))]
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], model.draw(steps=3))


def test_a_picture_of_pil_is_seen_as_its_file_is(drawing):
    """Upright, and on white where it is transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save("seen.png", exif=turned)
    model = condmix.load("class_v1")
    assert np.array_equal(model.draw(image="seen.png", steps=3), model.draw(image=Image.open("seen.png"), steps=3))
    plain = Image.open("seen.png").convert("RGB")
    assert not np.array_equal(model.draw(image="seen.png", steps=3), model.draw(image=plain, steps=3))


def test_encoders_are_opened_once(drawing, monkeypatch):
    from condmix.encoders.clip_text import ClipText

    opened = []
    whole = ClipText.open.__func__
    monkeypatch.setattr(ClipText, "open", classmethod(lambda cls, *given: opened.append(1) or whole(cls, *given)))
    model = condmix.load("experiment")
    for caption in ("red", "blue"):
        model(captions=[caption, "left"], steps=1)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"caption": ["red"]}, 'no keyword "caption"; found: .*did you mean "captions"'),
        ({"captions": "red"}, "captions is 'red'; 'str' instances are not allowed as a Sequence value"),
        ({"captions": ["red", None]}, "captions.1 is None; input should be a valid string"),
        ({"guidance": "high"}, "guidance is 'high'; input should be a valid number"),
        ({"n": 1.5}, "n is 1.5; input should be a valid integer"),
        ({"image": np.zeros((5, 0, 3), np.uint8)}, r"image has shape \(5, 0, 3\) and type uint8: give"),
        ({"steps": 0}, "steps 0: experiment was trained with 1000 times; give 1 to 1000"),
        ({"sampler": ""}, 'no sampler ""; found: '),
        ({"spacing": "karas"}, 'no spacing "karas"; found: uniform, karras; did you mean "karras"'),
        ({"image": 5}, "image is of type int: give a PIL picture, an array or a file"),
        ({"image": np.zeros((3, 8, 8))}, r"image has shape \(3, 8, 8\) and type float64: give \(H, W, 3\) uint8 RGB"),
        ({"n": 0}, "seed 0 and n 0: pictures use"),
        ({"seed": 2**32}, "below 2\\^32"),
        ({"weights": {"caption_1": float("nan")}, "captions": ["red"]}, "weights: caption_1=nan: give a number"),
    ],
)
def test_a_request_that_cannot_be_meant_so_is_one_sentence(drawing, request_, says):
    with pytest.raises(CondmixError, match=says):
        condmix.load("experiment")(**request_)


def test_a_folder_without_a_variant_is_refused(drawing):
    drawing.paths.judge.mkdir()
    with pytest.raises(CondmixError, match="models/judge holds no trained variant: those are models/class_v1, "):
        condmix.load("models/judge")


def test_what_was_not_trained_yet_says_so_and_names_the_demo(drawing):
    with pytest.raises(CondmixError, match="^caption is not trained yet: run dvc repro train@caption, or draw with"):
        condmix.load("caption")


def test_outside_of_a_project_the_demo_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CondmixError, match="^no params.yaml: run condmix in the root of .*, or draw with the demo"):
        condmix.load("experiment")


@pytest.mark.parametrize("given", [5, ["experiment"], b"models/experiment"])
def test_what_names_no_model_is_refused(given):
    with pytest.raises(CondmixError, match="load was given .*: give a folder models/<variant> or a variant's name"):
        condmix.load(given)


@pytest.mark.parametrize("device", ["cudaa", "cuda:99", "meta", 1.5])
def test_a_device_that_is_not_here_is_one_sentence(drawing, device):
    with pytest.raises(CondmixError, match=f'^device .*{device}.* can\'t be used here .*: leave it out, or give "cpu"'):
        condmix.load("experiment", device=device)


def test_numbers_of_other_libraries_are_numbers(drawing):
    model = condmix.load("experiment")
    plain = model.draw(n=2, seed=3, steps=2, guidance=1.5)
    numpy = model.draw(n=np.int64(2), seed=np.int64(3), steps=np.int32(2), guidance=np.float32(1.5))
    assert np.array_equal(plain, numpy) and len(model.draw(n=True, steps=1)) == 1


def test_a_folder_outside_of_a_project_is_refused(tmp_path):
    with pytest.raises(CondmixError, match="lies in no condmix project"):
        condmix.load(tmp_path / "models" / "experiment")


def test_the_examples_of_the_documentation_run(drawing, save_random):
    save_random("experiment", {"caption_1": 16, "caption_2": 16})
    page = Path(__file__).parents[2] / "docs" / "python.md"
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=doctest.REPORT_ONLY_FIRST_FAILURE)
    assert tried >= 9 and not failed


def test_importing_condmix_imports_neither_torch_nor_pydantic():
    code = "import sys, condmix; print([name for name in ('torch', 'pydantic', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
