"""What `condmix export` writes, `condmix.load` reads back; and the demo that comes with condmix."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import condmix
from condmix import CondmixError
from condmix.cli import main
from condmix.data.captions import write_captions
from condmix.files.artifacts import write_checked_json
from condmix.sampling.setup import DEMO

ASKED = {"captions": ["red", "left"], "n": 2, "steps": 3, "seed": 5}


def export(*options):
    return CliRunner().invoke(main, ["export", *options])


@pytest.fixture
def captioned(drawing, save_random):
    """The project with captions, and an experiment that sees nothing else."""
    save_random("experiment", {"caption_1": 16, "caption_2": 16})
    for split in ("train", "test"):
        write_captions(drawing.paths.captions / f"{split}.json", [["red", "it is left."], []], "human")
    return drawing


def test_an_export_draws_what_the_project_draws_wherever_it_lies(drawing, tmp_path_factory, monkeypatch):
    expected = condmix.load("experiment").draw(**ASKED)
    defaults = condmix.load("experiment").resolved({})
    done = export("experiment", "out")
    assert done.exit_code == 0, done.output
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.move("out", elsewhere / "out")
    monkeypatch.chdir(elsewhere)
    model = condmix.load("out")
    assert np.array_equal(model.draw(**ASKED), expected) and model.resolved({}) == defaults
    assert export("experiment", "again").output.startswith("condmix: no params.yaml: run condmix in the root of")


def test_a_small_copy_draws_the_same_but_for_rounding_and_knows_its_words_only(captioned):
    done = export("experiment", "small", "--small")
    assert done.exit_code == 0, done.output
    small, whole = condmix.load("small"), condmix.load("experiment")
    difference = np.abs(small.draw(**ASKED).astype(int) - whole.draw(**ASKED))
    assert difference.mean() < 3  # of 255: weights and vectors in half precision
    with pytest.raises(
        CondmixError, match='^"dragon" is not among the words .* of its captions only: is, it, left, red$'
    ):
        small(captions=["red dragon"])
    sizes = [sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
             for folder in (small.folder, captioned.paths.models)]  # fmt: skip
    assert sizes[0] < sizes[1] / 10  # CLIP's table is most of it


def test_a_small_copy_of_a_model_that_sees_pictures_is_refused(captioned):
    assert "class_v1 sees pictures through it" in export("class_v1", "small", "--small").output


def test_the_card_says_what_a_reader_must_know(drawing):
    assert export("class_v1", "out").exit_code == 0
    text = (drawing.root / "out" / "README.md").read_text()
    front, _, body = text.removeprefix("---\n").partition("---\n")
    assert "library_name: condmix" in front and "license: " in front
    for heading in ("## Data", "## Measures", "## Limits", "## Ethics", "## Licences"):
        assert heading in body
    assert "Faces and people" in body and "This model was not evaluated." in body


def test_what_is_in_the_way_stays(drawing):
    (drawing.root / "out").mkdir()
    (drawing.root / "out" / "mine.txt").write_text("mine")
    assert "out is there already and is not empty" in export("experiment", "out").output
    assert "out is no folder that condmix exported" in export("experiment", "out", "--replace").output
    for name in ("config.json", "model.json"):  # it only looks like an export
        (drawing.root / "out" / name).write_text("{}")
    assert "holds no model of condmix" in export("experiment", "out", "--replace").output
    assert (drawing.root / "out" / "mine.txt").read_text() == "mine"
    assert 'no variant "judge"' in export("judge", "out2").output


def test_an_earlier_export_gives_way_where_that_is_asked_for_and_nothing_else_does(drawing):
    (drawing.root / ".out").mkdir()
    (drawing.root / ".out" / "mine.txt").write_text("mine")
    assert export("experiment", "out").exit_code == 0
    (drawing.root / "out" / "LICENSE").write_text("mine")
    (drawing.root / "out" / "README.md").write_text("mine")
    assert "is not empty" in export("experiment", "out").output
    assert (drawing.root / "out" / "README.md").read_text() == "mine"
    assert export("experiment", "out", "--replace").exit_code == 0
    assert (drawing.root / "out" / "LICENSE").read_text() == (drawing.root / ".out" / "mine.txt").read_text() == "mine"
    assert (drawing.root / "out" / "README.md").read_text() != "mine"
    assert sorted(path.name for path in (drawing.root / "out").iterdir() if path.name.startswith(".")) == []
    assert condmix.load("out").variant == "experiment"


def test_a_model_of_another_profile_is_not_described_as_one_of_this(drawing):
    path = drawing.paths.model("experiment") / "model.json"
    card = json.loads(path.read_text())
    del card["content_sha256"]
    write_checked_json(path, card | {"profile": "coco"})
    assert "experiment was trained under profile coco" in export("experiment", "out").output


def test_a_clip_that_is_not_the_models_is_refused(drawing):
    (drawing.paths.clip / "more.txt").write_text("x")
    assert "check out the CLIP that belongs to the model" in export("experiment", "out").output


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2, "condmix": "9.0"}, "exported by condmix 9.0 in format 2, and this one reads format 1: install"),
        ({"library_name": "diffusers"}, "holds no model of condmix"),
        ({"defaults": {}}, "is damaged"),
    ],
)
def test_a_folder_that_this_version_does_not_read_is_one_sentence(drawing, change, says):
    export("experiment", "out")
    path = drawing.root / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CondmixError, match=says):
        condmix.load("out")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "clip/open_clip_config.json", "clip"])
def test_a_damaged_export_is_to_be_exported_or_fetched_again(drawing, name):
    """And never to be trained again: that takes the project that it came from."""
    export("experiment", "out")
    path = drawing.root / "out" / name
    if path.is_file():
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(CondmixError, match="^out/.* is damaged .*condmix export again, or fetch it again where it"):
            condmix.load("out")(captions=["red"])
        path.unlink()
    else:
        shutil.rmtree(path)
    with pytest.raises(CondmixError, match="^out/.* is (missing|damaged).*: .*condmix export again, or fetch it again"):
        condmix.load("out")(captions=["red"])


def test_an_export_without_a_prior_says_so(drawing):
    export("class_v1", "out")
    with pytest.raises(CondmixError, match="^out was exported without a prior: leave out prior$"):
        condmix.load("out")(prompt="red", prior=True)


def test_what_the_hub_gave_damaged_leaves_its_cache(drawing, monkeypatch):
    export("experiment", "out")
    (drawing.root / "out" / "model.safetensors").write_bytes(b"no weights")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: "out")
    with pytest.raises(CondmixError, match="delete it and run hf cache rm model/someone/scenes, and load it again$"):
        condmix.load("someone/scenes@v1")


def test_a_name_on_the_hub_is_fetched_without_code(drawing, monkeypatch):
    export("experiment", "out")
    asked = []

    def fetch(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return "out"

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert condmix.load("someone/scenes@v1").variant == "experiment"
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("someone/scenes", "v1") and not any("py" in pattern for pattern in patterns)


def test_a_hub_that_does_not_answer_is_one_sentence(drawing, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CondmixError, match="someone/scenes is no folder here, and the .* does not give it .no route"):
        condmix.load("someone/scenes")
    with pytest.raises(CondmixError, match="models/nothing"):  # a folder of this project, not a name on the hub
        condmix.load("models/nothing")


def test_the_demo_is_small_and_draws_what_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 3e6
    red, blue = condmix.load().draw(captions=["a large red ring", "a navy backdrop"], n=2).mean(axis=(1, 2))
    assert condmix.load().variant == "experiment"  # outside of any project
    for colour in (red, blue):
        assert colour[0] > colour[1] and colour[2] > colour[1]  # red on navy: little green
    done = CliRunner().invoke(main, ["generate", "--demo", "--caption", "a small ring", "--n", "1", "--steps", "2"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, ["generate", "--like", "grid.png", "--out", "again.png"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "grid.png").read_bytes()
