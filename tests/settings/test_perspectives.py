"""What a perspective's name says."""

import numpy as np
import pytest

from condmix.settings.perspectives import another, known, parse


def test_every_known_name_is_read_and_reads_a_cache():
    sources = {"class", "image", "caption_1", "caption_2", "caption_3"}
    others = {"t5_1", "t5_2", "t5_3", "dino_7"}
    assert {parse(name).source for name in known(3)} == sources
    assert {parse(name).source for name in known(3, t5=True, imported=["dino_7"])} == sources | others
    for name in known(3, t5=True, imported=["dino_7"]):
        assert parse(name).name == name
    assert set(known(3, generated=2)) - set(known(3)) >= {"generated_1", "generated_2_of_another", "mixed_any"}
    mixed = parse("mixed_any")
    assert (mixed.source, mixed.kind, mixed.caption, mixed.mixed) == ("caption_1", "caption", 0, True)
    assert (parse("generated_2").kind, parse("generated_2").source) == ("generated", "generated_2")
    assert (parse("caption_any").source, parse("caption_2_of_another").source) == ("caption_1", "caption_2")
    assert (parse("t5_2_of_another").kind, parse("t5_2").caption, parse("dino_7_again").source) == ("t5", 1, "dino_7")
    assert (parse("pseudo").source, parse("pseudo").caption) == ("image", 0)
    assert (parse("caption_3_again").caption, parse("caption_any").caption, parse("image").caption) == (2, 0, None)
    assert (parse("caption_any_3").source, parse("caption_any_3").drawn_before) == (
        "caption_3",
        ["caption_any", "caption_any_2"],
    )


@pytest.mark.parametrize(
    "name",
    ["caption", "caption_0", "class_1", "image_again", "caption_any_again", "caption_1_twice", "Caption_1", "dino", ""]
    + ["t5_any", "caption_any_1", "image_1_of_another", "my_dino_1", "pseudo_1"]
    + ["mixed", "mixed_1", "generated_any", "mixed_any_again"],
)
def test_other_names_are_none(name):
    assert parse(name) is None


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_another_is_never_the_picture_itself_and_uses_each_once(count):
    other = another(count)
    assert (other != np.arange(count)).all() and sorted(other) == list(range(count))
    assert (other == another(count)).all()
