"""A project in which every stage has something to do, a trained captioner and a prior among them, in seconds."""

from captioner_helpers import COCA
from dvc_project import TINY
from profiles import profile

STAGES = [
    ["check"], ["fetch"], ["prepare"], ["captions"], ["encode"], ["generate_captions"], ["judge"], ["embed"], ["prior"],
    ["pack", "experiment"], ["train", "experiment"], ["evaluate", "experiment"], ["report"],
]  # fmt: skip
MORE = profile(
    generated={
        "captioner": "trained_coca", "captions": 2, "max_tokens": 8, "batch_size": 10, "shard": 20,
        "model": COCA | {key: COCA[key] | {"context_length": 24} for key in ("text_cfg", "multimodal_cfg")},
        "training": {"steps": 10, "batch_size": 10, "lr": 1e-3},
    },
    prior={"clusters": 2, "width": 16, "blocks": 1, "steps": 20, "batch_size": 20, "sample_steps": 2},
)  # fmt: skip
SETTINGS = TINY | {name: MORE[name] for name in ("generated", "prior")}
