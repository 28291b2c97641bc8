"""condmix: image diffusion conditioned on several perspectives of one picture at once."""

__version__ = "0.1.0"


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
