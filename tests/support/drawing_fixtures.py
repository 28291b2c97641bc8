"""Fixtures: a tiny project with trained models of random weights, and a CLIP; for the conftest.py that want them."""

import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from clip_helpers import save_tiny_clip
from condmix.cli import main
from condmix.diffusion.model import Architecture, ConditionalModel, save_model
from condmix.encoders.clip_text import ClipText

WORDS = {"caption_any": 16, "caption_2": 16, "image": 16, "caption_1": 16}  # not in the order of the numbers
PICTURE = {"image": 16, "class": 3}
CLASS = {"class": 3}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The text tower of a tiny CLIP, and the folder that holds it."""
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder)
    return ClipText.open(folder, []), folder


@pytest.fixture
def save_random(project, encoder):
    """Writes a model of random weights that sees these perspectives {name: width} as a variant.

    `centres` names the caches whose vectors were centred, of random centres too.
    """
    generator = torch.Generator().manual_seed(0)

    def save(variant, perspectives, centres=()):
        widths = dict.fromkeys(centres, 16)
        architecture = Architecture(
            fusion="concat", perspectives=perspectives, dim=16, centres=widths,
            image_size=8, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
        )  # fmt: skip
        weights = ConditionalModel(architecture).state_dict()
        # new models predict zero whatever the condition; these do not
        weights = {name: torch.randn(w.shape, generator=generator) * 0.3 for name, w in weights.items()}
        card = {
            "architecture": vars(architecture),
            "variant": variant,
            "fusion": "concat",
            "perspectives": "+".join(perspectives),
            "train.ema": 0.9,
            "class_names": ["round", "square", "long"],
            "encoder": encoder[0].id,
            "diffusion.schedule": "cosine",
            "diffusion.steps": 1000,
            "diffusion.prediction": "v",
        }
        save_model(project.paths.model(variant), weights, card)

    return save


@pytest.fixture
def drawing(project, encoder, save_random, one_thread):
    """The tiny project with a CLIP and a model per set of perspectives, all of random weights."""
    shutil.copytree(encoder[1], project.paths.clip)
    for variant, perspectives in (("experiment", WORDS), ("class_v1", PICTURE), ("class_v2", CLASS)):
        save_random(variant, perspectives)
    return project


@pytest.fixture
def run(drawing):
    """`condmix generate` with these options, for two pictures."""
    options = ["generate", "--n", "2", "--scale", "1", "--steps", "5"]
    return lambda *more: CliRunner().invoke(main, [*options, *more])


@pytest.fixture
def sheet(run):
    """The picture that the command writes."""

    def made(*options):
        done = run(*options)
        assert done.exit_code == 0, done.output
        return np.asarray(Image.open("grid.png"))

    return made
