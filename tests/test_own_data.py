"""Pictures of one's own, in folders and in shards: what is read, how it is divided, and the stages on them."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from condmix import CondmixError, captions, fetch, prepare
from condmix.captionfile import read_captions
from condmix.config import Paths
from condmix.datasets import Split
from condmix.datasets._pictures import decode
from condmix.datasets.folder import ARCHIVE, Folder
from condmix.datasets.webdataset import Webdataset
from own_data import encoded, random_picture, write, write_tar
from settings import section

PICTURE = random_picture(0)


def packed(tmp_path, files, **settings):
    """The data set `folder` over these files."""
    Folder.pack(write(tmp_path / "own", files), tmp_path)
    return Folder(tmp_path, settings)


def captions_of(data, split):
    return dict(zip((name for name, _ in data.files(split)), data.captions(split), strict=True))


def stages(root, dataset, folder, world=None, tracked=True):
    """fetch, prepare and captions, as DVC runs them."""
    deps = ["src", str(folder)] if tracked else ["src"]
    (root / "dvc.yaml").write_text(json.dumps({"stages": {"fetch": {"deps": deps}}}))
    data = section("data", dataset=dataset, image_size=8, folder=str(folder), world=world or {})
    templates = section("captions", templates=["a photo of a {}"])
    params = SimpleNamespace(root=root, profile="own", paths=Paths(root, "own"), data=data, captions=templates)
    for stage in (fetch, prepare, captions):
        stage.main(params)
    return params.paths


# Folders


def test_subfolders_are_classes(tmp_path):
    names = ["train/dog/1.png", "train/cat/deep/er/2.JPG", "train/3.png", "test/dog/1.webp", "test/bird/1.jpeg"]
    data = packed(tmp_path, {name: PICTURE for name in names})
    assert data.class_names == ["bird", "cat", "dog"]
    found = dict(zip((name for name, _ in data.files("train")), data.labels("train"), strict=True))
    assert found == {"train/dog/1.png": 2, "train/cat/deep/er/2.JPG": 1, "train/3.png": -1}
    assert data.captions("train") is None


def test_one_subfolder_is_no_class(tmp_path):
    data = packed(tmp_path, {f"{split}/images/1.png": PICTURE for split in ("train", "test")})
    assert data.class_names == [] and data.labels("train") is None


def test_both_kinds_of_caption_files(tmp_path):
    """Paths are relative to the file's folder; several lines about one picture add up."""
    files = {name: PICTURE for name in ("train/a/1.png", "train/a/2.png", "train/3.png", "test/1.png")}
    files["captions.jsonl"] = (
        '{"file": "train/a/1.png", "captions": ["one", "uno"]}\n\n{"file": "./test/1.png", "captions": []}'
    )
    files["train/a/metadata.jsonl"] = (
        '{"file_name": "2.png", "text": "zwei \\u00fc"}\n{"file_name": "1.png", "text": "1"}'
    )
    data = packed(tmp_path, files)
    found = captions_of(data, "train")
    assert {name: set(texts) for name, texts in found.items()} == {
        "train/a/1.png": {"one", "uno", "1"},
        "train/a/2.png": {"zwei ü"},
        "train/3.png": set(),
    }
    assert captions_of(data, "test") == {"test/1.png": []}


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '"x"', '{"file": "1.png"}', '{"file": 1, "captions": []}', '{"file": "1.png", "captions": [1]}'],
)
def test_a_caption_line_that_is_none_is_named(line, tmp_path):
    data = packed(tmp_path, {"train/1.png": PICTURE, "test/1.png": PICTURE, "captions.jsonl": "\n" + line})
    with pytest.raises(CondmixError, match="pictures.zip: captions.jsonl, line 2"):
        data.captions("train")


def test_packing_is_the_same_whenever_and_wherever(tmp_path):
    files = {f"train/{number}.png": random_picture(number) for number in range(5)} | {"test/1.png": PICTURE}
    clutter = {"train/._1.png": "resource fork", "test/Thumbs.db": "clutter", ".git/x.png": "hidden"}
    for name, content in (("one", files | clutter), ("two", dict(reversed(files.items())))):
        (tmp_path / name / "archives").mkdir(parents=True)
        Folder.pack(write(tmp_path / name / "own", content), tmp_path / name / "archives")
    one, two = ((tmp_path / name / "archives" / ARCHIVE).read_bytes() for name in ("one", "two"))
    assert one == two
    write(tmp_path / "two" / "own", {"train/3.png": random_picture(9)})
    Folder.pack(tmp_path / "two" / "own", tmp_path / "two" / "archives")
    assert (tmp_path / "two" / "archives" / ARCHIVE).read_bytes() != one


def test_classes_are_mixed_in_the_order_of_reading(tmp_path):
    """Evaluation takes the first pictures of the test split, which must not all be of one class."""
    files = {f"{split}/{kind}/{n}.png": PICTURE for split in ("train", "test") for kind in "ab" for n in range(40)}
    first = packed(tmp_path, files).labels("test")[:40]
    assert 10 <= first.sum() <= 30


def test_a_linked_folder_is_refused(tmp_path):
    own = write(tmp_path / "own", {"train/1.png": PICTURE})
    (own / "test").symlink_to(own / "train")
    with pytest.raises(CondmixError, match="own/test links to a folder"):
        Folder.pack(own, tmp_path)


# Shards


def shards(tmp_path, files, **settings):
    """The data set `webdataset` over {shard: {member: content}}."""
    for name, members in files.items():
        write_tar(tmp_path / "archives" / name, members)
    return Webdataset(tmp_path / "archives", settings)


def test_a_sample_is_the_files_of_one_key(tmp_path):
    first = {
        "a/1.jpg": random_picture(1), "a/1.txt": "both", "a/1.json": '{"caption": "both"}', "a/1.cls": "10\n",
        "a/2.x.y": "?", "a/2.PNG": random_picture(2), "a/2.json": '{"captions": ["k", "l"]}', "a/2.cls": "9",
    }  # fmt: skip
    second = {"3.png": random_picture(3), "4.txt": "a download that failed", "._3.png": "resource fork"}
    data = shards(tmp_path, {"train-00.tar": first, "train-01.tar": second, "test/0.tar": {"1.webp": PICTURE}})
    assert data.captions("train") == [["both"], ["k", "l"], []] and data.captions("test") == [[]]
    assert data.class_names == ["9", "10"]
    assert data.labels("train").tolist() == [1, 0, -1]
    for number, picture in enumerate(data.images("train"), 1):
        np.testing.assert_array_equal(picture, decode(random_picture(number), "a test"))
    assert list(data.passed_over()) == [
        ("file of a kind that is not read (.x.y)", "train-00.tar: a/2.x.y"),
        ("sample without a picture", "train-01.tar: 4"),
    ]


def test_shards_without_texts_have_neither_captions_nor_classes(tmp_path):
    data = shards(tmp_path, {f"{split}.tar": {"1.png": PICTURE, "1.json": "{}"} for split in ("train", "test")})
    assert data.captions("train") is None and data.labels("train") is None and data.class_names == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"1.png": PICTURE, "1.json": "[]"}, "1.json is not a JSON object"),
        ({"1.png": PICTURE, "1.json": '{"captions": "abc"}'}, "captions a list of texts"),
        ({"1.png": PICTURE, "1.txt": b"\xff"}, "1.txt is not UTF-8"),
        ({"1.png": PICTURE, "1.jpg": PICTURE}, "1 has 2 pictures: 1.png, 1.jpg"),
        ({"../1.png": PICTURE}, "escapes its folder"),
    ],
)
def test_a_sample_that_is_wrong_is_named(files, says, tmp_path):
    with pytest.raises(CondmixError, match=f"train.tar.*{says}"):
        shards(tmp_path, {"train.tar": files, "test.tar": {"1.png": PICTURE}}).ids("train")


def test_a_shard_that_is_cut_short_is_named(tmp_path):
    data = shards(tmp_path, {"train.tar": {"1.png": random_picture(1, 64)}, "test.tar": {"1.png": PICTURE}})
    whole = (tmp_path / "archives" / "train.tar").read_bytes()
    (tmp_path / "archives" / "train.tar").write_bytes(whole[:4000])
    with pytest.raises(CondmixError, match="train.tar is cut short or damaged"):
        data.ids("train")


# Splits, for both


def data_set(kind, tmp_path, names, **settings):
    if kind == "folder":
        return packed(tmp_path, {f"{name}.png": PICTURE for name in names}, **settings)
    return shards(tmp_path, {f"{name}.tar": {f"{name[-1]}.png": PICTURE} for name in names}, **settings)


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        (["train/1", "val/2"], {}, "no pictures in test: put some there, or .*held_out_percent: 5"),
        (["1", "2"], {}, "no pictures in train: put some there"),
        (["train/1", "test/2"], {"held_out_percent": 5}, "has pictures in test, so nothing is held out"),
        (["1", "2"], {"held_out_percent": 0}, "held_out_percent, from 1 to 99"),
        (["1", "2"], {"held_out": 5}, "held_out_percent, from 1 to 99"),
        (["1"], {"held_out_percent": 5}, "holding out 5% of 1 pictures leaves none in test"),
    ],
)
def test_splits_that_cannot_be_made(kind, names, settings, says, tmp_path):
    with pytest.raises(CondmixError, match=says):
        data_set(kind, tmp_path, names, **settings).ids("train")


def test_what_is_held_out_depends_on_its_own_name_only(tmp_path):
    names = [f"train/{number}.png" for number in range(400)] + ["val/1.png"]
    data = packed(tmp_path, {name: PICTURE for name in names}, held_out_percent=20)
    test = {name for name, _ in data.files("test")}
    train = {name for name, _ in data.files("train")}
    assert 50 < len(test) < 110 and not test & train and len(test | train) == 400  # 80 +- 8; val is passed over
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    data = packed(fewer, {name: PICTURE for name in names[::2]}, held_out_percent=20)
    assert {name for name, _ in data.files("test")} == test & set(names[::2])


# Pictures as people have them


def test_a_photo_is_turned_upright():
    photo = Image.new("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    file = io.BytesIO()
    photo.save(file, "JPEG", exif=exif)
    assert decode(file.getvalue(), "a test").shape == (20, 10, 3)


def test_sixteen_bits_are_refused_and_not_cut_off():
    with pytest.raises(CondmixError, match="a test does not decode .*more than 8 bits"):
        decode(encoded(np.full((4, 4), 40000, np.uint16)), "a test")


# The stages


def check_stages(paths):
    split = Split.load(paths.dataset, "train")
    assert split.images.shape == (2, 8, 8, 3) and split.class_names == ["cat", "dog"]
    assert sorted(split.labels.tolist()) == [0, 1]
    said = read_captions(paths.captions, "train")
    assert [said[row] for row in np.argsort(split.labels)] == [["a cat"], ["a dog"]]
    pixels = [prepare.square(decode(random_picture(seed), "a test"), 8) for seed in (1, 2)]
    np.testing.assert_array_equal(split.images[np.argsort(split.labels)], pixels)


def test_the_stages_on_a_folder(tmp_path):
    files = {"train/cat/1.png": random_picture(1), "train/dog/1.png": random_picture(2), "test/cat/1.png": PICTURE}
    files["train/metadata.jsonl"] = "\n".join(
        json.dumps({"file_name": f"{kind}/1.png", "text": f" a  {kind}"}) for kind in ("cat", "dog")
    )
    check_stages(stages(tmp_path, "folder", write(tmp_path / "own", files)))


def test_the_stages_on_shards(tmp_path):
    own = tmp_path / "own"
    files = {f"{n}{end}": content for n, kind in ((1, "cat"), (2, "dog"))
             for end, content in ((".png", random_picture(n)), (".txt", f"a {kind}"), (".cls", kind))}  # fmt: skip
    write_tar(own / "train-00.tar", files)
    write_tar(own / "test-00.tar", {"1.png": PICTURE})
    write_tar(own / "test-01.tar", {"2.png": PICTURE})
    paths = stages(tmp_path, "webdataset", own)
    check_stages(paths)
    (own / "test-01.tar").unlink()
    check_stages(stages(tmp_path, "webdataset", own))
    assert Split.load(paths.dataset, "test").ids.tolist() == [0]  # no shard of before is left


def test_classes_alone_fill_the_templates(tmp_path):
    files = {f"{split}/{kind}/1.png": PICTURE for split in ("train", "test") for kind in ("cat", "dog")}
    paths = stages(tmp_path, "folder", write(tmp_path / "own", files))
    assert sorted(read_captions(paths.captions, "test")) == [["a photo of a cat"], ["a photo of a dog"]]


@pytest.mark.parametrize("dataset", ["folder", "webdataset"])
def test_a_folder_that_cannot_be_packed(dataset, tmp_path):
    own = write(tmp_path / "own", {"notes.txt": "nothing here"})
    with pytest.raises(CondmixError, match=f'DVC does not watch {own}: add the line "- {own}"'):
        stages(tmp_path, dataset, own, tracked=False)
    with pytest.raises(CondmixError, match="own holds no (pictures|shards)"):
        stages(tmp_path, dataset, own)
    with pytest.raises(CondmixError, match="there is no folder .*elsewhere"):
        stages(tmp_path, dataset, tmp_path / "elsewhere")
    with pytest.raises(CondmixError, match="cifar10 takes data.files, not data.folder"):
        stages(tmp_path, "cifar10", own)
    assert not Paths(tmp_path, "own").archives.exists()
