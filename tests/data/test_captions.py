"""Captions: human ones are tidied, classes are put into templates, and what can't be said is said so."""

import json

import numpy as np
import pytest

from condmix import CondmixError
from condmix.data.captions import collect, one_text, read_captions, tidy
from condmix.datasets import Dataset
from condmix.datasets.demo import Demo
from condmix.settings.load import Paths
from condmix.stages import captions
from own_data import params
from profiles import section


class Classes(Dataset):
    class_names = ["cat", "fire engine"]

    def __init__(self):
        pass

    def labels(self, split):
        return np.array([1, 0, -1])


def test_tidy():
    assert tidy(["  a\n cat ", "a cat", "", " \t", "A cat"]) == ["a cat", "A cat"]


@pytest.mark.parametrize("counts, expected", [(False, ["a cat", "a dog"]), (True, ["a cat", "a dog", "a cat"])])
def test_equal_answers_of_several_people_are_several(counts, expected, tmp_path):
    data = Dataset(tmp_path, {})
    data.every_answer_counts = counts
    data.captions = lambda split: [["a cat", "a  dog", " ", "a cat"]]
    assert collect(data, "train", [], "mine") == ([expected], "human")


def test_captions_as_one_text_are_sentences():
    assert one_text(["a cat", "It sleeps.", "Look!", "is it red"]) == "a cat. It sleeps. Look! is it red."
    assert one_text(["a cat"]) == "a cat."


def test_class_templates():
    rows, source = collect(Classes(), "train", ["a photo of a {}", "{}, blurred", "a photo of a {}"], "x")
    engine = ["a photo of a fire engine", "fire engine, blurred"]
    assert rows == [engine, ["a photo of a cat", "cat, blurred"], []]  # nothing is said of an unknown class
    assert source == "template"


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a photo of a {0}"])
def test_a_template_needs_one_place(template):
    with pytest.raises(CondmixError, match="needs exactly one {} for the class name"):
        collect(Classes(), "train", [template], "x")


def test_classes_without_templates():
    with pytest.raises(CondmixError, match='"cifar10" has classes but no captions: list captions.templates'):
        collect(Classes(), "train", [], "cifar10")


def test_nothing_is_said_where_neither_captions_nor_classes_are_known(tmp_path):
    data = Dataset(tmp_path, {})
    data.ids = lambda split: [4, 5]
    assert collect(data, "train", ["a {}"], "mine")[0] == [[], []]


def test_the_stage_on_the_demo_world(tmp_path):
    """Caption k of the file is the caption k that `mentions` speaks of."""
    paths = Paths(tmp_path, "own")
    Demo.draw(paths.archives, {"train": 30, "test": 4, "seed": 1})
    captions.main(params(tmp_path, section("data")))
    for split in ("train", "test"):
        content = json.loads((paths.captions / f"{split}.json").read_text())
        assert content["captions"] == Demo(paths.archives, {}).captions(split) == read_captions(paths.captions, split)
        assert content["sources"] == [["human"] * 5] * len(content["captions"])
