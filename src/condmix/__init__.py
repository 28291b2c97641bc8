"""condmix: image diffusion conditioned on several perspectives of one picture at once.

    import condmix
    model = condmix.load("models/experiment")
    pictures = model(captions=["a red ring", "navy backdrop"], n=4, guidance=2.0, seed=0)

`load` and what it gives are in condmix.sampling.loaded, imported when it is first used, for torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condmix.sampling.loaded import LoadedModel, load
    from condmix.sampling.request import Request

__all__ = ["CondmixError", "LoadedModel", "Request", "load", "shown"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in ("LoadedModel", "load"):
        return getattr(import_module("condmix.sampling.loaded"), name)
    if name == "Request":
        return import_module("condmix.sampling.request").Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class CondmixError(Exception):
    """A mistake in the input or a damaged file, said in one sentence: what was given, what to do.

    The command line prints the sentence and exits with status 1; `--debug` adds the traceback. It is `shown`, as names
    of files, which may hold anything, are part of it.
    """

    def __init__(self, sentence: str):
        super().__init__(shown(sentence))


def shown(text: str) -> str:
    """`text` as it may reach a terminal: control characters, line ends and undecodable bytes are escaped, as \\x1b."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
