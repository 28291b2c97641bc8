"""The reader of YAML: what is read, and the one sentence for each kind of file that is not."""

import pytest

from condmix import CondmixError
from condmix.settings.yamlfile import parse_yaml, read_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_values_are_those_that_dvc_reads():
    text = "a: 1e-3\nb: 2.5E+4\nc: [1, x, null, true]\nd: &d {e: 1}\nf: *d\n"
    assert parse_yaml(text, "f") == {"a": 1e-3, "b": 2.5e4, "c": [1, "x", None, True], "d": {"e": 1}, "f": {"e": 1}}
    assert parse_yaml(b"\xef\xbb\xbfa: caf\xc3\xa9", "f") == {"a": "café"}  # an editor's byte order mark


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: caf\xe9", "is not UTF-8 text (line 1); save it with the encoding UTF-8"),
        ("a: 1".encode("utf-16"), "is not UTF-8 text (line 1)"),
        (b"a: 1\n\x80\x04", "is not UTF-8 text (line 2)"),
        (b"a: \x00", "is not valid YAML"),
        ("[" * 100_000, "line 1: more than 32 levels deep"),
        ("- " * 5_000 + "x", "more than 32 levels deep"),
        (BOMB, "more than 200,000 values"),
        ("a: &a [*a]", "line 1: &a contains itself"),
        ("a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(2_000)), "32 levels deep"),
        ("a: *b", "is not valid YAML"),
        ("x: 1\n1: 2", "line 2: the key 1 is not text; put it in quotes"),
        ("~: 2", "the key ~ is not text"),
        ("true: 2", "the key true is not text"),
        ("a: {<<: 5}", "line 1: << takes a mapping, as in `<<: *name`"),
        ("a: &a {x: 1}\nb:\n  <<: [*a, 5]", "line 3: << takes a mapping"),
        ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", "line 4: << stands twice"),
        ("a: &a {<<: *a}", "line 1: &a contains itself"),
        ("[a]: 2", "is not text"),
        ("a: {b: 1, b: 2}", "line 1: b stands twice; leave one of them"),
        ("a: " + "9" * 6_000, "a value that can't be read"),
        ("a: 2020-13-45", "a value that can't be read"),
        ("a: 1\nb: [010]", "line 2: 010 is one number in YAML 1.1 and another in YAML 1.2"),
        ("a: !!python/object/apply:os.system [x]", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ('a: "b\\0"', "line 1: b\\x00 is not valid text"),
        ('a: "\\ud800"', "is not valid"),
        ("", "must be a mapping of settings, not NoneType"),
        ("[1]", "must be a mapping of settings, not list"),
        ("a: " + "x" * 4_000_000, "settings have at most 4,000,000"),
    ],
)
def test_anything_else_is_one_sentence_that_names_the_file(content, says):
    with pytest.raises(CondmixError) as error:
        parse_yaml(content, "conf/x.yaml")
    assert str(error.value).startswith("conf/x.yaml") and says in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_readable_file_is_named(tmp_path):
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, says in (("none.yaml", "root of a condmix project"), ("loop.yaml", "can't be read"), (".", "not a file")):
        with pytest.raises(CondmixError, match=says):
            read_yaml(tmp_path / name, name)


def test_numbers_are_what_they_are_to_dvc():
    text = "a: [0, -1, 10, 0.5, 1.0e-3, '010', 16:9, 1:30.5, 0x10]"
    assert parse_yaml(text, "x") == {"a": [0, -1, 10, 0.5, 1e-3, "010", "16:9", "1:30.5", 16]}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {x: 1, y: {z: 2}}\nb:\n  <<: *a\n  y: 3",
        "a: &a {x: 1}\nb: {x: 5, <<: *a}",
        "a: &a {x: 1}\nc: &c {x: 5, z: [1]}\nb:\n  <<: [*a, *c]\nd:\n  <<: [*c, *a]",
        "a: &a {x: 1}\nc: &c {<<: *a, z: 1}\nb: {<<: *c}",
        "<<: {a: 1}\na: 2",
        "b: {'<<': 1}",
        "a: [yes, No, on, OFF, y, true, False, TRUE]\nyes: 1",
    ],
)
def test_merge_keys_and_truth_are_what_they_are_to_dvc(text):
    from dvc.utils.serialize import parse_yaml as as_dvc

    assert parse_yaml(text, "x") == as_dvc(text, "x")
