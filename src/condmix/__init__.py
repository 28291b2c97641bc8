"""condmix: image diffusion conditioned on several perspectives of one picture at once."""

__version__ = "0.1.0"


class CondmixError(Exception):
    """A mistake in the input or a damaged file, said in one sentence: what was given, what to do.

    The command line prints the sentence and exits with status 1; `--debug` adds the traceback.
    """
