"""The demo world: reproducible scenes, captions that name exactly what they say they name, a clean split."""

import hashlib
import json
import re
from itertools import combinations

import numpy as np
import pytest

from condmix import CondmixError
from condmix.datasets._coco_format import write_annotations
from condmix.datasets._scenes import (
    ATTRIBUTES,
    BACKGROUND_COLOURS,
    COMBINATIONS,
    DIAMETER,
    FINE,
    OBJECT_COLOURS,
    SIDE,
    STARTS,
    Dice,
    divide,
    picture,
    silhouette,
    values_of,
)
from condmix.datasets._wording import CAPTIONS, SHAPE, WORDS, claims, describe
from condmix.datasets.cifar10 import Cifar10
from condmix.datasets.coco import Coco
from condmix.datasets.demo import TRUTH, Demo

WORLD = {"train": 40, "test": 12, "seed": 7}


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    Demo.draw(folder, WORLD)
    return folder


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_drawing_again_gives_the_same_bytes(archives, tmp_path):
    Demo.draw(tmp_path, WORLD)
    assert digests(tmp_path) == digests(archives)


def test_another_seed_gives_another_world(archives, tmp_path):
    Demo.draw(tmp_path, WORLD | {"seed": 8})
    assert not digests(tmp_path).items() & digests(archives).items()


def test_the_world_is_the_same_on_every_machine():
    """Results on the demo world are comparable only while these hold: a change here is a new world."""
    pixels, words = hashlib.sha256(), hashlib.sha256()
    for number in range(100):
        dice = Dice(7, 0, number)
        values = values_of(dice.below(COMBINATIONS))
        pixels.update(picture(values, dice))
        words.update("\n".join(describe(values, dice)[0]).encode())
    assert pixels.hexdigest()[:16] == "9c26b123c2cbffe4"
    assert words.hexdigest()[:16] == "ed84806f53ff049f"


def test_a_scene_does_not_depend_on_how_many_are_drawn(archives, tmp_path):
    Demo.draw(tmp_path, WORLD | {"train": 10})
    few, many = Demo(tmp_path, {}), Demo(archives, {})
    np.testing.assert_array_equal(list(few.images("train")), list(many.images("train"))[:10])
    assert few.captions("train") == many.captions("train")[:10]
    assert few.captions("test") == many.captions("test")


def test_no_combination_of_test_occurs_in_train():
    shares = divide(seed=7)
    assert sorted(shares["train"] + shares["test"]) == list(range(COMBINATIONS))
    assert len(shares["test"]) == COMBINATIONS // 10
    held_out = np.array([values_of(combination) for combination in shares["test"]])
    for column, options in enumerate(ATTRIBUTES.values()):  # every value occurs among the held-out ones
        assert set(held_out[:, column]) == set(range(len(options)))


def test_readers_of_the_real_formats_read_the_demo(archives):
    demo, cifar, coco = (reader(archives, {}) for reader in (Demo, Cifar10, Coco))
    for split in ("train", "test"):
        images = list(demo.images(split))
        np.testing.assert_array_equal(images, list(cifar.images(split)))
        np.testing.assert_array_equal(demo.labels(split), cifar.labels(split))
        assert demo.captions(split) == coco.captions(split)
        assert demo.ids(split) == coco.ids(split)
        lossy = np.array(list(coco.images(split)), float)
        assert abs(lossy - images).mean() < 4
        assert len(images) == WORLD[split]
    assert cifar.class_names == demo.class_names == ATTRIBUTES["shape"]


def test_the_class_is_the_shape(archives):
    demo = Demo(archives, {})
    np.testing.assert_array_equal(demo.labels("train"), demo.attribute_values("train")[:, SHAPE])


def named_in(caption):
    """{attribute: value} of every word of the vocabulary in the caption."""
    owner = {value: name for name, options in ATTRIBUTES.items() for value in options}
    return {
        (owner[value], value)
        for value, words in WORDS.items()
        for word in words
        if re.search(rf"\b{re.escape(word)}\b", caption)
    }


def test_captions_name_exactly_what_mentions_says(archives):
    demo = Demo(archives, {})
    columns = list(ATTRIBUTES.items())
    values, mentions = demo.attribute_values("train"), demo.mentions("train")
    assert mentions.shape == (WORLD["train"], CAPTIONS, len(columns))
    for row, captions in enumerate(demo.captions("train")):
        for caption, flags in zip(captions, mentions[row], strict=True):
            truth = {(name, options[values[row, i]]) for i, (name, options) in enumerate(columns) if flags[i]}
            assert named_in(caption) == truth, caption
            assert demo.claims(caption) == np.where(flags, values[row], -1).tolist(), caption


@pytest.mark.parametrize(
    ("caption", "claimed"),
    [
        ("top left of a rosy ground, a hoop", {"shape": "ring", "position": "upper left", "background": "pink"}),
        ("A Red thing in the middle", {"colour": "red", "position": "centre"}),
        ("a green red box", {"colour": "green", "shape": "square"}),  # the first of two
        ("a boxer reddens the left", {}),
        ("", {}),
    ],
)
def test_what_any_caption_claims_is_read_from_its_words(caption, claimed):
    found = zip(ATTRIBUTES.items(), claims(caption), strict=True)
    assert {name: options[value] for (name, options), value in found if value >= 0} == claimed


def test_every_word_belongs_to_one_value():
    words = [word for synonyms in WORDS.values() for word in synonyms]
    assert len(words) == len(set(words))
    assert WORDS.keys() == {value for options in ATTRIBUTES.values() for value in options}


def test_captions_are_partial_and_cover_the_scene_together():
    for number in range(300):
        captions, mentions = describe(values_of(number * 7 % COMBINATIONS), Dice(3, 0, number))
        flags = np.array(mentions)
        assert len(set(captions)) == CAPTIONS == len(set(map(tuple, mentions)))
        assert set(flags.sum(1)) == {3}
        assert flags[0, SHAPE] and flags.any(0).all()


def test_articles():
    scenes = [values_of(number * 7 % COMBINATIONS) for number in range(300)]
    captions = [text for number, scene in enumerate(scenes) for text in describe(scene, Dice(1, 0, number))[0]]
    text = "\n".join(captions)
    assert re.search(r"\ban hourglass\b", text) and re.search(r"\ban azure\b", text)
    assert not re.search(r"\ba [aeio]|\ban [^aeioh]|\ba hour|\ban huge", text)


def test_objects_stay_inside_and_places_stay_apart():
    for size, ends in STARTS.items():
        starts = [start for group in ends.values() for start in group]
        assert min(starts) >= 0 and max(starts) + DIAMETER[size] <= SIDE
        for one, other in combinations(ends.values(), 2):
            assert min(abs(a - b) for a in one for b in other) >= 4


def test_values_stay_distinct_at_half_size():
    for diameter in DIAMETER.values():
        half = {
            shape: silhouette(shape, diameter).reshape(diameter // 2, 2, diameter // 2, 2).mean((1, 3)) / FINE**2
            for shape in ATTRIBUTES["shape"]
        }
        for one, other in combinations(half, 2):  # about five whole pixels
            assert ((half[one] - half[other]) ** 2).sum() > 5, (diameter, one, other)
    pairs = [(a, b) for a in OBJECT_COLOURS.values() for b in BACKGROUND_COLOURS.values()]
    for palette in (OBJECT_COLOURS.values(), BACKGROUND_COLOURS.values()):
        pairs += combinations(palette, 2)
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in pairs) > 70


@pytest.mark.parametrize("number", range(0, COMBINATIONS, 197))
def test_the_picture_shows_its_attributes(number):
    values = values_of(number)
    names = [options[value] for options, value in zip(ATTRIBUTES.values(), values, strict=True)]
    shape, colour, size, position, background = names
    scene = picture(values, Dice(0, 0, number)).astype(int)
    found = np.linalg.norm(scene - OBJECT_COLOURS[colour], axis=-1) < 7.5
    coverage = silhouette(shape, DIAMETER[size]) / FINE**2
    assert (coverage == 1).sum() <= found.sum() <= (coverage > 0.9).sum()

    rows, columns = np.nonzero(found)
    offsets = [(place.min() + place.max() + 1 - SIDE) / 2 for place in (rows, columns)]
    if position == "centre":
        assert max(map(abs, offsets)) <= 3
    else:
        assert [offset < 0 for offset in offsets] == [word in ("upper", "left") for word in position.split()]
    opposite = scene[tuple(-1 if offset < 0 else 0 for offset in offsets)]
    assert np.linalg.norm(opposite - BACKGROUND_COLOURS[background]) < 40


@pytest.mark.parametrize(
    "change", [{"train": 0}, {"train": 10**12}, {"seed": -1}, {"seed": 1.5}, {"scenes": 3}, {"test": True}]
)
def test_wrong_settings(change, tmp_path):
    with pytest.raises(CondmixError, match="the demo world needs"):
        Demo.draw(tmp_path, WORLD | change)
    with pytest.raises(CondmixError, match="the demo world needs"):
        Demo.draw(tmp_path, {"train": 3})


@pytest.fixture
def fresh(tmp_path):
    Demo.draw(tmp_path, {"train": 6, "test": 3, "seed": 1})
    return tmp_path


def test_two_worlds_mixed_are_noticed(fresh, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    Demo.draw(other, {"train": 6, "test": 3, "seed": 2})
    (fresh / "train2017.zip").write_bytes((other / "train2017.zip").read_bytes())
    with pytest.raises(CondmixError, match="picture 0 of train differs"):
        next(Demo(fresh, {}).images("train"))
    Demo.draw(other, {"train": 7, "test": 3, "seed": 1})
    (fresh / "annotations_trainval2017.zip").write_bytes((other / "annotations_trainval2017.zip").read_bytes())
    with pytest.raises(CondmixError, match="has 6 pictures of train, the COCO annotations 7"):
        next(Demo(fresh, {}).images("train"))
    with pytest.raises(CondmixError, match="list different pictures"):
        Demo(fresh, {}).mentions("train")


def test_truth_missing_damaged_or_of_another_version(fresh):
    path = fresh / TRUTH
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(CondmixError, match="attributes.json is damaged"):
        Demo(fresh, {}).attribute_values("train")
    path.write_text(json.dumps(json.loads(text) | {"attributes": {"shape": ["blob"]}}))
    with pytest.raises(CondmixError, match="other attributes"):
        Demo(fresh, {}).attribute_values("train")
    path.unlink()
    with pytest.raises(CondmixError, match="attributes.json is missing"):
        Demo(fresh, {}).attribute_values("train")


def changed(**changes):
    """What makes another attributes.json of a world's: its first training scene changed so."""

    def change(truth):
        for key, value in changes.items():
            truth["scenes"]["train"][key][0] = value
        return truth

    return change


def without(*path):
    def change(truth):
        inner = truth
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return truth

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("scenes"),
        without("attributes"),
        without("scenes", "train"),
        without("scenes", "test", "values"),
        without("scenes", "train", "ids", 0),
        lambda truth: truth | {"scenes": []},
        lambda truth: [],
        lambda truth: 7,
        changed(values=[0] * 3),
        changed(values=[99] * len(ATTRIBUTES)),
        changed(values=["0"] * len(ATTRIBUTES)),
        changed(values=None),
        changed(mentions=[1, 2]),
        changed(mentions=["01"]),
        changed(mentions=["x" * len(ATTRIBUTES)] * 5),
    ],
)
def test_a_truth_of_another_shape_is_damage(change, fresh):
    path = fresh / TRUTH
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CondmixError, match="attributes.json is damaged .*: run the stage fetch again"):
        Demo(fresh, {}).attribute_values("train")


def test_a_truth_nested_too_deeply(fresh):
    (fresh / TRUTH).write_text("[" * 100_000)
    with pytest.raises(CondmixError, match="attributes.json is damaged .*nested too deeply"):
        Demo(fresh, {}).attribute_values("train")


@pytest.mark.parametrize("caption", ["", " \n"])
def test_an_empty_caption_is_not_what_the_truth_tells_of(caption, fresh):
    demo = Demo(fresh, {})
    texts = {split: dict(zip(demo.ids(split), demo.captions(split), strict=True)) for split in ("train", "test")}
    texts["train"][demo.ids("train")[2]][0] = caption
    write_annotations(fresh, texts, SIDE, "a test")
    with pytest.raises(CondmixError, match="picture 2 of train has other captions than attributes.json tells of"):
        Demo(fresh, {}).captions("train")
