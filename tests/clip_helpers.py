"""A CLIP of 40 thousand parameters with random weights, and a data set in memory, for the tests of embeddings."""

from types import SimpleNamespace

import numpy as np
import torch

from condmix.config import Paths

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 16, "patch_size": 4, "head_width": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def save_tiny_clip(folder, seed=0, **changes):
    """Write a random CLIP into `folder` in open_clip's format; returns the model."""
    from condmix.encode import new_clip
    from condmix.encoders import save_clip

    torch.manual_seed(seed)
    model, model_cfg, tokenizer = new_clip(TINY | changes)
    save_clip(folder, model.eval(), model_cfg, tokenizer)
    return model


class Colours:
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
    """Parameters for the stages encode, embed and pack on `Colours`, with files under `root`."""
    clip = {"model": TINY, "pretrained": None, "weights": None, "steps": 4, "batch_size": 20, "lr": 5e-3} | clip
    clip = {"warmup": 0.1, "weight_decay": 0.0, "joined": 0.5, "processes": 1, "seed": 0} | clip
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
        data=SimpleNamespace(dataset="colours", world={}, flip=False),
        captions=SimpleNamespace(templates=()),
        generated=None,
        mixed_any=None,
        embed=SimpleNamespace(captions=5, encoders=("clip_image", "clip_text", "class_label"), t5=None, imports=()),
        clip=SimpleNamespace(**clip),
    )
