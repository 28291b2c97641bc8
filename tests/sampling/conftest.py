"""A tiny project with trained models of random weights."""

from drawing_fixtures import drawing, encoder, run, save_random, sheet  # noqa: F401
