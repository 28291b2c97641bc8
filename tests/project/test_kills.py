"""Every stage, killed at random moments and run again, leaves what an undisturbed run leaves, bit for bit.

python -m pytest -m slow tests/project/test_kills.py -s
"""

import difflib
import hashlib
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time

import pytest

from dvc_project import Project
from every_stage import SETTINGS, STAGES

KILLS = int(os.environ.get("KILLS", "6"))  # of each stage
TRAIN = SETTINGS["train"] | {"images": 640, "checkpoint_seconds": 0.2}
# What tells of the run itself: when and how fast it was, from which commit, whether MLflow saw it, and its checksum.
OF_THE_RUN = re.compile("second|^date$|^commit$|^mlflow|^content_sha256$")


def run(folder, *arguments):
    """A stage, in a process that has its imports already: a kill meets the stage's work and not Python's start."""
    os.setsid()
    os.chdir(folder)
    sink = os.open(folder / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    from condmix.cli import main

    main(arguments)


def start(folder, arguments):
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder, *arguments))
    process.start()
    return process


def plain(content):
    """JSON without what tells of the run itself."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items() if not OF_THE_RUN.search(key)}
    return [plain(value) for value in content] if isinstance(content, list) else content


def changes(one, other):
    """Which lines of two text files differ."""
    texts = [path.read_text(errors="replace").splitlines() for path in (one, other)]
    return f"{one}:\n" + "\n".join(difflib.unified_diff(*texts, lineterm="", n=0))


def artefacts(folder):
    """{path: hash} of everything that stages have written, hidden files too; of the page only that it is there."""
    found = {}
    for top in ("data", "models", "metrics"):
        for path in sorted((folder / top).rglob("*")):
            if path.is_dir() and not path.name.startswith("."):
                continue
            content = path.read_bytes() if path.is_file() and path.name != "index.html" else b""
            if path.suffix == ".json":
                content = json.dumps(plain(json.loads(content)), sort_keys=True).encode()
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two projects alike, and nothing but this process's modules loaded."""
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    settings, alone = SETTINGS | {"train": TRAIN}, ["experiment"]
    return [Project.create(tmp_path / name, "tiny", settings, variants=alone).folder for name in ("whole", "killed")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded PyTorch")
def test_killed_stages_leave_what_undisturbed_ones_leave(folders):
    import torch

    import condmix.stages.encode
    import condmix.stages.evaluate
    import condmix.stages.generate_captions
    import condmix.stages.prior
    import condmix.stages.report
    import condmix.stages.train  # noqa: F401

    torch.set_num_threads(1)  # threads of the parent would not exist in a forked child
    whole, killed = folders
    rng = random.Random(int(os.environ.get("SEED", "0")))
    kills = 0
    for arguments in STAGES:
        started = time.monotonic()
        process = start(whole, arguments)
        process.join()
        seconds = time.monotonic() - started
        assert process.exitcode == 0, (whole / "output.log").read_text()[-3000:]
        hits = 0
        for _ in range(4 * KILLS):
            process = start(killed, arguments)
            process.join(rng.uniform(0, seconds))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                hits += 1
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), (killed / "output.log").read_text()[-3000:]
            if hits == KILLS:
                break
        process = start(killed, arguments)
        process.join()
        assert process.exitcode == 0, (killed / "output.log").read_text()[-3000:]
        kills += hits
        print(f"{' '.join(arguments)}: {seconds:.1f} s, {hits} kills", flush=True)
        expected, found = artefacts(whole), artefacts(killed)
        assert sorted(found) == sorted(expected)
        differing = [path for path in expected if found[path] != expected[path]]
        assert not differing, "\n".join(changes(whole / path, killed / path) for path in differing)
    print(f"{kills} kills")
