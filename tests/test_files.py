"""files.py: a file is the old one or the new one, and nothing is left beside it."""

import json
import math

import pytest

from condmix.files import replacing, write_json


def test_the_new_content_takes_the_old_ones_place(tmp_path):
    path = tmp_path / "made" / "on the way" / "facts.json"
    for content in ({"n": 1}, {"n": 2}):
        write_json(path, content)
        assert json.loads(path.read_text()) == content
    assert [entry.name for entry in path.parent.iterdir()] == ["facts.json"]


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(path) as part:
        part.write_text("half of the n")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    path = tmp_path / "weights"
    with replacing(path) as left:
        left.write_text("old")
    left.write_text("from a process that was killed")
    with replacing(path) as part:
        assert part == left
        part.write_text("new")
    assert path.read_text() == "new" and not left.exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "facts.json", {"loss": value})
    assert not list(tmp_path.iterdir())
