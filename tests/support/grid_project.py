"""A small grid of experiments, a small search, and a repository in which they can be planned."""

from pathlib import Path

import yaml

from condmix.experiments.grid import plan, read_grid
from dvc_project import TINY, Project

GRID = {
    "profile": "tiny",
    "seeds": [0, 1],
    "baseline": "one",
    "settings": {"train.images": 32},
    "experiments": {
        "one": {"says": "one caption", "perspectives": ["caption_1"], "fusion": "concat"},
        "two": {"says": "two captions", "perspectives": ["caption_1", "caption_2"], "fusion": "mean"},
    },
}
SEARCH = {
    "profile": "tiny",
    "measure": "residual",
    "trials": 8,
    "settings": {"perspectives": ["caption_1"], "train.images": 32},
    "space": {"guidance": {"low": 1, "high": 6}, "fusion": ["concat", "mean"]},
}


def write_grid(root, name="small", **changes):
    write(root / "conf" / "experiments" / f"{name}.yaml", GRID | changes)


def write_search(root, name="small", **changes):
    write(root / "conf" / "searches" / f"{name}.yaml", SEARCH | changes)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def changed(experiment="two", **values):
    return {"experiments": GRID["experiments"] | {experiment: GRID["experiments"][experiment] | values}}


class Repository:
    """The repository's own code and pipeline, committed beside a lock file that nobody reproduced: nothing can run."""

    def __init__(self, folder: Path):
        self.made, self.folder = Project.create(folder, "tiny", TINY), folder
        outputs = {
            "fetch": "data/tiny/archives",
            "encode": "models/clip",
            "generate_captions": "data/tiny/generated",
            "judge": "models/judge",
            "prior": "models/prior",
        }
        shared = {
            stage: {"deps": [{"path": "data/tiny/dataset"}], "outs": [{"path": path, "md5": path.rpartition("/")[2]}]}
            for stage, path in outputs.items()
        }
        self.write("dvc.lock", yaml.safe_dump({"stages": shared}))

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        self.made.commit(name)

    def append(self, name, text):
        self.write(name, (self.folder / name).read_text() + text)

    def names(self, **changes):
        write_grid(self.folder, **changes)
        return [run.name for run in plan(self.folder, read_grid(self.folder, "small"))]
