"""A CLIP of 40 thousand parameters with random weights, and a data set in memory, for the tests of embeddings."""

import functools
import json
from types import SimpleNamespace

import numpy as np
import open_clip  # before the first test, so that its objects are set aside (conftest.py)
import torch

from condmix.clip.folder import save_clip
from condmix.clip.openclip import new_clip
from condmix.data.captions import write_captions
from condmix.datasets import Dataset
from condmix.settings.load import Paths, plugin
from profiles import section

# CLIP's own tokenizer has no state, and takes a quarter of a second to build.
open_clip.SimpleTokenizer = open_clip.factory.SimpleTokenizer = functools.cache(open_clip.SimpleTokenizer)

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 16, "patch_size": 4, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def save_tiny_clip(folder, seed=0, **changes):
    """Write a random CLIP into `folder` in open_clip's format; returns the model."""
    torch.manual_seed(seed)
    model, model_cfg, tokenizer = new_clip(TINY | changes)
    save_clip(folder, model.eval(), model_cfg, tokenizer)
    return model


class Colours(Dataset):
    """Pictures of which one half is coloured; a caption names the colour or the side."""

    class_names = ["red", "green", "blue"]
    sides = ["left", "right"]
    attributes = {"colour": class_names, "side": sides}

    def __init__(self, counts=(60, 20), seed=0):
        rng = np.random.default_rng(seed)
        self._values = {
            split: np.stack([rng.integers(0, 3, n), rng.integers(0, 2, n)], axis=1)
            for split, n in zip(("train", "test"), counts, strict=True)
        }

    def ids(self, split):
        return list(range(len(self._values[split])))

    def images(self, split):
        for colour, side in self._values[split]:
            image = np.zeros((8, 8, 3), np.uint8)
            image[:, 4 * side : 4 * side + 4, colour] = 230
            yield image

    def labels(self, split):
        return self._values[split][:, 0].astype(np.int64)

    def captions(self, split):
        return [
            [f"a {self.class_names[colour]} picture", f"it is {self.sides[side]}"]
            for colour, side in self._values[split]
        ]

    def claims(self, caption):
        options = (self.class_names, self.sides)
        return [next((i for i, word in enumerate(words) if word in caption.split()), -1) for words in options]

    def attribute_values(self, split):
        return self._values[split].astype(np.int64)

    def mentions(self, split):
        return np.broadcast_to(np.eye(2, dtype=bool), (len(self._values[split]), 2, 2))


def colour_params(root, **clip):
    """Parameters for the stages encode, embed and pack on `Colours`, with files under `root`.

    The data set has the name of one that exists, whose code stands for the reader's.
    """
    clip = {
        "model": TINY,
        "pretrained": None,
        "weights": None,
        "towers": None,
        "steps": 4,
        "batch_size": 20,
        "lr": 5e-3,
    } | clip
    clip = {"optimizer": "adamw", "warmup": 0.1, "weight_decay": 0.0, "joined": 0.5, "processes": 1, "seed": 0} | clip
    paths = Paths(root, "colours")
    archives = paths.archives
    archives.mkdir(parents=True)
    (archives / "data.bin").write_bytes(b"colours")
    return SimpleNamespace(
        profile="colours",
        seed=0,
        fusion="mean",
        perspectives=("caption_1", "caption_2"),
        paths=paths,
        data=SimpleNamespace(dataset="demo", world={}, flip=False),
        captions=SimpleNamespace(templates=()),
        generated=None,
        mixed_any=None,
        embed=SimpleNamespace(**dict(section("embed"))),
        clip=SimpleNamespace(**clip),
    )


def use_data(monkeypatch, stage, data):
    """Let a stage open the data set that data() gives, whatever the settings name."""

    def opened(kind, name):
        return (lambda archives, settings: data()) if kind == "datasets" else plugin(kind, name)

    monkeypatch.setattr(stage, "plugin", opened)


def write_all_captions(params, data):
    """The captions of a data set as people wrote them, where the stage captions leaves them."""
    for split in ("train", "test"):
        write_captions(params.paths.captions / f"{split}.json", data.captions(split), "human")


def known_as(monkeypatch, folder, name, architecture):
    """Let open_clip know the architecture by this name for the time of a test."""
    factory = open_clip.factory
    (folder / f"{name}.json").write_text(json.dumps(architecture))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", dict(factory._MODEL_CONFIGS))
    open_clip.add_model_config(folder / f"{name}.json")


def save_tiny_siglip(folder, seed=0):
    """Write a random SigLIP into `folder` as timm's repositories on the hub hold them; returns the model.

    A timm image tower with attention pooling, a text tower of its own without causal mask, a tokenizer of
    transformers, a logit bias, pictures squashed to a square. Only the vocabulary is not SigLIP's.
    """
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    from t5_helpers import save_tiny_tokenizer

    config = {
        "embed_dim": 96, "init_logit_bias": -10, "custom_text": True,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit3", "timm_model_pretrained": False, "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 10, "vocab_size": 32, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP",
            "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 96, "heads": 4, "layers": 2, "no_causal_mask": True,
            "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    towers = {name: value for name, value in config.items() if name != "custom_text"}
    model = open_clip.CustomTextCLIP(**towers).eval()
    half = (0.5, 0.5, 0.5)
    squash = {"mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "squash"}
    set_model_preprocess_cfg(model, {"size": 160, **squash})
    save_tiny_tokenizer(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", config)
    return model
