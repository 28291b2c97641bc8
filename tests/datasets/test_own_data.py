"""Pictures of one's own, in folders and in shards: what is read, how it is divided, and the stages on them."""

import gzip
import json
import os
import unicodedata
import zipfile

import numpy as np
import pytest

from condmix import CondmixError
from condmix.data.captions import read_captions
from condmix.data.prepared import Split
from condmix.datasets.folder import ARCHIVE, Folder
from condmix.datasets.webdataset import Webdataset
from condmix.files.pictures import decode
from condmix.settings.load import Paths
from condmix.stages import captions, fetch, prepare
from own_data import params, random_picture, write, write_tar
from profiles import section

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
    asked = params(root, data, templates=["a photo of a {}"])
    for stage in (fetch, prepare, captions):
        stage.main(asked)
    return asked.paths


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
    [
        "{", "[]", '"x"', '{"file": "1.png"}', '{"file": 1, "captions": []}', '{"file": "1.png", "captions": [1]}',
        '{"file": "train/1.png", "captions": []}'.encode("utf-16"), '{"file": "é", "captions": []}'.encode("latin-1"),
    ],
)  # fmt: skip
def test_a_caption_line_that_is_none_is_named(line, tmp_path):
    content = b"\n" + (line.encode() if isinstance(line, str) else line)
    data = packed(tmp_path, {"train/1.png": PICTURE, "test/1.png": PICTURE, "captions.jsonl": content})
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


ODD_NAMES = [
    "Screenshot 10:20:30.png", "re:zero/1.png", "a:/1.png", "C:1.png", "back\\slash.png", "\\1.png", "x\\..\\1.png",
    os.fsdecode(b"caf\xe9.png"), os.fsdecode(b"\xe9cole/1.png"), "\x1b[2J\n.png", "é 日本 🙂.png", "%E9.png",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_a_file_may_have_are_read(name, tmp_path):
    """As a class, as a picture, and as what a line of captions speaks of."""
    files = {f"train/{name}": PICTURE, name: PICTURE, "train/b/1.png": PICTURE, "test/1.png": PICTURE}
    files["captions.jsonl"] = json.dumps({"file": f"train/{name}", "captions": ["odd"]})
    data = packed(tmp_path, files)
    assert sorted(captions_of(data, "train").values()) == [[], ["odd"]] and len(list(data.images("train"))) == 2
    assert [what for what, _ in data.passed_over()] == ["picture outside of train/ and test/"]
    changed = [where for what, where in Folder.remarks(tmp_path / "own")]
    assert len(changed) == (1 if name == "a:/1.png" else 2 if {"\udce9", "\\"} & set(name) else 0)


@pytest.mark.parametrize(("of_files", "of_texts"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_captions_find_their_pictures_however_accents_are_encoded(of_files, of_texts, tmp_path):
    """macOS names files with a letter and an accent (NFD) where others have one character (NFC)."""

    def named(form, name):
        return unicodedata.normalize(form, name)

    line = json.dumps(
        {"file": named(of_texts, "caf\u00e9/\u00e9t\u00e9.png"), "captions": ["summer"]}, ensure_ascii=False
    )
    files = {
        named(of_files, "train/caf\u00e9/\u00e9t\u00e9.png"): PICTURE,
        named(of_files, "train/caf\u00e9/\u00eele.png"): PICTURE,
        named(of_texts, "train/caf\u00e9/\u00eele.txt"): "an island",
        "train/captions.jsonl": line,
        named(of_files, "test/caf\u00e9/1.png"): PICTURE,
        named(of_texts, "test/caf\u00e9/2.png"): PICTURE,
        "test/tea/3.png": PICTURE,
    }
    data = packed(tmp_path, files)
    assert sorted(map(len, data.captions("train"))) == [1, 1] and not list(data.passed_over())
    assert not list(Folder.remarks(tmp_path / "own"))
    assert data.class_names == ["caf\u00e9", "tea"]  # once, and as people type it


def test_archives_of_others_may_name_pictures_with_accents_apart(tmp_path):
    files = {"train/\u0065\u0301.png": PICTURE, "train/\u0065\u0301.txt": "summer", "test/1.png": PICTURE}
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    data = Folder(tmp_path, {})
    assert data.captions("train") == [["summer"]] and len(list(data.images("train"))) == 1


def test_captions_of_other_trainers(tmp_path):
    """kohya's texts beside the pictures, Hugging Face's table; a byte order mark, as Excel writes, is none of them."""
    files = {f"train/{name}": PICTURE for name in ("1.png", "2.JPG", "2.webp", "3.gif", "d.x/4.tiff")}
    files |= {"train/1.txt": "\ufeffone\n", "train/2.caption": "two", "train/d.x/4.TXT": "four", "test/1.bmp": PICTURE}
    files["train/metadata.csv"] = (
        '\ufefffile_name,size,text\r\n3.gif,1,"three, ""3"""\r\n1.png,1,uno\r\ngone.png,1,x\r\n'
    )
    data = packed(tmp_path, files)
    assert {name: set(texts) for name, texts in captions_of(data, "train").items()} == {
        "train/1.png": {"one\n", "uno"},
        "train/2.JPG": {"two"},
        "train/2.webp": {"two"},
        "train/3.gif": {'three, "3"'},
        "train/d.x/4.tiff": {"four"},
    }
    assert list(data.passed_over()) == [
        ("caption line whose picture is not there", "train/metadata.csv, line 4: train/gone.png")
    ]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.csv", "file_name,label\n1.png,3\n", "metadata.csv has no column text among file_name, label"),
        ("metadata.csv", "", "metadata.csv has no column file_name among none"),
        ("metadata.csv", "file_name,text\n1.png\n", "metadata.csv, line 2 has fewer columns"),
        ("metadata.csv", "file_name,text\n1.png,a cat, sitting\n", "metadata.csv, line 2 has more columns.*quotes"),
        ("metadata.csv", "file_name,text,text\n1.png,a,b\n", "metadata.csv has two columns text"),
        ("metadata.csv", 'file_name,text\n1.png,"a" b\n', "metadata.csv is no table behind line 1"),
        ("metadata.csv", b"file_name,text\n1.png,caf\xe9\n", "metadata.csv is not UTF-8 .*save it as UTF-8"),
        ("1.txt", b"caf\xe9", "1.txt is not UTF-8"),
        ("captions.jsonl", "[" * 100_000, "captions.jsonl, line 1 is not .*nested too deeply"),
    ],
)
def test_captions_that_cannot_be_read_are_named(name, content, says, tmp_path):
    data = packed(tmp_path, {"train/1.png": PICTURE, "test/1.png": PICTURE, f"train/{name}": content})
    with pytest.raises(CondmixError, match=f"pictures.zip: train/{says}"):
        data.captions("train")


def test_what_a_folder_holds_besides_is_named(tmp_path):
    files = {"train/1.png": PICTURE, "test/1.png": PICTURE, "notes.txt": "", "train/1.mp4": "", "train/.2.png": ""}
    assert list(Folder.remarks(write(tmp_path / "own", files))) == [
        ("file that is neither picture nor captions", "notes.txt"),
        ("file that is neither picture nor captions", "train/1.mp4"),
    ]


def test_two_files_of_one_stored_name_are_refused(tmp_path):
    own = write(tmp_path / "own", {"%E9.png": PICTURE, os.fsdecode(b"\xe9.png"): PICTURE})
    with pytest.raises(CondmixError, match="another file would have the same name: rename one"):
        Folder.pack(own, tmp_path)


def test_a_pipe_among_the_pictures_is_not_waited_for(tmp_path):
    own = write(tmp_path / "own", {"train/1.png": PICTURE})
    os.mkfifo(own / "pipe.png")
    os.mkfifo(own / "pipe.tar")
    for kind in (Folder, Webdataset):
        with pytest.raises(CondmixError, match="own/pipe.(png|tar) is not a regular file"):
            kind.pack(own, tmp_path)


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


def test_names_that_begin_with_the_folder_itself_are_not_hidden(tmp_path):
    """`tar -cf train.tar .` writes them."""
    members = {"./1.png": PICTURE, "./1.txt": "one", "./a/2.png": PICTURE, "./.DS_Store": "", "./a/._2.png": ""}
    data = shards(tmp_path, {"train.tar": members, "test.tar": {"1.png": PICTURE}})
    assert data.captions("train") == [["one"], []] and list(data.passed_over()) == []


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


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def test_shards_as_people_keep_them(tmp_path):
    """Gzipped, whatever they are called; beside hidden files, folders and files that are no shards."""
    samples = [write_tar(tmp_path / f"{n}.tar", {f"{n}.png": PICTURE, f"{n}.txt": "x"}).read_bytes() for n in range(4)]
    files = {"train-0.tar": samples[0], "a/train-1.tar.gz": gzipped(samples[1]), "train-2.tar": gzipped(samples[2])}
    files |= {"test.tgz": gzipped(samples[3]), "._train-0.tar": "resource fork", "x.tar/notes.txt": "", "README": ""}
    own, archives = write(tmp_path / "own", files), tmp_path / "archives"
    Webdataset.pack(own, archives)
    write(archives, {"._train-0.tar": "resource fork"})
    data = Webdataset(archives, {})
    assert [name for name, _ in data.files("train")] == ["train-0.tar: 0.png", "train-2.tar: 2.png"]
    assert [name for name, _ in data.files("test")] == ["test.tar: 3.png"]
    assert list(data.passed_over()) == [("picture in a shard of neither train nor test", "train-1.tar: 1.png")]
    assert [where for _, where in Webdataset.remarks(own)] == ["README", "x.tar/notes.txt"]


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("train.tar", lambda tar: tar[:1000], "is cut short or damaged"),
        ("train.tar", lambda tar: b"", "is cut short or damaged"),
        ("train.tar", lambda tar: b"no tar" * 200, "is cut short or damaged"),
        ("train.tar", lambda tar: tar + tar, "is cut short or damaged .other bytes follow its end"),
        ("train.tar", lambda tar: gzipped(tar)[:-20], "is cut short or damaged"),
        ("train.tar.gz", lambda tar: gzipped(tar)[:40], "is cut short or damaged"),
        ("train.tar", lambda tar: tar[:4096] + tar, "is cut short or damaged .it holds .1.png. twice"),
    ],
)
def test_a_damaged_shard_of_ones_own_is_named_when_it_is_packed(name, damage, says, tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {"1.png": random_picture(1, 32)}).read_bytes()
    own = write(tmp_path / "own", {name: damage(whole), "test.tar": whole})
    with pytest.raises(CondmixError, match=f"own/{name} {says}.*: make it again, or take it out of the folder"):
        Webdataset.pack(own, tmp_path / "archives")


def test_entries_of_too_many_bytes_are_not_unpacked(tmp_path):
    """The limits are those of a header, before anything is read."""
    data = shards(
        tmp_path, {"train.tar": {"1.png": PICTURE, "1.txt": b" " * ((1 << 24) + 1)}, "test.tar": {"1.png": PICTURE}}
    )
    with pytest.raises(CondmixError, match="train.tar: 1.txt has 16,777,217 bytes, and more than 16,777,216 are not"):
        data.captions("train")


def test_odd_keys_are_read(tmp_path):
    names = ["laion:1", os.fsdecode(b"caf\xe9"), "\x1b[2J"]
    files = {f"{name}.png": PICTURE for name in names} | {"README": "x"}
    data = shards(tmp_path, {"0.tar": files | {f"{n}.png": PICTURE for n in range(20)}}, held_out_percent=50)
    assert len(data.ids("train")) + len(data.ids("test")) == 23
    assert list(data.passed_over()) == [("file without an ending", "0.tar: README")]


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
    files = {"train/cat/1.png": random_picture(1), "train/dog/1.png": random_picture(2)}
    files |= {f"test/cat/{number}.png": PICTURE for number in (1, 2)}
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
    write_tar(own / "test-02.tar", {"3.png": PICTURE})
    (own / "test-01.tar").unlink()
    check_stages(stages(tmp_path, "webdataset", own))
    assert sorted(path.name for path in paths.archives.glob("test*")) == ["test-00.tar", "test-02.tar"]


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
