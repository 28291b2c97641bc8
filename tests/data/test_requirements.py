"""What stops the pipeline before it trains, and what it goes on without: the same for the stage and for data check."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condmix import CondmixError
from condmix.data.requirements import FEWEST, Holds, doubtful, lacking
from condmix.datasets import SPLITS, Dataset
from condmix.evaluation import distances, judges
from condmix.evaluation.frechet import Statistics
from condmix.evaluation.observers import Seen
from condmix.evaluation.reference import Reference
from condmix.stages import captions, judge
from condmix.stages.encode import measure as measure_clip
from own_data import params, random_picture, write, write_tar
from profiles import section
from tiny_project import write_dataset

FULL = Holds(pictures=9, captioned=9, most_captions=2, labelled=9, attributes=False)
BARE = Holds(pictures=9, captioned=0, most_captions=0, labelled=0, attributes=False)
FEW_CAPTIONS = Holds(pictures=9, captioned=1, most_captions=1, labelled=0, attributes=False)


def asked(tmp_path, **others):
    return params(tmp_path, section("data", dataset="webdataset", image_size=8, world={}), **others)


@pytest.mark.parametrize(
    ("asking", "train", "test", "says"),
    [
        ({}, Holds(1, 1, 1, 1, False), FULL, "training needs at least 2 pictures, and the training split has 1: add"),
        (
            {},
            FULL,
            Holds(1, 1, 1, 1, False),
            "evaluation needs at least 2 test pictures, and the test split has 1",
        ),
        ({"perspectives": ("caption_3",)}, FULL, FULL, 'reads "caption_3", which the data does not have: leave it out'),
        ({"perspectives": ("caption_any", "caption_any_3")}, FULL, FULL, 'reads "caption_any_3", which the data does'),
        (
            {"perspectives": ("image", "class")},
            BARE,
            FULL,
            'reads "class", which no training picture has: leave it out',
        ),
        ({"perspectives": ("t5_1",)}, BARE, BARE, 'reads "t5_1", which the data does not have'),
        ({"perspectives": ("caption_1",)}, FULL, BARE, "reads caption_1, but no test picture has any of that"),
        ({"perspectives": ("class",)}, FULL, BARE, "reads class, but no test picture has any of that"),
        ({"variants": ("class_v1",)}, BARE, BARE, 'variant class_v1 reads "class", which the data does not have'),
        ({"perspectives": ("pseudo",)}, FULL, BARE, "reads pseudo, but no test picture has a caption"),
        ({"clip": SimpleNamespace(pretrained=None, weights=None)}, BARE, FULL, "no training picture has a caption to"),
        ({"clip": SimpleNamespace(pretrained=None, weights=None)}, FEW_CAPTIONS, FULL, "at least 2 captioned pictures"),
        (
            {"prior": SimpleNamespace(clusters=2)},
            BARE,
            FULL,
            "no training picture has a caption to train a prior on: set prior to null",
        ),
        (
            {"prior": SimpleNamespace(clusters=2), "perspectives": ("image",)},
            FULL,
            BARE,
            "a prior is measured on at least 2 captioned test pictures, and the test split has 0: add some, or set pr",
        ),
        ({"prior": SimpleNamespace(clusters=2)}, FULL, FEW_CAPTIONS, "and the test split has 1: add some"),
        ({"prior": SimpleNamespace(clusters=9_999)}, FULL, FULL, "prior.clusters is 9,999, but there are"),
        ({"evaluate": SimpleNamespace(features=("judge",))}, BARE, BARE, "evaluate.features has judge, which"),
    ],
)
def test_what_a_later_stage_cannot_use_stops_the_pipeline(asking, train, test, says, tmp_path):
    found = list(lacking(asked(tmp_path, **asking), train, test))
    assert len(found) == 1 and says in found[0]


@pytest.mark.parametrize(
    "asking",
    [
        {"perspectives": ("image", "pseudo", "class", "caption_1", "caption_2_again", "caption_any_2", "mixed_any")},
        {"perspectives": ("generated_7", "dino_1")},  # not the data set's to have
        {"variants": ("class_v1", "class_v2", "caption")},
        {"clip": SimpleNamespace(pretrained=None, weights=None), "prior": SimpleNamespace(clusters=2)},
        {"evaluate": SimpleNamespace(features=("judge", "clip"))},
    ],
)
def test_data_that_have_what_is_asked_pass(asking, tmp_path):
    assert not list(lacking(asked(tmp_path, **asking), FULL, FULL))
    assert not doubtful(asked(tmp_path, **asking), FULL, FULL)


def test_what_only_training_pictures_have_is_doubtful(tmp_path):
    settings = asked(tmp_path, perspectives=("image", "class"))
    assert not list(lacking(settings, FULL, BARE))
    assert list(doubtful(settings, FULL, BARE).values()) == [["class of variant experiment"]]


def test_the_limits_are_those_of_the_measures():
    features = torch.randn(FEWEST, 5)
    assert Statistics.of(features).covariance.isfinite().all()
    assert distances.kernel_distance(features, features) <= 0
    with pytest.raises(CondmixError, match="needs at least 2 pictures"):
        _ = Statistics.of(features[1:]).covariance


def test_the_stage_captions_stops_and_writes_nothing(tmp_path):
    settings = asked(tmp_path, perspectives=("caption_1",))
    archives = settings.paths.archives
    for split in SPLITS:
        files = {"0.png": random_picture(0), "1.png": random_picture(1)} | ({"1.txt": "x"} if split == "train" else {})
        write_tar(archives / f"{split}.tar", files)
    with pytest.raises(CondmixError, match="caption_1, but no test picture has any of that"):
        captions.main(settings)
    assert not settings.paths.captions.exists()


def test_half_a_character_is_not_a_caption(tmp_path):
    settings = asked(tmp_path)
    files = {f"{n}.json": '{"caption": "a \\ud83d"}' for n in range(2)} | {
        f"{n}.png": random_picture(n) for n in range(2)
    }
    for split in SPLITS:
        write_tar(settings.paths.archives / f"{split}.tar", dict(sorted(files.items())))
    with pytest.raises(CondmixError, match=r'train has the caption "a .ud83d", which is not valid text'):
        captions.main(settings)


@pytest.mark.parametrize(
    "dvc",
    [None, "", "a: {b", "stages: []", "stages: {}", "stages: {fetch: {}}", "stages: {fetch: {deps: 7}}"],
)
def test_a_dvc_yaml_that_does_not_say_what_is_watched(dvc, tmp_path):
    from condmix.stages import fetch

    if dvc is not None:
        write(tmp_path, {"dvc.yaml": dvc})
    with pytest.raises(CondmixError, match="dvc.yaml"):
        fetch.check_tracked("pictures", tmp_path)


# What such data leave unsaid in later stages


def test_a_class_that_no_picture_has_gives_no_accuracy():
    reference = object.__new__(Reference)
    reference.features, reference._real, reference._statistics = ["x"], {"x": None}, {"x": None}
    reference.split = SimpleNamespace(attributes=None, labels=np.array([-1, -1]), held_out=None)
    reference.observer = SimpleNamespace(heads={"network": ["class"]})
    seen = Seen({"x": torch.zeros(2, 1)}, {"network": torch.zeros(2, 1, dtype=torch.long)})
    assert reference.observations(seen).class_right is None
    reference.split.labels[1] = 0
    assert reference.observations(seen).class_right.tolist() == [True]


def test_captions_that_no_picture_has_give_no_retrieval():
    def encode(items):
        return torch.eye(4)[: len(items)]

    data = Dataset("", {})
    data.images = lambda split: iter([np.zeros((4, 4, 3), np.uint8)] * 2)
    data.labels = lambda split: None
    data.captions = lambda split: [[], [" "]]
    encoder = SimpleNamespace(encode=encode)
    assert measure_clip(data, encoder, encoder, []) == {"n": 2}
    data.captions = lambda split: [[], [" ", "x"]]
    assert measure_clip(data, encoder, encoder, [])["recall_at"]["captions"] == 1


def test_one_picture_makes_no_judge(tmp_path):
    settings = asked(tmp_path, judge=section("judge"))
    write_dataset(settings.paths.dataset, train=1)
    judge.main(settings)
    assert judges.Judge.load(settings.paths.judge) is None
    assert "a single training picture" in judges.read_card(settings.paths.judge)["reason"]
