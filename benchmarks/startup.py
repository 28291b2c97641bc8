"""How long does condmix take before it works, and DVC where there is nothing to do, beside what they are built on?

    PYTHONPATH=src python benchmarks/startup.py

Needs a reproduced pipeline (dvc repro). A stage's overhead is what `condmix train` takes beyond the seconds that its
model card counts, in a copy of the project with the same data; the runs share one MLflow store.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click

ROOT = Path.cwd()
PYTHON, DVC = [sys.executable], [str(Path(sys.executable).with_name("dvc"))]
CONDMIX = [*PYTHON, "-m", "condmix"]
# What training can't do without: torch's optimisers import its compiler, and the store SQLAlchemy.
TORCH = "import torch, torch._dynamo, accelerate"
MLFLOW = "import mlflow; mlflow.MlflowClient('sqlite:///mlflow.db').search_experiments(max_results=1)"


# condmix.load and three times four pictures; prints the seconds of each step. The first drawing imports open_clip.
API = """
import time
times = [time.perf_counter()]
def lap(): times.append(time.perf_counter())
import condmix; lap()
model = condmix.load("models/experiment"); lap()
for seed in (0, 1, 2):
    model(captions=["a large red ring", "a navy backdrop"], n=4, guidance=2.0, seed=seed); lap()
print(*(after - before for before, after in zip(times, times[1:])))
"""
STEPS = ["`import condmix`", "`condmix.load`", "the first four pictures", "the second four", "the third four"]
DRAW = [*CONDMIX, "generate", "--caption", "a large red ring", "--caption", "a navy backdrop", "--n", "4"]
IMPORTS = {  # each in a process of its own
    "python: import torch": "import torch",
    "python: import torch, torchvision (which imports torch._dynamo)": "import torch, torchvision",
    "python: import torch, open_clip (which imports torchvision, transformers and timm)": "import torch, open_clip",
}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command that must succeed, its processes included."""
    before = os.times()
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "src"}, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def api(rounds: int) -> None:
    """Prints what drawing from Python and on the command line takes, and the imports among it."""
    laps = []
    for _ in range(rounds):
        command = [*PYTHON, "-c", API]
        environment = os.environ | {"PYTHONPATH": "src"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        laps.append([float(second) for second in done.stdout.split()])
    print("\n| from Python | seconds |\n|---|---|")
    for step, values in zip(STEPS, zip(*laps, strict=True), strict=True):
        print(f"| {step} | {median(values):.3f} |")
    print("\n| process | CPU seconds |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        commands = {"condmix generate --n 4": [*DRAW, "--out", f"{folder}/grid.png"]}
        commands |= {what: [*PYTHON, "-c", code] for what, code in IMPORTS.items()}
        for what, command in commands.items():
            print(f"| {what} | {median(cpu_seconds(command) for _ in range(rounds)):.2f} |")


def seconds(command: list[str], folder: Path, **variables: str) -> float:
    """What a command takes that must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | variables
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def one_stage(folder: Path) -> None:
    """A DVC project of one stage, which is up to date."""
    subprocess.run([*DVC, "init", "--no-scm", "-q"], cwd=folder, check=True)
    (folder / "dvc.yaml").write_text("stages: {one: {cmd: echo 1 > one.txt, outs: [one.txt]}}\n")
    subprocess.run([*DVC, "repro", "-q"], cwd=folder, check=True)


def small_project(folder: Path) -> None:
    """This project with a short training; its data are ours."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "data").symlink_to(ROOT / "data")
    profile = folder / "conf" / "demo.yaml"
    profile.write_text(re.sub(r"(?m)^(train:\n  images:) .*", r"\1 320", profile.read_text()))


def overhead(folder: Path, **variables: str) -> float:
    """What `condmix train caption` takes beyond its training."""
    shutil.rmtree(folder / ".checkpoints", ignore_errors=True)  # or the finished state would be taken up
    whole = seconds([*CONDMIX, "train", "caption"], folder, **variables)
    return whole - json.loads((folder / "models" / "caption" / "model.json").read_text())["seconds"]


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--api-only", is_flag=True, help="Leave out training, MLflow and DVC.")
def main(rounds: int, api_only: bool) -> None:
    load_before = os.getloadavg()[0]
    print(f"medians of {rounds} rounds, load before {load_before:.2f}")
    api(rounds)
    if api_only:
        return
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as small:
        one_stage(Path(one))
        small_project(Path(small))
        timed = {
            "python -c pass": lambda: seconds([*PYTHON, "-c", "pass"], ROOT),
            "condmix --help": lambda: seconds([*CONDMIX, "--help"], ROOT),
            "condmix train, beyond training": lambda: overhead(Path(small)),
            "the same, CONDMIX_TRACKING=off": lambda: overhead(Path(small), CONDMIX_TRACKING="off"),
            "python: torch's own imports": lambda: seconds([*PYTHON, "-c", TORCH], ROOT),
            "python: MLflow's own imports and first query": lambda: seconds([*PYTHON, "-c", MLFLOW], Path(small)),
            "dvc --version": lambda: seconds([*DVC, "--version"], ROOT),
            "dvc repro of one stage, up to date": lambda: seconds([*DVC, "repro"], Path(one)),
            "dvc repro of this pipeline, up to date": lambda: seconds([*DVC, "repro"], ROOT),
        }
        found: dict[str, list[float]] = {what: [] for what in timed}
        for round_ in range(rounds + 1):
            for what, measure in timed.items():
                value = measure()
                if round_:  # the first warms the disk's cache, and makes the store
                    found[what].append(value)
    print(f"\nafter one round of warm-up, load before {load_before:.2f}\n")
    print("| what | seconds |\n|---|---|")
    for what, values in found.items():
        print(f"| {what} | {median(values):.2f} |")


if __name__ == "__main__":
    main()
