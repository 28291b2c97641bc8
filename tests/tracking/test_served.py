"""A row of a served model's input -> the keywords of a request."""

import numpy as np
import pytest

from condmix import CondmixError
from condmix.tracking.served import MOST, given


def test_what_a_row_leaves_out_is_absent_and_whole_numbers_may_be_floats():
    row = {"captions": np.array(["a ring", "navy"]), "negatives": None, "n": 2.0, "seed": float("nan"), "guidance": 2}
    assert given(row) == {"captions": ["a ring", "navy"], "n": 2, "guidance": 2}


def test_a_text_in_the_place_of_a_list_is_one_caption():
    assert given({"captions": "a ring"}) == {"captions": ["a ring"]}


@pytest.mark.parametrize(
    "row, says", [({"n": 1.9}, "n 1.9: give a whole number"), ({"n": MOST + 1}, "at most"), ({"image": b"?"}, "image")]
)
def test_what_cannot_be_asked_is_one_sentence(row, says):
    with pytest.raises(CondmixError, match=says):
        given(row)
