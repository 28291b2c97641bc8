"""Photographs of products: a table with its faults, captions that name what they say, what is held out."""

import zipfile
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import yaml

from condmix import CondmixError
from condmix.datasets._product_wording import NAMES, NOUNS, PHRASES, TYPE, Claims, caption, choose_pairs
from condmix.datasets._products import GROUPS, read_products
from condmix.datasets._scenes import Dice
from condmix.datasets.fashion import Fashion
from own_data import encoded, random_picture, write
from profiles import ROOT
from real_data import shared

HEADER = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
TYPES = ["Tshirts", "Shirts", "Heels", "Casual Shoes", "Ties", "Watches"]
COLOURS = ["Black", "Navy Blue", "Off White", "Red", "Pink", "Steel"]
WORLD = {"fewest": 5, "held_out_percent": 10, "held_out_pairs": 2}


def line(number, kind="Shirts", colour="Red", gender="Men", usage="Casual", name="Acme Men Red Shirt"):
    return f"{number},{gender},Apparel,Topwear,{kind},{colour},Fall,2011,{usage},{name}"


def plain(count=320):
    """Every pair of type and colour equally often."""
    pairs = list(product(TYPES, COLOURS))
    return [line(n, *pairs[n % len(pairs)], name=f"Acme No {n}") for n in range(count)]


def table(*lines):
    return "\n".join([HEADER, *lines]) + "\n"


def folder_of(folder: Path, lines, pictures=None) -> Path:
    """The public layout; every picture is another one unless `pictures` says which."""
    numbers = [int(one.split(",")[0]) for one in lines]
    files = {f"images/{n}.jpg": random_picture(n, side=4) for n in numbers}
    return write(folder, {"styles.csv": table(*lines), **files, **(pictures or {})})


def packed(root: Path, lines, pictures=None, **world) -> Fashion:
    archives = root / "archives"
    archives.mkdir()
    Fashion.pack(folder_of(root / "own", lines, pictures), archives)
    return Fashion(archives, WORLD | world)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("plain"), plain())


def pairs_of(data, split):
    return set(map(tuple, data.attribute_values(split)[:, :2].tolist()))


# The table


def test_what_nobody_quoted_and_what_is_missing():
    lines = [
        line(1, name="Acme, Men, Red Shirt"),
        line(2, name='"Acme, quoted"'),
        line(3, colour="NA", usage="", name="Acme"),
        line(4, colour="Multi", gender="Boys", usage="Smart Casual", name="NA"),
    ]
    products = read_products(table(*lines).encode("utf-8-sig"), "styles.csv")
    assert [one.name for one in products.values()] == ["Acme, Men, Red Shirt", "Acme, quoted", "Acme", ""]
    assert products[1].values == ("shirts", "red", "men", "casual")
    assert products[3].values == ("shirts", None, "men", None)
    assert products[4].values == ("shirts", None, "children", "casual")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (table(line(1), line(2), line(1)), "line 4: the id 1 occurs twice"),
        (table(line(1), "2,Men,Apparel"), "line 3 is damaged: it has 3 fields of 10"),
        (table(line("x1")), "line 2 is damaged: it has 10 fields of 10, the first one 'x1'"),
        (table(line(1, name='"Acme'), line(2)), "line 4 is damaged|line 3 is damaged"),
        (table(line(1)).replace("baseColour", "colour"), "has no column baseColour"),
        ("", "has no column id"),
        (b"id,\xff\xfe", "is not UTF-8"),
        (table(line(1, name="x" * 200_000)), "is no table behind line"),
    ],
)
def test_a_damaged_table_is_one_sentence(content, says):
    with pytest.raises(CondmixError, match=says):
        read_products(content if isinstance(content, bytes) else content.encode(), "styles.csv")


def test_every_base_colour_is_in_one_group():
    written = [word for groups in GROUPS.values() for words in groups.values() for word in words]
    assert len(written) == len(set(written))


# The archive


def test_packing_again_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        packed(tmp_path / name, plain(20))
    assert len({(tmp_path / name / "archives" / "products.zip").read_bytes() for name in ("a", "b")}) == 1


def test_what_has_no_counterpart_is_said(tmp_path):
    folder = folder_of(tmp_path, plain(4), {"images/99.jpg": random_picture(0), "images/99.txt": "note", "a.csv": ""})
    (folder / "images" / "2.jpg").unlink()
    assert sorted(Fashion.remarks(folder)) == [
        ("file that is neither styles.csv nor a picture of a product", "a.csv"),
        ("file that is neither styles.csv nor a picture of a product", "images/99.txt"),
        ("picture without a product", "images/99.jpg"),
        ("product without a picture", "id 2"),
    ]


def test_of_an_archive_that_holds_all_twice_the_upper_copy_is_read(tmp_path, data):
    with zipfile.ZipFile(data.path) as archive, zipfile.ZipFile(tmp_path / "products.zip", "w") as doubled:
        for name in archive.namelist():
            doubled.writestr(f"copy/{name}", archive.read(name))
            doubled.writestr(name, archive.read(name))
    again = Fashion(tmp_path, WORLD)
    assert again.captions("train") == data.captions("train")
    assert sum("neither" in what for what, _ in again.passed_over()) == 321


@pytest.mark.parametrize("missing", ["styles.csv", "images"])
def test_a_folder_without_table_or_pictures(tmp_path, missing):
    files = {"styles.csv": table(line(1)), "images/1.jpg": random_picture(1)}
    folder = write(tmp_path, {name: content for name, content in files.items() if not name.startswith(missing)})
    (tmp_path / "archives").mkdir()
    with pytest.raises(CondmixError, match=f"holds no {'styles.csv' if missing == 'styles.csv' else 'pictures'}"):
        Fashion.pack(folder, tmp_path / "archives")


def test_pictures_are_squashed_not_cropped(tmp_path):
    tall = np.zeros((8, 6, 3), np.uint8)
    tall[:, :3] = 255  # the left half
    data = packed(tmp_path, plain(), {"images/7.jpg": encoded(tall)})
    split = "train" if 7 in data.ids("train") else "test"
    picture = list(data.images(split))[data.ids(split).index(7)]
    assert picture.shape == (8, 8, 3)
    assert picture[:, 0].min() > 200 and picture[:, -1].max() < 50


# What is held out


def test_held_out_pairs_are_in_test_only_and_every_value_stays_in_train(data):
    assert len(data.held_out_pairs) == 2
    names = {split: {tuple(known[v] for known, v in zip(data.attributes.values(), row, strict=False))
                     for row in pairs_of(data, split)} for split in ("train", "test")}  # fmt: skip
    assert data.held_out_pairs <= names["test"] - names["train"]
    for column in range(2):
        assert {pair[column] for pair in names["train"]} == set(list(data.attributes.values())[column])
    for split in ("train", "test"):
        shown = data.attribute_values(split)[:, :2]
        words = [tuple(known[v] for known, v in zip(data.attributes.values(), row, strict=False)) for row in shown]
        assert data.held_out(split).tolist() == [pair in data.held_out_pairs for pair in words]
    assert 0 < data.held_out("test").sum() < len(data.ids("test")) and not data.held_out("train").any()


def test_splits_share_nothing_and_do_not_change(tmp_path, data):
    train, test = set(data.ids("train")), set(data.ids("test"))
    assert not train & test and train | test == set(range(320))
    assert packed(tmp_path, plain()[::-1]).ids("test") == data.ids("test")


def test_copies_of_a_picture_are_in_one_split(tmp_path):
    copies = {f"images/{n}.jpg": random_picture(n // 2, side=4) for n in range(320)}
    data = packed(tmp_path, plain(), copies)
    groups = {split: {number // 2 for number in data.ids(split)} for split in ("train", "test")}
    assert groups["test"] and not groups["train"] & groups["test"]


def test_test_pictures_have_every_attribute_and_rare_values_are_unknown(tmp_path):
    lines = plain() + [line(1000 + n, "Hat") for n in range(3)] + [line(2000 + n, gender="NA") for n in range(40)]
    lines += [line(3000, usage="NA", colour="NA"), line(3001, name="NA")]
    data = packed(tmp_path, lines)
    assert "hat" not in data.attributes["type"] and data.class_names == data.attributes["type"]
    assert (data.attribute_values("test") >= 0).all()
    train = dict(zip(data.ids("train"), data.attribute_values("train").tolist(), strict=True))
    assert train[1000][TYPE] == -1 and data.labels("train")[data.ids("train").index(1000)] == -1
    assert train[2000][NAMES.index("gender")] == -1
    left_out = {where for _, where in data.passed_over()}
    assert {"images/3000.jpg", "images/3001.jpg"} <= left_out and not {3000, 3001} & train.keys()


def test_too_few_products_are_one_sentence(tmp_path):
    with pytest.raises(CondmixError, match=r"no type has 50 products .*data\.world\.fewest"):
        packed(tmp_path, plain(16), fewest=50).ids("train")


@pytest.mark.parametrize("world", [{}, WORLD | {"fewest": 0}, WORLD | {"held_out_percent": 100}, WORLD | {"more": 1}])
def test_settings_that_it_does_not_take(world):
    with pytest.raises(CondmixError, match=r"data\.world takes fewest"):
        Fashion.check_settings(world)


# Captions


def test_captions_name_exactly_two_attributes_and_the_last_is_the_name(data):
    for split in ("train", "test"):
        values, mentions = data.attribute_values(split), data.mentions(split)
        assert mentions[:, 0, TYPE].all() and mentions[:, :3].any(axis=1).all()
        for row, captions in enumerate(data.captions(split)):
            assert len(captions) == len(set(captions)) == 5
            assert captions[-1] == f"Acme No {data.ids(split)[row]}" and not mentions[row, -1].any()
            for text, named in zip(captions[:-1], mentions[row], strict=False):
                assert named.sum() == 2
                assert data.claims(text) == np.where(named, values[row], -1).tolist(), text


def test_every_pair_of_values_is_worded_as_it_is_read():
    attributes = {"type": [*NOUNS, "rain jacket"], "colour": list(GROUPS["colour"]), "gender": list(GROUPS["gender"])}
    attributes["usage"] = ["casual", "formal", "sports", "ethnic", "party"]
    claims = Claims(attributes)
    assert set(PHRASES) <= {value for values in attributes.values() for value in values}
    for number, pair in enumerate(combinations(attributes, 2)):
        for values in product(*(attributes[name] for name in pair)):
            named = dict(zip(pair, values, strict=True))
            text = caption(named, Dice(0, 1, number))
            wanted = [known.index(named[name]) if name in named else -1 for name, known in attributes.items()]
            assert claims(text) == wanted, text


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        ("Red Tape Men Brown Leather Casual Shoes", ("casual shoes", "brown", "men", None)),
        ("Puma Women's Sport Navy T Shirt", ("tshirts", "blue", "women", "sports")),
        ("Basics Men White Slim Fit Shirt", ("shirts", "white", "men", None)),
        ("Acme Slippers for everyone", (None, None, None, None)),
    ],
)
def test_what_names_claim(text, claimed):
    attributes = {"type": ["casual shoes", "shirts", "tshirts"], "colour": ["blue", "brown", "red", "white"],
                  "gender": ["men", "women"], "usage": ["casual", "sports"]}  # fmt: skip
    found = Claims(attributes)(text)
    assert found == [-1 if v is None else of.index(v) for v, of in zip(claimed, attributes.values(), strict=True)]


@pytest.mark.parametrize("known", [(0, 1, 2, 3), (0, 1, 3), (1, 2, 3)])
def test_three_captions_name_all_that_is_known(known):
    for number in range(50):
        pairs = choose_pairs(known, Dice(0, 0, number))
        assert len(pairs) == 4 and all(len(pair) == 2 for pair in pairs)
        assert frozenset.union(*pairs[:3]) == set(known)
        assert len(set(pairs)) == min(4, len(known) * (len(known) - 1) // 2)
        assert (TYPE in pairs[0]) == (TYPE in known)


@pytest.mark.slow
def test_the_real_files(tmp_path):
    import tarfile

    with tarfile.open(shared("fashion/fashion-64.tar")) as archive:
        archive.extractall(tmp_path / "own", filter="data")
    root = next((tmp_path / "own").rglob("styles.csv")).parent
    (tmp_path / "archives").mkdir()
    Fashion.pack(root, tmp_path / "archives")
    world = yaml.safe_load((ROOT / "conf" / "fashion.yaml").read_text())["data"]["world"]
    data = Fashion(tmp_path / "archives", world)
    sizes = {split: len(data.ids(split)) for split in ("train", "test")}
    assert sum(sizes.values()) > 8500 and 900 < sizes["test"] < 1200
    assert len(data.held_out_pairs) == 30 and not pairs_of(data, "train") >= pairs_of(data, "test")
    assert data.mentions("test")[:, -1, :2].mean() > 0.9  # people's names say type and colour
    assert next(data.images("test")).shape == (64, 64, 3)
