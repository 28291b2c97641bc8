"""A clone of this repository in a folder of its own, driven through git, dvc and the command line."""

import json
import os
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import yaml

from profiles import profile
from warm_python import warm_python

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


class Project:
    """A clone in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("DVC", "MLFLOW", "PYTHON"))
        }
        self.environment |= {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        self.environment["PYTHONPATH"] = str(folder / "src")  # not the code that is installed
        self.environment["HOME"] = str(folder.with_name(f"{folder.name}-home"))  # nobody's git or DVC settings
        self.environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # the C++ operation is compiled once

    @classmethod
    def create(cls, folder: Path, profile: str, settings: dict, **params) -> "Project":
        """The repository's files as they are now, with one profile more or changed, and no results."""
        project = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = project.run("git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
        for name in filter(None, files):
            if name != "dvc.lock" and not name.startswith("metrics/") and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        (folder / "conf" / f"{profile}.yaml").write_text(yaml.safe_dump(settings))
        project.change(profile=profile, **params)
        project.run("git", "init", "-q", "-b", "main")
        project.commit("start")
        return project

    def copy(self, folder: Path) -> "Project":
        """The same, results and DVC's cache included, for a test that changes it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    @cached_property
    def python(self) -> str:
        """What runs this project's Python: from here on it is the one on the PATH, which DVC's stages ask for."""
        folder = warm_python()
        self.environment["PATH"] = f"{folder}:{self.environment['PATH']}"
        return str(folder / "python")

    def run(self, *command: str, fails: bool = False) -> subprocess.CompletedProcess:
        if command[0] in ("condmix", "dvc"):
            command = (self.python, "-m", *command)
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)

    def change(self, **values) -> None:
        path = self.folder / "params.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))

    def ran(self, output: str) -> set[str]:
        """Names of the stages that DVC executed."""
        return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}

    def metrics(self, variant: str) -> dict:
        return json.loads((self.folder / "metrics" / f"{variant}.json").read_text())


TINY = profile(
    data={"world": {"train": 60, "test": 20, "seed": 7}},
    clip={
        "model": {
            "embed_dim": 16,
            "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
            "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
        },
        "steps": 3, "batch_size": 20, "processes": 1,
    },
    judge={"steps": 3},
    model={"channels": 8, "multipliers": [1, 2]},
    train={"images": 64, "batch_size": 16},
    evaluate={"n": 8, "other_n": None, "steps": 2, "sweep": [1.0, 3.0], "sweep_n": 4, "batch_size": 8},
)  # fmt: skip
