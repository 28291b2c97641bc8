"""JSON that somebody else wrote: parsed whole, or the items of one array of a large object, one at a time in memory.

Whatever is wrong with it is a ValueError, nesting too deep for Python among it.
"""

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

CHUNK = 1 << 20
LARGEST = 1 << 26  # characters of one value; more is damage, and not worth reading to the end for
TOO_DEEP = "it is nested too deeply"
DELIMITERS = tuple(" \t\r\n,:]}")


def parse(text: str | bytes) -> Any:
    """`json.loads`."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def array_items(stream: IO[bytes], key: str) -> Iterator:
    """Yields the items of the top-level array `key`; LookupError where the object has no such array."""
    text = _Text(stream)
    text.expect("{")
    while not text.skip("}"):
        name = text.value()
        text.expect(":")
        if text.skip("["):
            while not text.skip("]"):
                item = text.value()
                if name == key:
                    yield item
                text.skip(",")
        else:
            text.value()
        text.skip(",")
        if name == key:
            return
    raise LookupError(f"there is no array {key!r}")


class _Text:
    """The unread text: a buffer that is refilled until the value at its start is whole."""

    def __init__(self, stream: IO[bytes]):
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decode = json.JSONDecoder().raw_decode
        self._buffer, self._at = "", 0

    def _more(self) -> bool:
        """Reads on, dropping what has been passed over; False, and nothing changed, at the end."""
        chunk = self._stream.read(CHUNK)
        text = self._utf8.decode(chunk, final=not chunk)
        if chunk:
            self._buffer, self._at = self._buffer[self._at :] + text, 0
        return bool(chunk)

    def _space(self) -> None:
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._buffer) or not self._more():
                return

    def skip(self, character: str) -> bool:
        """Whether the next character is this one; if so, it is passed over."""
        self._space()
        matches = self._buffer[self._at : self._at + 1] == character
        self._at += matches
        return matches

    def expect(self, character: str) -> None:
        if not self.skip(character):
            raise ValueError(f"expected {character!r}, found {self._buffer[self._at : self._at + 10]!r}")

    def value(self) -> object:
        """The next JSON value, whole."""
        self._space()
        while True:
            try:
                value, end = self._decode(self._buffer, self._at)
            except RecursionError:
                raise ValueError(TOO_DEEP) from None
            except ValueError:
                if len(self._buffer) - self._at > LARGEST or not self._more():
                    raise
                continue
            # Without a delimiter behind it, a number may go on in the next chunk: "12", "12.", "12.5".
            if self._buffer[end : end + 1] not in DELIMITERS and self._more():
                continue
            self._at = end
            return value
