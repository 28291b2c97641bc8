"""`condmix new`: the settings that it writes are those that the folder can feed."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import parse_yaml_for_update
from PIL import Image

from condmix import CondmixError
from condmix.datasets import SPLITS
from condmix.new import dependency, estimate, look, main
from condmix.settings.load import load

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A copy of this project's settings."""
    (tmp_path / "project").mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / "project")
    shutil.copytree(ROOT / "conf", tmp_path / "project" / "conf")
    monkeypatch.setattr("condmix.new.seconds_per_picture", lambda params: 0.5)
    return tmp_path / "project"


def pictures(folder, names, side=80):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side + 5)).save(folder / name)
    return folder


def test_classes_and_captions_decide_what_is_trained(root, tmp_path):
    names = [f"{split}/{kind}/{i}.png" for split in SPLITS for kind in ("cat", "dog") for i in range(3)]
    folder = pictures(tmp_path / "My Pets", names)
    line = json.dumps({"file": "cat/0.png", "captions": ["a cat", "a  cat ", "cat", "fur"]})
    for split in SPLITS:
        (folder / split / "captions.jsonl").write_text(line)
    said = main(root, folder)
    params = load(root)
    assert params.profile == "my_pets" and params.data.folder == str(folder) and params.data.world == {}
    assert params.variants == ("class_v1", "class_v2", "caption", "experiment")
    assert params.perspectives == ("caption_1", "caption_2") and params.embed.captions == 3
    parts = [
        "6 pictures to train on and 6 to test",
        "2 classes (cat, dog)",
        "pictures with captions: 2, up to 3 each\n",
    ]
    for part in (*parts, "has 80 pixels", " days (", "lower train.images"):
        assert part in said, said
    fetch = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["fetch"]
    assert str(folder) in fetch["deps"]


@pytest.mark.parametrize(
    ("counts", "configured", "perspectives", "left_out"),
    [
        ((4, 2), 2, ("caption_1", "caption_2"), "caption_3 to caption_4"),
        ((2, 1), 1, ("caption_1",), "caption_2"),
        ((1, 3), 1, ("caption_1",), "caption_2 to caption_3"),
        ((1, 0), 1, ("image",), "caption_1"),
    ],
)
def test_captions_of_one_split_alone_are_not_configured(root, counts, configured, perspectives, left_out):
    folder = pictures(root / "pets", [f"{split}/{i}.png" for split in SPLITS for i in (1, 2)])
    for split, count in zip(SPLITS, counts, strict=True):
        line = json.dumps({"file": "1.png", "captions": [f"caption {k}" for k in range(count)]})
        (folder / split / "captions.jsonl").write_text(line)
    said = main(root, folder)
    params = load(root)
    assert params.embed.captions == configured and params.perspectives == perspectives
    assert ("caption" in params.variants) == ("caption_1" in perspectives)
    assert f"pictures of one split alone have {left_out}, so condmix leaves that out" in said


def test_classes_of_one_split_alone_are_not_trained(root, tmp_path):
    names = [f"train/{kind}/{i}.png" for kind in ("cat", "dog") for i in range(3)]
    said = main(root, pictures(tmp_path / "pets", [*names, "test/1.png", "test/2.png"]))
    assert load(root).variants == ("experiment",) and load(root).perspectives == ("image",)
    assert "2 classes (cat, dog): pictures of one split alone have them, so they are left out" in said


ACCENTS = ["\u00e9t\u00e9", "e\u0301te\u0301"]  # été in one sign for each é (NFC), and in two (NFD), as macOS has it


NAMES = [*ACCENTS, "\u5199\u771f 2024", "\U0001f431 \u201cpets\u201d: #1", "2024-01-01", "1e3"]


@pytest.mark.parametrize("folder", NAMES)
def test_a_folder_may_be_named_in_any_language(root, tmp_path, folder):
    for place in (tmp_path / folder, root / folder):
        main(root, pictures(place, [f"{i}.png" for i in range(30)]), f"from-{place.parent.name[:4]}".lower())
        inside = place.parent == root
        assert load(root).data.folder == (folder if inside else str(place))
        [dep] = [dep for dep in dvc_deps(root, "fetch") if not dep.startswith(("data/", "src/"))]
        assert (root / dep).samefile(place)


def dvc_deps(root, stage):
    """As DVC itself reads them."""
    return parse_yaml_for_update((root / "dvc.yaml").read_text(), "dvc.yaml")["stages"][stage]["deps"]


@pytest.mark.parametrize("name", ACCENTS)
def test_an_accent_leaves_its_letter_to_the_profile(root, tmp_path, name):
    main(root, pictures(tmp_path / name.title(), [f"{i}.png" for i in range(30)]))
    assert load(root).profile == "ete"


def test_a_name_without_a_letter_from_a_to_z_asks_for_another(root, tmp_path):
    with pytest.raises(CondmixError, match='^"\u5199\u771f" can\'t name a profile: give --name'):
        main(root, pictures(tmp_path / "\u5199\u771f", ["1.png"]))


def test_a_folder_beside_the_project_is_named_in_full(root, tmp_path, monkeypatch):
    folder = pictures(tmp_path / "pets", [f"{i}.png" for i in range(30)])
    monkeypatch.chdir(root)
    said = main(Path(), Path("../pets"))
    assert load(root).data.folder == str(folder) and str(folder) in dvc_deps(root, "fetch")
    assert said.startswith(f"{folder}:\n")
    with pytest.raises(CondmixError, match=f"^{tmp_path}/nothing is no folder"):
        main(Path(), Path("../nothing"))


def test_bare_pictures_are_divided_and_condition_on_themselves(root, tmp_path):
    folder = pictures(root / "mine", [f"{i}.jpg" for i in range(30)], side=20)
    (folder / "broken.png").write_bytes(b"no picture")
    said = main(root, folder, "mine")
    params = load(root)
    assert params.variants == ("experiment",) and params.perspectives == ("image",)
    assert params.data.folder == "mine" and params.data.world == {"held_out_percent": 20}
    assert "20% held out by their names" in said and "20 pixels, less than the 64" in said and "no captions" in said


def test_comments_and_everything_else_stay(root, tmp_path):
    before = {name: (root / name).read_text().splitlines() for name in ("params.yaml", "dvc.yaml")}
    main(root, pictures(tmp_path / "flat", [f"{i}.png" for i in range(30)]))
    gone = [line for line in before["params.yaml"] if line not in (root / "params.yaml").read_text()]
    assert gone == ["profile: demo", "- caption_1", "- caption_2", "- class_v1", "- class_v2", "- caption"]
    after = (root / "dvc.yaml").read_text().splitlines()
    assert len(after) == len(before["dvc.yaml"]) + 1 and set(before["dvc.yaml"]) < set(after)
    again, left = dependency(str(tmp_path / "flat"), "\n".join(after) + "\n")
    assert again.splitlines() == after and left == []  # once
    back, left = dependency("other", again, [str(tmp_path / "flat")])
    assert back == again.replace(f"- {tmp_path / 'flat'}\n", "- other\n") and left == [str(tmp_path / "flat")]


def test_the_layout_of_a_dvc_yaml_stays(tmp_path):
    """That of DVC's own commands, comments behind a dependency that goes, and one among several."""
    text = """\
stages:
  fetch:   # first
    cmd: python  -c 'print(1)'
    deps:
    - data/params.ok
    - one  # of another profile
    # the code
    - src/a.py
    - two
    # behind two
    - "src/b.py"
    outs: [data/archives]   # kept
"""
    assert dependency("new", text, ["gone"]) == (text.replace("deps:\n", "deps:\n    - new\n"), [])
    after, left = dependency("one", text, ["two"])
    assert after == text.replace("    - two\n", "") and left == ["two"]
    after, left = dependency("new", text, ["one", "two"])
    assert after == text.replace("- one ", "- new ").replace("    - two\n", "") and left == ["one", "two"]
    with pytest.raises(CondmixError, match="dvc.yaml has no stage fetch with deps"):
        dependency("new", "stages: {}\n")


def test_the_folder_of_another_profile_is_no_dependency_any_more(root, tmp_path):
    one, other = (pictures(tmp_path / name, [f"{i}.png" for i in range(30)]) for name in ("one", "other"))
    (root / "conf" / "broken.yaml").write_text("data: {folder: ")
    before = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["fetch"]["deps"]
    said = [main(root, one), main(root, other), main(root, other, "another")]
    after = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["fetch"]["deps"]
    assert sorted(after) == sorted([*before, str(other)])
    assert [f"in place of {one}" in text for text in said] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nothing", "nothing is no folder: give one with pictures"), ("empty", "empty holds no pictures")],
)
def test_what_holds_no_pictures_is_refused_and_nothing_is_written(root, tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    before = sorted(root.rglob("*"))
    with pytest.raises(CondmixError, match=says):
        main(root, tmp_path / name)
    assert sorted(root.rglob("*")) == before


def test_a_profile_is_not_overwritten(root, tmp_path):
    folder = pictures(tmp_path / "demo", ["1.png"])
    with pytest.raises(CondmixError, match="conf/demo is taken: give another --name"):
        main(root, folder)
    with pytest.raises(CondmixError, match="can't name a profile"):
        main(root, folder, "../x")
    with pytest.raises(CondmixError, match="no conf/folder.yaml: run condmix new in the root"):
        main(tmp_path, folder, "x")


def test_pictures_are_looked_at_and_not_copied(tmp_path, monkeypatch):
    folder = pictures(tmp_path / "flat", [f"{split}/{name}" for split in SPLITS for name in ("a/1.png", "b/2.png")])
    monkeypatch.setattr("condmix.files.pictures.decode", None)
    found = look(folder)
    assert found.classes == ["a", "b"] and [found.holds[split].pictures for split in SPLITS] == [2, 2]


def test_the_time_is_that_of_training_and_of_drawing(root):
    params = load(root)
    drawn = params.evaluate.n + len(params.evaluate.sweep) * params.evaluate.sweep_n
    hours = 0.5 * (params.train.images + drawn * params.evaluate.steps * 2 / 3) / 3600
    said = estimate(params, 0.5)
    assert f"each of the 4 variants will take about {hours:.1f} hours ({4 * hours:.1f} hours for all)" in said
    assert said.endswith("CLIP and judge come on top")


def test_a_folder_that_can_not_be_divided_is_named_itself(tmp_path):
    flat = tmp_path / "flat"
    says = f"^{flat}: holding out 20% of 2 pictures leaves none in test; add pictures, or put some into {flat}/test and"
    with pytest.raises(CondmixError, match=says):
        look(pictures(flat, ["1.png", "2.png"]))
    (flat / "test").mkdir()
    (flat / "1.png").rename(flat / "test" / "1.png")
    with pytest.raises(CondmixError, match="no pictures in train: put some there"):
        look(flat)


def test_an_interrupted_command_leaves_the_project_as_it_was(root, tmp_path, monkeypatch):
    def interrupted(params):
        raise KeyboardInterrupt

    monkeypatch.setattr("condmix.new.seconds_per_picture", interrupted)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):
        main(root, pictures(tmp_path / "flat", [f"{i}.png" for i in range(30)]))
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_pictures_that_do_not_open_are_said_to_be_so(root, tmp_path):
    (tmp_path / "flat").mkdir()
    for i in range(30):
        (tmp_path / "flat" / f"{i}.png").write_bytes(b"no picture")
    assert "none of those looked at opens as a picture" in main(root, tmp_path / "flat")


def test_a_name_as_copies_have_it_is_taken(root, tmp_path):
    folder = pictures(tmp_path / "Ann's pets, 2 & 3 (2024)", [f"{i}.png" for i in range(30)])
    main(root, folder, "pets")
    assert load(root).data.folder == str(folder)
    assert str(folder) in yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["fetch"]["deps"]


def test_a_slow_machine_has_a_rate_too(root):
    assert "at 0.037 per second" in estimate(load(root), 27.0)
