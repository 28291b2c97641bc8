"""A tiny project with trained models of random weights."""

from drawing_fixtures import drawing, encoder, save_random  # noqa: F401
