"""`condmix data check`: every kind of damage is named with its file; it fails where the pipeline would stop."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from condmix.cli import main
from condmix.data.check import too_long
from condmix.datasets.demo import Demo
from condmix.datasets.folder import Folder
from condmix.settings.load import Paths
from own_data import encoded, random_picture, write, write_tar
from profiles import content, profile
from tiny_project import PARAMS

LONG = " ".join(["far"] * 80)


def conf_of(**changes) -> dict:
    sections = {
        "captions": {"templates": ["a photo of a {}"]},
        "clip": {"model": "ViT-B-32"},
        "model": {"multipliers": [1, 2], "attention": [4]},
    }
    return profile(**{name: sections.get(name, {}) | changes.get(name, {}) for name in {*sections, *changes}})


def change(root: Path, **changes) -> None:
    """Other settings of the project's profile, whose data stay."""
    path = root / "conf" / "own.yaml"
    conf = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(conf | {name: conf[name] | section for name, section in changes.items()}))


def project(root: Path, monkeypatch, **data) -> Path:
    """A project whose profile is `own`; returns the folder for its archives."""
    conf = conf_of(data={"image_size": 8, "world": {}} | data)
    write(root, {"params.yaml": yaml.safe_dump(PARAMS), "conf/own.yaml": yaml.safe_dump(conf)})
    monkeypatch.chdir(root)
    archives = Paths(root, "own").archives
    archives.mkdir(parents=True)
    return archives


def check():
    """Exit code and output, progress bars left out."""
    done = CliRunner().invoke(main, ["data", "check", "--profile", "own"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Checks a folder of these files, beside a few pictures of two classes that are as they should be."""
    archives = project(tmp_path, monkeypatch, dataset="folder", folder="own")

    def checked(files):
        good = {
            f"{split}/{kind}/ok.png": random_picture(100 + 2 * SPLITS.index(split) + "ab".index(kind))
            for split in SPLITS
            for kind in "ab"
        }
        Folder.pack(write(tmp_path / "own", good | files), archives)
        return check()

    return checked


SPLITS = ("train", "test")
JPEG = encoded(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8), "JPEG")
FLOATS = encoded(np.zeros((9, 9), np.float32), "TIFF")
CAPTIONED = {f"{split}/{kind}/ok.png": ["a thing"] for split in SPLITS for kind in "ab"}


def lines(captions: dict[str, list[str]]) -> str:
    return "\n".join(json.dumps({"file": name, "captions": texts}) for name, texts in captions.items())


def test_good_data_pass_without_a_word(own):
    assert own({}) == (
        0,
        "split  pictures  shorter side  classes  per class  captions  per picture\n"
        "train         2         16 px        2          1         2            1\n"
        " test         2         16 px        2          1         2            1\n\n",
    )


@pytest.mark.parametrize(
    ("files", "stops", "says"),
    [
        ({"train/a/1.jpg": JPEG[:-200]}, True, "error: picture that does not decode: 1\n    train/a/1.jpg does not"),
        ({"test/a/1.png": "no picture"}, True, "test/a/1.png does not decode (not an image)"),
        ({"test/a/1.png": ""}, True, "test/a/1.png does not decode"),
        ({"train/a/1.tif": FLOATS}, True, "train/a/1.tif does not decode (it has 32 bits per pixel, mode F"),
        ({"train/a/1.png": random_picture(1, 7)}, False, "smaller than data.image_size 8: 1\n    train/a/1.png is 7x7"),
        ({"train/a/1.png": JPEG, "train/b/2.png": JPEG}, False, "warning: the same picture twice: 1\n    train/"),
        (
            {"train/a/1.png": JPEG, "test/a/2.png": JPEG},
            False,
            "test picture that is in train too: 1\n    test/a/2.png = ",
        ),
        ({"test/c/1.png": JPEG}, False, "warning: class that occurs in test only: 1\n    c\n"),
        ({"train/1.png": JPEG}, False, "warning: train picture without a class: 1\n    train/1.png"),
        ({"val/1.png": JPEG}, False, "warning: picture outside of train/ and test/: 1\n    val/1.png"),
        (
            {f"train/a/{n}.png": random_picture(n) for n in range(10)},
            False,
            "warning: unbalanced classes in train: 1\n    a has 11, b has 1",
        ),
        ({"captions.jsonl": lines(CAPTIONED | {"train/a/ok.png": ["x", " "]})}, False, "empty caption in train: 1\n"),
        ({"captions.jsonl": lines(CAPTIONED | {"test/b/ok.png": []})}, False, "test picture without a caption: 1\n"),
        (
            {"captions.jsonl": lines(CAPTIONED | {"gone.png": ["x"]})},
            False,
            "caption line whose picture is not there: 1\n    captions.jsonl, line 5: gone.png",
        ),
        (
            {"captions.jsonl": lines(CAPTIONED | {"train/a/ok.png": [LONG]})},
            False,
            "train caption of more than 77 tokens, which CLIP cuts off: 1\n    train/a/ok.png: 82 tokens: far far",
        ),
        (
            {"captions.jsonl": lines(CAPTIONED | {"train/a/ok.png": [LONG[:200], LONG[1:200]]})},
            False,
            "train caption_joined_2 of more than 77 tokens, which CLIP cuts off: 1\n    train/a/ok.png: 104 tokens: ",
        ),
        ({"captions.jsonl": "?"}, True, "captions.jsonl, line 1 is not"),
        ({"captions.jsonl": lines(CAPTIONED | {"train/a/ok.png": ["\ud800"]})}, True, "which is not valid text"),
        ({"notes.pdf": "", "train/\x1b[2J.mp4": ""}, False, "nor captions: 2\n    notes.pdf\n    train/\\x1b[2J.mp4\n"),
        ({"train/a/1.gif": encoded(np.zeros((8, 8, 3), np.uint8), "GIF")}, None, "train         3  "),
    ],
)
def test_what_is_wrong_is_named(files, stops, says, own):
    code, output = own(files)
    assert says in output and "\x1b" not in output
    assert code == bool(stops)
    if stops is None:
        assert "error: " not in output and "warning: " not in output
        return
    assert ("error: " in output) == stops and output.count("error: ") + output.count("warning: ") == 1


def test_data_without_captions_cannot_feed_the_caption_variants(own):
    code, output = own({"captions.jsonl": lines(dict.fromkeys(CAPTIONED, []))})
    assert code == 1
    for variant in ("caption", "experiment"):
        assert f'error: variant {variant} reads "caption_1", which the data does not have' in output
    assert "error: no training picture has a caption to train a CLIP on: give clip.pretrained" in output
    assert output.count("error: ") == 3 and "train picture without a caption: 2\n" in output


@pytest.mark.parametrize(
    ("ids", "of", "says"),
    [
        ([0, 1], "image", None),
        ([0], "image", "warning: train picture without a vector of dino_2: 1\n    train/a/ok.png"),
        ([0, 7], "image", "has vectors of 1 pictures that the data set does not have, first of id 7"),
        ([0, 1], "caption", "dino_2 is of each picture's caption number 2, but 1 are in use"),
    ],
)
def test_imported_vectors_that_are_not_of_these_data_are_named(own, tmp_path, ids, of, says):
    facts = {"perspective": "dino_2", "split": "train", "encoder": "a test", "of": of}
    np.savez(tmp_path / "v.npz", vectors=np.ones((len(ids), 2), np.float32), ids=np.array(ids), **facts)
    named = content(tmp_path / "v.npz").model_dump() | {"perspective": "dino_2", "split": "train"}
    change(tmp_path, embed={"imports": [named]})
    code, output = own({})
    assert code == bool(says and not says.startswith("warning")) and (says or "") in output
    assert bool(says) == ("error: " in output or "warning: " in output)


def test_a_judge_of_other_classes_is_named(own, tmp_path):
    (tmp_path / "w").write_text("of somebody's judge")
    change(tmp_path, judge={"weights": content(tmp_path / "w").model_dump()})
    code, output = own({})
    assert code == 1 and "error: judge.weights" in output and "but this data has other ones; write" in output


def test_the_classes_that_are_there_count_among_a_model_s_parameters(own, tmp_path):
    """Before the data are there, one class is as many as are known of."""

    write(tmp_path, {"params.yaml": yaml.safe_dump(PARAMS | {"profile": "own", "variants": ["class_v1"]})})

    def least(output):
        return int(re.search(r"at least ([\d,]+)", output)[1].replace(",", ""))

    change(tmp_path, model={"match_parameters": 10})
    code, output = own({})
    of_two, before = least(output), least(CliRunner().invoke(main, ["check"]).output)
    assert code == 1 and of_two == before + 512  # another vector of ViT-B-32's width
    change(tmp_path, model={"match_parameters": of_two})
    assert own({})[0] == 0


def test_examples_are_few_and_all_are_counted(own):
    _, output = own({f"train/a/{n}.png": random_picture(n, 4) for n in range(8)})
    assert "image_size 8: 8\n" in output and output.count(" is 4x4") == 5 and "... and 3 more" in output


def test_data_without_classes_cannot_feed_the_class_variants(tmp_path, monkeypatch):
    archives = project(tmp_path, monkeypatch, dataset="webdataset")
    for number, split in enumerate(SPLITS):
        write_tar(archives / f"{split}.tar", {"1.png": random_picture(number), "1.txt": "a thing"})
    write_tar(archives / "val.tar", {"1.png": random_picture(9), "1.txt": "a thing"})
    code, output = check()
    assert code == 1
    assert 'error: variant class_v1 reads "class", which the data does not have: leave it out in params.yaml' in output
    assert "picture in a shard of neither train nor test: 1\n    val.tar: 1.png" in output


def test_a_data_set_without_files_is_checked_too(tmp_path, monkeypatch):
    archives = project(tmp_path, monkeypatch, dataset="demo")
    code, output = check()
    assert code == 1 and "annotations_trainval2017.zip is missing: run the stage fetch" in output
    Demo.draw(archives, {"train": 12, "test": 8, "seed": 1})
    code, output = check()
    assert code == 0 and "error" not in output
    assert output.splitlines()[1].split()[:4] == ["train", "12", "32", "px"]


def test_tokens_are_those_that_clip_counts():
    from open_clip import SimpleTokenizer

    texts = ["a cat", "Supercalifragilistic!", "ü  &amp; 🙂", "x" * 9, "&nGt;" * 2]
    counts = (SimpleTokenizer()(texts) != 0).sum(dim=1).tolist()
    for limit in range(2, 20):
        expected = {text: count for text, count in zip(texts, counts, strict=True) if count > limit}
        assert too_long([texts, texts], limit) == expected
