"""What a message may show of texts that others wrote: no credentials, one line."""

from __future__ import annotations

import re

# "//user:password@" of a URL. Greedy, since a password may hold an "@" that was not escaped.
_USER = re.compile(r"(?<=//)[^/?#\s]*@")
# "?access_token=...", "&X-Amz-Signature=...", "&sig=...": the names that storage services and APIs give to secrets.
# Names are bounded, or a long line of nothing but their signs would take forever.
_SECRET = re.compile(
    r"([?&;#](?:[^?=&;#\s]{0,40}(?:token|secret|signature|credential|passw|api[_-]?key|access[_-]?key)[^?=&;#\s]{0,40}"
    r"|auth|authorization|jwt|key|pwd|sig)=)[^&;#\s'\")>]+",
    re.IGNORECASE,
)

_HINTS = ("auth", "cred", "jwt", "key", "passw", "pwd", "secret", "sig", "token")  # most texts have none, which is fast


def without_credentials(text: str) -> str:
    """A URL, or a text with URLs in it, without user names and passwords; tokens in queries become ***."""
    if "@" in text:
        text = _USER.sub("", text)
    lower = text.lower()
    return _SECRET.sub(r"\1***", text) if any(hint in lower for hint in _HINTS) else text


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return without_credentials(lines[0]) if lines else type(error).__name__
