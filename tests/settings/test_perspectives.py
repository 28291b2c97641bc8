"""What a perspective's name says."""

import numpy as np
import pytest

from condmix.settings.perspectives import another, fill_slots, is_perspective, known, misled, most_texts, parse


def test_every_known_name_is_read_and_reads_a_cache():
    sources = {"class", "image", "caption_1", "caption_2", "caption_3"}
    others = {"t5_1", "t5_2", "t5_3", "dino_7"}

    def read(names):
        return {source for name in names for source in parse(name).sources}

    assert read(known(3)) == sources
    assert read(known(3, t5=True, imported=["dino_7"])) == sources | others
    for name in known(3, t5=True, imported=["dino_7"]):
        assert parse(name).name == name
    assert set(known(3, generated=2)) - set(known(3)) >= {"generated_1", "generated_2_of_another", "mixed_any"}
    mixed = parse("mixed_any")
    assert (mixed.sources, mixed.kind, mixed.caption, mixed.mixed) == (["caption_1"], "caption", 0, True)
    assert (parse("generated_2").kind, parse("generated_2").sources) == ("generated", ["generated_2"])
    assert (parse("caption_any").sources, parse("caption_2_of_another").sources) == (["caption_1"], ["caption_2"])
    assert (parse("t5_2_of_another").kind, parse("t5_2").caption, parse("dino_7_again").sources) == (
        "t5",
        1,
        ["dino_7"],
    )
    assert (parse("pseudo").sources, parse("pseudo").caption) == (["image"], 0)
    assert (parse("caption_3_again").caption, parse("caption_any").caption, parse("image").caption) == (2, 0, None)
    assert (parse("caption_any_3").sources, parse("caption_any_3").drawn_before) == (
        ["caption_3"],
        ["caption_any", "caption_any_2"],
    )


def test_a_source_that_is_wrong_at_times_is_the_same_source():
    one = parse("caption_2_wrong_30")
    assert (one.kind, one.sources, one.caption, one.wrong, one.of_another) == ("caption", ["caption_2"], 1, 30, False)
    assert parse("t5_1_wrong_5").wrong == 5 and parse("caption_2").wrong == parse("caption_2_of_another").wrong == 0
    few, more = misled(20_000, 10), misled(20_000, 30)
    assert abs(few.mean() - 0.1) < 0.01 and abs(more.mean() - 0.3) < 0.015
    assert (more >= few).all() and np.array_equal(few, misled(20_000, 10))


def test_an_image_network_is_named_in_the_perspective():
    dino = parse("image_dino")
    assert (dino.kind, dino.sources, dino.caption, dino.number) == ("image_dino", ["image_dino"], None, None)
    assert not any(map(is_perspective, ("image_dino_1", "image_dino_any", "image_dino_again", "image_", "image_2")))
    assert set(known(1, networks=["dino", "lite0"])) - set(known(1)) == {"image_dino", "image_lite0"}


def test_several_captions_in_one_slot_stand_for_all_of_them():
    joined, mean = parse("caption_joined_3"), parse("t5_mean_2")
    assert (joined.kind, joined.merge, list(joined.captions), joined.caption) == ("caption", "joined", [0, 1, 2], 2)
    assert (mean.kind, mean.merge, list(mean.captions), mean.caption) == ("t5", "mean", [0, 1], 1)
    assert joined.sources == ["caption_joined_3"] and mean.sources == ["t5_1", "t5_2"]
    assert list(parse("caption_3").captions) == [2] and not parse("image").captions
    with_joined = known(3, t5=True, generated=2, joined=[3, 2])
    assert set(with_joined) - set(known(3, t5=True, generated=2)) == {
        "caption_joined_2", "caption_joined_3", "t5_joined_2", "t5_joined_3", "generated_joined_2"
    }  # fmt: skip
    assert {"caption_mean_2", "caption_mean_3", "t5_mean_3", "generated_mean_2"} < set(with_joined)
    assert not {"caption_mean_1", "caption_mean_4", "generated_mean_3"} & set(with_joined)


def test_slots_for_several_captions_take_the_first_of_all_that_were_typed():
    model = ["caption_mean_3", "caption_2", "image", "caption_joined_2", "t5_joined_2"]
    assert most_texts(model) == 3 and most_texts(["image", "class"]) == 0 and most_texts(["caption_1", "pseudo"]) == 2
    assert fill_slots(model, "abc") == {
        "caption_2": ["a"], "caption_mean_3": ["a", "b", "c"], "caption_joined_2": ["a", "b"]
    }  # fmt: skip
    assert fill_slots(model, "a") == {"caption_2": ["a"], "caption_mean_3": ["a"], "caption_joined_2": ["a"]}
    assert fill_slots(model, "") == {}


@pytest.mark.parametrize(
    "name",
    ["caption", "caption_0", "class_1", "image_again", "caption_any_again", "caption_1_twice", "Caption_1", "dino", ""]
    + ["t5_any", "caption_any_1", "image_1_of_another", "my_dino_1", "pseudo_1"]
    + ["caption_1_wrong", "caption_1_wrong_0", "caption_1_wrong_100", "image_wrong_10", "caption_any_wrong_10"]
    + ["mixed", "mixed_1", "generated_any", "mixed_any_again"]
    + ["caption_joined", "caption_joined_0", "caption_joined_1", "caption_mean_1", "caption_joined_02", "class_mean_2"]
    + ["caption_joined_any", "caption_joined_2_again", "dino_mean_2", "mixed_joined_2", "image_joined_2"],
)
def test_other_names_are_refused(name):
    assert not is_perspective(name)
    with pytest.raises(ValueError, match="no perspective is called"):
        parse(name)


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_another_is_never_the_picture_itself_and_uses_each_once(count):
    other = another(count)
    assert (other != np.arange(count)).all() and sorted(other) == list(range(count))
    assert (other == another(count)).all()
