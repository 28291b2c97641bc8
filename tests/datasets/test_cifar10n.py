"""CIFAR-10N: three people's words for each picture, in both files' own formats."""

import re

import numpy as np
import pytest

from condmix import CondmixError
from condmix.datasets.cifar10 import Cifar10
from condmix.datasets.cifar10n import LABELS, OFFICIAL, PEOPLE, Cifar10n
from people import CLASSES, labels_of, write_labels, write_people
from real_data import build, shared

WORLD = {"held_out_percent": 10}


@pytest.fixture
def folder(tmp_path):
    write_people(tmp_path, 40)
    return tmp_path


def test_every_training_picture_is_in_one_split_with_its_own_words(folder):
    data, archive = Cifar10n(folder, WORLD), Cifar10(folder, {})
    labels, images = labels_of(40), list(archive.images("train"))
    assert len(data.ids("test")) == 4
    assert sorted(data.ids("train") + data.ids("test")) == list(range(40))
    for split in ("train", "test"):
        places = data.ids(split)
        np.testing.assert_array_equal(data.labels(split), labels[OFFICIAL][places])
        np.testing.assert_array_equal(list(data.images(split)), [images[place] for place in places])
        words = [[CLASSES[labels[person][place]] for person in PEOPLE] for place in places]
        assert data.captions(split) == words


def test_the_held_out_pictures_stay_the_same_and_are_scattered(folder):
    first = Cifar10n(folder, WORLD).ids("test")
    assert first == Cifar10n(folder, WORLD).ids("test") != list(range(4))
    assert set(first) < set(Cifar10n(folder, {"held_out_percent": 30}).ids("test"))


@pytest.mark.parametrize(
    "change, says",
    [
        ({OFFICIAL: np.zeros(40, np.int64)}, "is not of the pictures in"),
        ({name: np.zeros(39, np.int64) for name in (OFFICIAL, *PEOPLE)}, "has 39 labels"),
        ({PEOPLE[1]: np.zeros(39, np.int64)}, "people did not label the same number of pictures"),
        ({PEOPLE[1]: np.full(40, 3)}, "a person's label is not one of the 3 classes"),
        ({PEOPLE[1]: np.full(40, -1)}, "a person's label is not one of the 3 classes"),
        ({PEOPLE[2]: np.zeros(40)}, "holds no row of integers under random_label3"),
        ({PEOPLE[0]: None}, "holds no row of integers under random_label1"),
        ({PEOPLE[0]: np.zeros((40, 1), np.int64)}, "holds no row of integers under random_label1"),
    ],
)
def test_labels_that_can_not_be_theirs(change, says, folder):
    write_labels(folder, labels_of(40) | change)
    with pytest.raises(CondmixError, match=says):
        Cifar10n(folder, WORLD).captions("train")


@pytest.mark.parametrize(
    "content, says",
    [([1, 2], "holds a list, not a dictionary"), ({"clean_label": re.compile("a")}, "it calls re._compile")],
)
def test_a_pickle_of_something_else_is_refused(content, says, folder):
    write_labels(folder, content)
    with pytest.raises(CondmixError, match=says):
        Cifar10n(folder, WORLD).ids("train")


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_a_file_that_is_cut_short(kept, folder):
    content = (folder / LABELS).read_bytes()
    (folder / LABELS).write_bytes(content[:kept])
    with pytest.raises(CondmixError, match=f"{LABELS} is cut short or damaged"):
        Cifar10n(folder, WORLD).ids("train")


@pytest.mark.parametrize("world", [{}, {"held_out_percent": None}, {"held_out_percent": 100}, {"people": 3}])
def test_settings_that_leave_nothing_to_hold_out(world):
    with pytest.raises(CondmixError, match="held_out_percent, from 1 to 99"):
        Cifar10n.check_settings(world)


def test_a_share_that_leaves_a_split_empty(tmp_path):
    write_people(tmp_path, 10)
    with pytest.raises(CondmixError, match="held_out_percent 1 of 10 pictures leaves a split without any"):
        Cifar10n(tmp_path, {"held_out_percent": 1}).ids("test")


@pytest.mark.slow
def test_the_real_people_are_wrong_as_often_in_both_splits(tmp_path):
    build("cifar10/build_archive.py", tmp_path / "cifar-10-python.tar.gz")
    (tmp_path / LABELS).symlink_to(shared(f"cifar10_human/{LABELS}"))
    data = Cifar10n(tmp_path, WORLD)
    assert [len(data.ids(split)) for split in ("train", "test")] == [45_000, 5_000]
    for split in ("train", "test"):
        official = [data.class_names[label] for label in data.labels(split)]
        wrong = [np.mean(np.array(person) != official) for person in zip(*data.captions(split), strict=True)]
        np.testing.assert_allclose(wrong, [0.172, 0.181, 0.176], atol=0.01)
