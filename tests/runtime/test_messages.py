"""What others wrote reaches a message without its credentials and without what a terminal would obey."""

import pytest

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
