"""Parameters of a small demo world."""

from types import SimpleNamespace

from clip_helpers import colour_params, save_tiny_clip, write_all_captions
from condmix.datasets.demo import Demo

WORLD = {"train": 50, "test": 20, "seed": 1}


def demo_params(root):
    """A small demo world with its captions and a tiny CLIP: unlike `Colours`, new processes can open it."""
    params = colour_params(root)
    params.data = SimpleNamespace(dataset="demo", world=WORLD)
    (params.paths.archives / "data.bin").unlink()
    Demo.draw(params.paths.archives, WORLD)
    write_all_captions(params, Demo(params.paths.archives, WORLD))
    save_tiny_clip(params.paths.clip)
    return params
