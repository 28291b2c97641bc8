"""The readers: official formats in, arrays out; damage and malice end in one sentence."""

import gzip
import io
import json
import os
import pickle
import pickletools
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import own_data
from condmix import CondmixError
from condmix.datasets import SPLITS, Dataset, _archives, _json
from condmix.datasets._cifar_format import ARCHIVE, FOLDER, python2_pickle, unpickle, write_cifar
from condmix.datasets._coco_format import ANNOTATIONS, write_annotations, write_coco
from condmix.datasets.cifar10 import Cifar10
from condmix.datasets.coco import Coco
from condmix.datasets.demo import Demo
from condmix.datasets.fashion import Fashion
from condmix.datasets.folder import Folder
from condmix.settings import load
from people import write_people
from real_data import build

CLASSES = ["cat", "dog", "ship"]
WORLDS = {  # settings that a data set needs
    "fashion": {"fewest": 1, "held_out_percent": 25, "held_out_pairs": 0},
    "cifar10n": {"held_out_percent": 29},
}
FOLDERS = {"cifar10n": "people"}  # whose file has the name of another data set's


def cifar_content(seed=0):
    rng = np.random.default_rng(seed)
    counts = {"train": 23, "test": 4}  # 23 does not divide into five equal batches
    images = {split: rng.integers(0, 256, (n, 32, 32, 3), np.uint8) for split, n in counts.items()}
    labels = {split: rng.integers(0, 3, n).tolist() for split, n in counts.items()}
    return images, labels


def tar_of(path, members):
    """A .tar.gz of {name: bytes or TarInfo}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def members_of(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


@pytest.fixture
def cifar(tmp_path):
    write_cifar(tmp_path, *cifar_content(), CLASSES)
    return tmp_path


# The contract, for every data set that there is


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Files that every reader reads: the demo world is in both official formats, and here in those of one's own."""
    folder, own = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("own")
    Demo.draw(folder, {"train": 12, "test": 5, "seed": 3})
    demo = Demo(folder, {})
    for split in SPLITS:
        samples = zip(demo.images(split), demo.labels(split), demo.captions(split), strict=True)
        own_data.write_folder(own, split, samples, demo.class_names)
        samples = zip(demo.images(split), demo.labels(split), demo.captions(split), strict=True)
        own_data.write_shard(folder / f"{split}-00000.tar", samples)
    Folder.pack(own, folder)
    Fashion.pack(products(tmp_path_factory.mktemp("products")), folder)
    (folder / FOLDERS["cifar10n"]).mkdir()
    write_people(folder / FOLDERS["cifar10n"], 17)
    return folder


def products(folder: Path) -> Path:
    """17 products, five of which WORLDS holds out."""
    lines = ["id,gender,articleType,baseColour,usage,productDisplayName"]
    lines += [f"{number},Men,Ties,Black,Casual,Tie {number}" for number in range(17)]
    pictures: dict[str, bytes | str] = {f"images/{number}.jpg": own_data.random_picture(number) for number in range(17)}
    return own_data.write(folder, {"styles.csv": "\n".join(lines), **pictures})


@pytest.mark.parametrize("name", load.plugins("datasets"))
@pytest.mark.parametrize("split", SPLITS)
def test_contract(name, split, archives):
    data = load.plugin("datasets", name)(archives / FOLDERS.get(name, ""), WORLDS.get(name, {}))
    assert isinstance(data, Dataset)
    ids = data.ids(split)
    assert len(ids) == len(set(ids)) == {"train": 12, "test": 5}[split]
    images = list(data.images(split))
    assert len(images) == len(ids)
    assert all(image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 for image in images)
    np.testing.assert_array_equal(images[0], next(data.images(split)))  # it can be read again
    for rows in (slice(0, 2), slice(2, 4), slice(4, None)):
        decoders = list(data.decoders(split, rows))
        for decoder, image in zip(reversed(decoders), reversed(images[rows]), strict=True):
            np.testing.assert_array_equal(decoder(), image)

    labels = data.labels(split)
    assert (labels is None) == (data.class_names == [])
    if labels is not None:
        assert labels.shape == (len(ids),) and labels.dtype == np.int64
        assert -1 <= labels.min() and labels.max() < len(data.class_names)
    captions = data.captions(split)
    assert captions is None or len(captions) == len(ids)
    values = data.attribute_values(split)
    assert (values is None) == (data.attributes == {})
    if values is not None:
        assert values.shape == (len(ids), len(data.attributes)) and values.dtype == np.int64
        assert (values < [len(options) for options in data.attributes.values()]).all() and (values >= -1).all()
        assert data.mentions(split).shape == (len(ids), len(captions[0]), len(data.attributes))
    held_out = data.held_out(split)
    assert held_out is None or (held_out.shape == (len(ids),) and held_out.dtype == bool)


@pytest.mark.parametrize("name", load.plugins("datasets"))
def test_no_archives(name, tmp_path):
    data = load.plugin("datasets", name)(tmp_path, WORLDS.get(name, {}))
    with pytest.raises(CondmixError, match="is missing: run the stage fetch"):
        data.ids("train")


# CIFAR-10


def test_cifar_round_trip(cifar):
    images, labels = cifar_content()
    data = Cifar10(cifar, {})
    assert data.class_names == CLASSES
    for split in SPLITS:
        np.testing.assert_array_equal(list(data.images(split)), images[split])
        np.testing.assert_array_equal(data.labels(split), labels[split])
        assert data.ids(split) == list(range(len(labels[split])))


def test_our_archive_has_the_official_layout(cifar):
    """What the authors' page says of the format, and that strings are Python 2's (as `encoding="bytes"` expects)."""
    members = members_of(cifar / ARCHIVE)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
    assert sorted(members) == sorted(f"{FOLDER}/{name}" for name in names)
    images, labels = cifar_content()
    batch = pickle.loads(members[f"{FOLDER}/data_batch_1"], encoding="bytes")
    assert batch.keys() == {b"batch_label", b"labels", b"data", b"filenames"}
    assert batch[b"data"].dtype == np.uint8 and batch[b"data"].shape == (5, 3072)
    np.testing.assert_array_equal(batch[b"data"][0, :1024], images["train"][0, :, :, 0].ravel())  # red first, by rows
    assert batch[b"labels"] == labels["train"][:5]
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(members[f"{FOLDER}/data_batch_1"])}
    assert not opcodes & {"BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "FRAME"}
    meta = pickle.loads(members[f"{FOLDER}/batches.meta"], encoding="bytes")
    assert meta == {b"num_cases_per_batch": 5, b"label_names": [b"cat", b"dog", b"ship"], b"num_vis": 3072}


def test_gzip_member_dates_are_zero(cifar):
    with gzip.open(cifar / ARCHIVE) as zipped:
        zipped.read(1)
        assert zipped.mtime == 0


def test_pickles_written_by_python_3_are_read_too():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for protocol in (2, 3, 4):
        found = unpickle(pickle.dumps({b"data": array}, protocol), "a test")
        np.testing.assert_array_equal(found[b"data"], array)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function, arguments, named",
    [
        (os.system, ("echo called",), "system"),
        (eval, ("1 + 1",), "eval"),
        (getattr, (np.ndarray, "tofile"), "getattr"),
        (np.fromfile, ("file",), "fromfile"),
        (subprocess.Popen, (["true"],), "Popen"),
    ],
)
def test_a_pickle_that_calls_anything_is_refused(function, arguments, named, cifar, capfd):
    members = members_of(cifar / ARCHIVE)
    for protocol in (2, 4):
        members[f"{FOLDER}/data_batch_3"] = pickle.dumps({b"data": Call(function, *arguments)}, protocol)
        tar_of(cifar / ARCHIVE, members)
        with pytest.raises(CondmixError, match=f"data_batch_3 is not a pickle of arrays: it calls .*{named}"):
            Cifar10(cifar, {}).labels("train")
    assert "called" not in capfd.readouterr().out


def test_only_the_latin1_codec_is_reachable():
    import _codecs

    with pytest.raises(CondmixError, match="codec 'zlib_codec'"):
        unpickle(pickle.dumps(Call(_codecs.encode, "x", "zlib_codec")), "a test")


@pytest.mark.parametrize("payload", [b"", b"\x80\x02", b"not a pickle", pickle.dumps({"a": 1})[:-3], b"\x80\x02]."])
def test_damaged_pickles(payload, cifar):
    members = members_of(cifar / ARCHIVE)
    members[f"{FOLDER}/test_batch"] = payload
    tar_of(cifar / ARCHIVE, members)
    with pytest.raises(CondmixError, match="test_batch"):
        Cifar10(cifar, {}).labels("test")


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({b"data": np.zeros((4, 3071), np.uint8)}, "uint8 rows of 3072"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "label for each of its 2 pictures"),
        ({b"labels": [0, 1, 2, 3]}, "label 3 of 3 classes"),
        ({b"labels": [0, 1, 2, b"cat"]}, "integer label"),
        ({b"labels": 7}, "integer label"),
        ({b"data": b"pixels"}, "uint8 rows of 3072"),
    ],
)
def test_batches_that_hold_something_else(change, sentence, cifar):
    members = members_of(cifar / ARCHIVE)
    name = f"{FOLDER}/test_batch"
    members[name] = python2_pickle(pickle.loads(members[name], encoding="bytes") | change)
    tar_of(cifar / ARCHIVE, members)
    with pytest.raises(CondmixError, match=sentence):
        Cifar10(cifar, {}).labels("test")


def cut(kept):
    """Of a file's bytes the first so many, or this share of them."""
    return lambda whole: whole[: int(kept * len(whole)) if isinstance(kept, float) else kept]


def flipped(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]


def test_a_pipe_is_not_waited_for(cifar):
    (cifar / ARCHIVE).unlink()
    os.mkfifo(cifar / ARCHIVE)
    with pytest.raises(CondmixError, match="it is not a regular file"):
        Cifar10(cifar, {}).labels("train")


def test_an_archive_that_holds_a_name_twice(cifar):
    path = cifar / ARCHIVE
    with gzip.open(path) as file:
        whole = file.read()
    first = 512 + -(-len(members_of(path)[f"{FOLDER}/data_batch_1"]) // 512) * 512  # its header and its content
    path.write_bytes(gzip.compress(whole[:first] + whole))
    with pytest.raises(CondmixError, match="it holds 'cifar-10-batches-py/data_batch_1' twice"):
        Cifar10(cifar, {}).labels("train")


@pytest.mark.parametrize("damage", [*map(cut, (0, 1, 30, 0.3, 0.9, -20, -5)), flipped])
def test_a_damaged_archive(damage, cifar):
    path = cifar / ARCHIVE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CondmixError, match=f"{ARCHIVE} is cut short or damaged"):
        Cifar10(cifar, {}).labels("train")


def test_an_archive_without_a_batch(cifar):
    members = members_of(cifar / ARCHIVE)
    del members[f"{FOLDER}/data_batch_4"]
    tar_of(cifar / ARCHIVE, members)
    with pytest.raises(CondmixError, match="holds no .*data_batch_4"):
        Cifar10(cifar, {}).labels("train")
    assert Cifar10(cifar, {}).labels("test").shape == (4,)


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside", "..\\outside", "C:\\outside"])
def test_an_entry_that_escapes_its_folder(name, cifar):
    tar_of(cifar / ARCHIVE, {name: b"x"} | members_of(cifar / ARCHIVE))
    with pytest.raises(CondmixError, match="escapes its folder"):
        Cifar10(cifar, {}).labels("train")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_an_entry_that_is_a_link(kind, cifar):
    link = tarfile.TarInfo(f"{FOLDER}/data_batch_1")
    link.type, link.linkname = kind, "/etc/passwd"
    tar_of(cifar / ARCHIVE, {link.name: link})
    with pytest.raises(CondmixError, match="holds the link"):
        Cifar10(cifar, {}).labels("train")


# COCO


IDS = {"train": [900, 25], "test": [7]}
SIZES = [(40, 60), (60, 40)]


@pytest.fixture
def coco(tmp_path):
    rng = np.random.default_rng(0)
    for split, ids in IDS.items():
        write_coco(tmp_path, split, ids, [np.full((*SIZES[i], 3), ids[i] % 251, np.uint8) for i in range(len(ids))])
    texts = {split: {number: [f"caption {k} of {number}" for k in range(5)] for number in IDS[split]} for split in IDS}
    write_annotations(tmp_path, texts, 32, f"a test {rng.integers(9)}")
    return tmp_path


def rewrite(path, changes):
    """Replaces, adds or (None) drops entries of a zip."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)


def test_coco_reads_in_the_order_of_ids(coco):
    data = Coco(coco, {})
    assert data.ids("train") == [25, 900] and data.ids("test") == [7]
    images = list(data.images("train"))
    assert [image.shape for image in images] == [(60, 40, 3), (40, 60, 3)]
    assert abs(images[0].astype(int) - 25).max() <= 1 and abs(images[1].astype(int) - 900 % 251).max() <= 1
    assert data.captions("train")[0] == [f"caption {k} of 25" for k in range(5)]
    assert data.labels("train") is None and data.class_names == []


def test_unlabeled_pictures_follow_the_training_split_if_they_are_asked_for(coco):
    write_coco(coco, "train", [13, 3], [np.full((8, 8, 3), 13, np.uint8), np.full((8, 8, 3), 3, np.uint8)])
    with zipfile.ZipFile(coco / "train2017.zip") as archive:
        pictures = {Path(name).name: archive.read(name) for name in archive.namelist()}
    zipfile.ZipFile(coco / "unlabeled2017.zip", "w").close()
    rewrite(coco / "unlabeled2017.zip", {f"unlabeled2017/{name}": content for name, content in pictures.items()})
    write_coco(coco, "train", IDS["train"], [np.zeros((8, 8, 3), np.uint8)] * 2)
    data = Coco(coco, {"unlabeled": 1})
    assert data.ids("train") == [25, 900, 3, 13] and data.ids("test") == [7]
    assert [len(texts) for texts in data.captions("train")] == [5, 5, 0, 0]
    assert [round(image.mean()) for image in data.images("train")] == [0, 0, 3, 13]
    assert len(list(data.images("test"))) == 1 and Coco(coco, {}).ids("train") == [25, 900]
    rewrite(coco / "unlabeled2017.zip", {"unlabeled2017/000000000025.jpg": b""})
    with pytest.raises(CondmixError, match="000000000025.jpg is in train2017 too"):
        data.ids("train")


def test_captions_come_in_the_order_of_their_ids(coco):
    name = "annotations/captions_val2017.json"
    with zipfile.ZipFile(coco / ANNOTATIONS) as archive:
        document = json.loads(archive.read(name))
    document["annotations"].reverse()
    rewrite(coco / ANNOTATIONS, {name: json.dumps(document)})
    assert Coco(coco, {}).captions("test") == [[f"caption {k} of 7" for k in range(5)]]


def test_reading_captions_opens_no_picture_and_prints_nothing(coco, capfd):
    (coco / "train2017.zip").unlink()
    assert len(Coco(coco, {}).captions("train")) == 2
    assert capfd.readouterr().out == ""
    with pytest.raises(CondmixError, match="train2017.zip is missing"):
        next(Coco(coco, {}).images("train"))


@pytest.mark.parametrize("kept", [0, 3, 30, 200, -30])
def test_a_picture_that_does_not_decode_is_named(kept, coco):
    name = "train2017/000000000900.jpg"
    with zipfile.ZipFile(coco / "train2017.zip") as archive:
        content = archive.read(name)
    rewrite(coco / "train2017.zip", {name: content[:kept]})
    pictures = Coco(coco, {}).images("train")
    next(pictures)
    with pytest.raises(CondmixError, match="train2017.zip: train2017/000000000900.jpg does not decode"):
        next(pictures)


def test_a_picture_that_is_absent_is_named(coco):
    rewrite(coco / "val2017.zip", {"val2017/000000000007.jpg": None})
    with pytest.raises(CondmixError, match="val2017.zip holds no val2017/000000000007.jpg"):
        list(Coco(coco, {}).images("test"))


@pytest.mark.parametrize("name", [ANNOTATIONS, "train2017.zip"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, -10])
def test_a_truncated_zip(name, kept, coco):
    (coco / name).write_bytes(cut(kept)((coco / name).read_bytes()))
    with pytest.raises(CondmixError, match=f"{name} is cut short or damaged"):
        list(Coco(coco, {}).images("train"))


def edited(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def with_entry(name, mode=0):
    def add(path):
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(entry, b"another")

    return add


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (edited(lambda whole: whole[:200] + bytes(10) + whole[210:]), "train2017.zip is cut short or damaged .*CRC"),
        (edited(lambda whole: whole + b"more"), "train2017.zip is cut short or damaged .other bytes follow its end"),
        (with_entry("train2017/000000000900.jpg"), "it holds 'train2017/000000000900.jpg' twice"),
        (with_entry("train2017/link.jpg", 0o120777), "holds the link 'train2017/link.jpg'"),
        (with_entry("../outside.jpg"), "escapes its folder"),
        (with_entry("/outside.jpg"), "escapes its folder"),
        (with_entry("train2017/../../outside.jpg"), "escapes its folder"),
        (with_entry("C:/outside.jpg"), "escapes its folder"),
    ],
)
def test_a_damaged_zip(damage, says, coco):
    damage(coco / "train2017.zip")
    with pytest.raises(CondmixError, match=says):
        list(Coco(coco, {}).images("train"))


def test_a_zip_with_a_comment_is_whole(coco):
    with zipfile.ZipFile(coco / "train2017.zip", "a") as archive:
        archive.comment = b"a comment"
    assert len(list(Coco(coco, {}).images("train"))) == 2


def test_an_entry_is_not_unpacked_beyond_its_limit(tmp_path):
    """Neither one that says how large it is, nor one that says it is small."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large", bytes(1 << 20))
    with _archives.open_zip(path) as archive:
        assert _archives.read_member(archive, "large", 1 << 20) == bytes(1 << 20)
        with pytest.raises(CondmixError, match="bomb.zip: large has 1,048,576 bytes, and more than 1,000 are not read"):
            _archives.read_member(archive, "large", 1000)
        archive.getinfo("large").file_size = 1000
        with pytest.raises(CondmixError, match="bomb.zip is cut short or damaged .*CRC"):
            _archives.read_member(archive, "large", 1000)


def test_a_tar_entry_is_not_unpacked_beyond_its_limit(cifar, monkeypatch):
    monkeypatch.setattr(_archives, "TAR_BYTES", 1000)
    with pytest.raises(CondmixError, match="cifar-10-python.tar.gz: .* bytes, and more than 1,000 are not read"):
        Cifar10(cifar, {}).labels("test")


NOTE = {"id": 1, "image_id": 900, "caption": "x"}


def captions_of(**changes):
    """A captions file of train2017 with one picture and one caption, changed so."""
    document = {"images": [{"id": 900, "file_name": "1.jpg"}], "annotations": [NOTE]} | changes
    return json.dumps(document)


@pytest.mark.parametrize(
    "text, says",
    [
        (captions_of(annotations=[NOTE, NOTE]), "annotations: the id 1 occurs twice: give each an id of its own"),
        (captions_of(annotations=[NOTE, NOTE | {"id": "x1"}]), "annotations: the id 'x1' is not a whole number"),
        (captions_of(annotations=[NOTE | {"id": None}]), "annotations: the id None is not a whole number"),
        (captions_of(annotations=[NOTE | {"caption": None}]), "annotations: 1 has the caption None, which is not"),
        (captions_of(annotations=[{"id": 1, "image_id": 900}]), "annotations: an entry has no caption: {'id': 1"),
        (captions_of(annotations=[NOTE | {"image_id": "900"}]), "annotations: 1 has the image_id '900'"),
        (captions_of(annotations=["x"]), "annotations: an entry has no id: x"),
        (captions_of(annotations={}), "no lists of images and annotations"),
        (captions_of(images=[{"id": 10**30, "file_name": "1.jpg"}]), "images: the id 10+ is not a whole number of 64"),
        (captions_of(images=[{"id": 1.5, "file_name": "1.jpg"}]), "images: the id 1.5 is not a whole number"),
        (captions_of(images=[{"id": 1, "file_name": 7}]), "images: 1 has the file_name 7, which is not a text"),
        (captions_of(images=[{"id": 1, "file_name": "1.jpg"}] * 2), "images: the id 1 occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        *((text, "") for text in ("", "{", "[]", "{}", '{"images": [], "annotations": []}', "7")),
    ],
)
def test_a_captions_file_that_is_wrong_says_where(text, says, coco):
    rewrite(coco / ANNOTATIONS, {"annotations/captions_train2017.json": text})
    with pytest.raises(CondmixError, match=f"annotations/captions_train2017.json.*{says}"):
        Coco(coco, {}).ids("train")


def test_a_caption_of_no_picture_is_named(coco):
    rewrite(
        coco / ANNOTATIONS, {"annotations/captions_train2017.json": captions_of(annotations=[NOTE | {"image_id": 4}])}
    )
    found = [("caption whose picture is not there", "captions_train2017.json: annotation 1 of picture 4")]
    assert list(Coco(coco, {}).passed_over()) == found


def instances(notes):
    categories = [{"id": 44, "name": "bottle"}, {"id": 3, "name": "car"}]
    return json.dumps({"info": {}, "images": [{"id": 1}], "annotations": notes, "categories": categories})


def test_the_label_is_the_category_of_the_largest_instance(coco):
    notes = [
        {"id": 1, "image_id": 900, "category_id": 3, "area": 10.5, "segmentation": [[1, 2, 3, 4]]},
        {"id": 2, "image_id": 900, "category_id": 44, "area": 99, "segmentation": {"counts": "x", "size": [1, 2]}},
        {"id": 3, "image_id": 900, "category_id": 3, "area": 20, "segmentation": []},
    ]
    files = {"annotations/instances_train2017.json": instances(notes)}
    rewrite(coco / ANNOTATIONS, files | {"annotations/instances_val2017.json": instances([])})
    data = Coco(coco, {})
    assert data.class_names == ["car", "bottle"]
    np.testing.assert_array_equal(data.labels("train"), [-1, 1])  # ids 25, 900
    np.testing.assert_array_equal(data.labels("test"), [-1])


CATEGORY = {"id": 3, "name": "car"}
INSTANCE = {"id": 1, "image_id": 7, "category_id": 3, "area": 1.0}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"categories": None}, "is not a COCO instances file .there is no array 'categories'"),
        ({"categories": [CATEGORY, {"id": 4}]}, "categories: an entry has no name: {'id': 4}"),
        ({"categories": [CATEGORY, {"name": "cat"}]}, "categories: an entry has no id"),
        ({"categories": [CATEGORY, {"id": "4", "name": "cat"}]}, "categories: the id '4' is not a whole number"),
        ({"categories": [CATEGORY, {"id": [4], "name": "cat"}]}, "categories: the id .4. is not a whole number"),
        ({"categories": [CATEGORY, CATEGORY]}, "categories: the id 3 occurs twice"),
        ({"categories": [CATEGORY, CATEGORY | {"id": 4}]}, "categories: several are named 'car'"),
        ({"annotations": [INSTANCE | {"category_id": 5}]}, "picture 7 has the category_id 5, which is none of"),
        ({"annotations": [INSTANCE | {"category_id": [3]}]}, "picture 7 has the category_id .3., which is none of"),
        ({"annotations": [INSTANCE | {"area": "1"}]}, "the area of an annotation of picture 7 is '1', no number"),
        ({"annotations": [INSTANCE | {"area": float("nan")}]}, "the area of an annotation of picture 7 is nan"),
        ({"annotations": [{"image_id": 7, "category_id": 3}]}, "an entry has no area"),
        ({"annotations": [[["x"] * 9]]}, "an entry has no image_id"),
    ],
)
def test_an_instances_file_that_is_wrong_says_where(changes, says, coco):
    document = {"annotations": [INSTANCE], "categories": [CATEGORY]} | changes
    text = json.dumps({key: value for key, value in document.items() if value is not None})
    rewrite(coco / ANNOTATIONS, {f"annotations/instances_{split}2017.json": text for split in ("train", "val")})
    with pytest.raises(CondmixError, match=f"annotations/instances_val2017.json.*{says}"):
        Coco(coco, {}).labels("test")


@pytest.mark.parametrize("text", ["", '{"categories": [', '{"images": []}', '{"info": ' + "[" * 100_000])
def test_instances_that_do_not_parse(text, coco):
    rewrite(coco / ANNOTATIONS, {f"annotations/instances_{split}2017.json": text for split in ("train", "val")})
    with pytest.raises(CondmixError, match=ANNOTATIONS):
        Coco(coco, {}).labels("test")


def test_half_the_instances_are_an_error(coco):
    rewrite(coco / ANNOTATIONS, {"annotations/instances_val2017.json": instances([])})
    with pytest.raises(CondmixError, match="holds no annotations/instances_train2017.json"):
        Coco(coco, {}).labels("train")


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_streamed_json_equals_parsed_json(chunk, indent, monkeypatch):
    monkeypatch.setattr(_json, "CHUNK", chunk)
    document = {
        "info": {"annotations": [1, 2], "text": 'a "quoted" ] } , [ Ω 🙂 \\'},
        "count": 12345.5e3,
        "empty": [],
        "annotations": [1, -2.5e-7, 123456789, True, None, "Ω", [1, [2]], {"a": [{"b": "}"}]}],
        "last": "x",
    }
    text = json.dumps(document, indent=indent, ensure_ascii=False).encode()
    for key in ("annotations", "empty"):
        assert list(_json.array_items(io.BytesIO(text), key)) == document[key]
    with pytest.raises(LookupError, match="no array 'absent'"):
        list(_json.array_items(io.BytesIO(text), "absent"))
    with pytest.raises(ValueError):
        list(_json.array_items(io.BytesIO(text[: text.index(b"true")]), "annotations"))


# Real files


@pytest.mark.slow
def test_real_cifar10(tmp_path):
    build("cifar10/build_archive.py", tmp_path / ARCHIVE, "--per-class", 50)
    data = Cifar10(tmp_path, {})
    assert data.class_names[:3] == ["airplane", "automobile", "bird"]
    assert np.bincount(data.labels("train")).tolist() == [50] * 10
    assert np.bincount(data.labels("test")).tolist() == [10] * 10
    images = np.array(list(data.images("train")))
    assert images.shape == (500, 32, 32, 3)
    # planes are photographed before the sky, deer in the wood
    blue_over_green = images[..., 2].mean((1, 2)) - images[..., 1].mean((1, 2))
    labels = data.labels("train")
    assert blue_over_green[labels == 0].mean() > blue_over_green[labels == 4].mean() + 10
    ours = tmp_path / "ours"
    ours.mkdir()
    pixels = {split: np.array(list(data.images(split))) for split in SPLITS}
    write_cifar(ours, pixels, {split: data.labels(split).tolist() for split in SPLITS}, data.class_names)
    np.testing.assert_array_equal(list(Cifar10(ours, {}).images("test")), pixels["test"])


@pytest.mark.slow
def test_real_coco(tmp_path):
    build("coco/build_archives.py", tmp_path)
    data = Coco(tmp_path, {})
    assert (len(data.ids("train")), len(data.ids("test"))) == (246, 61)
    for split in SPLITS:
        assert all(len(texts) >= 5 for texts in data.captions(split))
        assert all(image.shape[2] == 3 and min(image.shape[:2]) > 60 for image in data.images(split))
