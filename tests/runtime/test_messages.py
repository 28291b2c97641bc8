"""What others wrote reaches a message without its credentials and without what a terminal would obey."""

import pytest
from click.testing import CliRunner

from condmix.cli import main, say
from condmix.runtime.messages import reason, without_credentials


@pytest.mark.parametrize(
    "url, shown",
    [
        ("http://user:secret@host/a.jpg", "http://host/a.jpg"),
        ("http://user@host:80/a.jpg", "http://host:80/a.jpg"),
        ("https://u:s@e:c@host/a@b.jpg", "https://host/a@b.jpg"),
        ("http://host/a.jpg?size=2&token=secret&x=1", "http://host/a.jpg?size=2&token=***&x=1"),
        ("http://h/a?X-Amz-Signature=secret&X-Amz-Credential=secret", "http://h/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("http://h/a?access_token=secret#auth=secret", "http://h/a?access_token=***#auth=***"),
        ("http://h/a?sv=1&sig=secret%3D", "http://h/a?sv=1&sig=***"),
        ("http://h/a?monkey=7&author=b", "http://h/a?monkey=7&author=b"),
        ("ftp://a:secret@h/x and http://b:secret@h/y?key=secret (no)", "ftp://h/x and http://h/y?key=*** (no)"),
    ],
)  # fmt: skip
def test_credentials_are_taken_out_of_urls_and_nothing_else_is(url, shown):
    assert without_credentials(url) == shown == without_credentials(shown)


def test_a_reason_is_one_line_and_never_empty():
    assert reason(ValueError("no http://u:p@h/\nmore")) == "no http://h/"
    assert reason(StopIteration()) == "StopIteration"


def test_the_command_line_s_sentence_does_not_reach_the_terminal_as_it_is(tmp_path):
    result = CliRunner().invoke(main, ["download", str(tmp_path / "\x1b[31mlist"), str(tmp_path / "out")])
    assert result.exit_code == 1 and "\\x1b[31mlist" in result.output and "\x1b" not in result.output


@pytest.mark.parametrize(
    "arguments", [["--a\rb"], ["a\rb"], ["generate", "--a\rb"], ["generate", "a\x1b[31m"], ["generate", "--n", "a\rb"]]
)
def test_nor_does_what_click_quotes(arguments):
    result = CliRunner().invoke(main, arguments, color=True)
    assert result.exit_code == 2 and all(line.isprintable() for line in result.output.split("\n"))


def test_printed_lines_hold_nothing_that_a_terminal_obeys(capsys):
    say("one\ra\x1b[31m\ntwo")
    assert capsys.readouterr().out == "one\\ra\\x1b[31m\ntwo\n"
