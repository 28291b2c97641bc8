"""Many independent seeds from one: torch's CPU generator reads 32 bits only, so sums and shifts would collide."""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A seed in 0 .. 2^32 - 1 for (run seed, purpose, number, ...), the same on every machine."""
    text = ":".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
