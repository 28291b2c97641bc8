"""Stages run by hand: they open what dvc.yaml says of them, and replace outputs that are links into DVC's cache."""

import contextlib
import hashlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from condmix import pipeline
from condmix.cli import main
from every_stage import SETTINGS, STAGES

ROOT = Path(__file__).parents[2]
PLACES = ("data", "models", "metrics")
KEPT = ("data/tiny/partial", "data/tiny/statistics", "data/tiny/drawn")  # under keys, or removed by the same stage
opened: set[str] = set()


def note(event, arguments):
    """The names of files that Python opens; an audit hook, which can't be removed."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        opened.add(os.path.relpath(arguments[0]))


def run_all():
    """Every stage in turn; returns the files that each opened."""
    found = {}
    for stage in STAGES:
        opened.clear()
        done = CliRunner().invoke(main, stage, catch_exceptions=False)
        assert done.exit_code == 0, f"{stage}: {done.output[-2000:]}"
        found[stage[0]] = {
            name for name in opened if name.split("/")[0] in PLACES and "/." not in name and Path(name).is_file()
        }
    return found


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A project in which every stage ran once, and what each stage opened."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "conf").mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(settings | {"profile": "tiny", "variants": ["experiment"]}))
    (folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    sys.addaudithook(note)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("CONDMIX_TRACKING", "off")
        patch.delenv("DVC_ROOT", raising=False)
        yield folder, run_all()


def state(folder):
    """Content and time of change of every file."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("stage", [stage[0] for stage in STAGES])
def test_a_stage_opens_what_it_declares_and_nothing_else(work, stage):
    """Or DVC would not notice a change of it. What the metrics say is in the details too, and is compared with them."""
    content = pipeline.read(ROOT)["stages"][stage]
    named = [entry for kind in ("deps", "outs", "metrics", "plots") for entry in content.get(kind, ())]
    named = [entry if isinstance(entry, str) else next(iter(entry)) for entry in named]
    named = [one.replace("${profile}", "tiny").replace("${item.variant}", "experiment") for one in named]
    named += ["metrics/experiment.json"] if stage == "report" else []
    assert not {name for name in work[1][stage] if not any(f"{name}/".startswith(f"{one}/") for one in (*named, *KEPT))}


def test_no_stage_writes_through_a_link_into_the_cache(work, tmp_path):
    outputs = [path for top in PLACES for path in (work[0] / top).rglob("*") if path.is_file()]
    assert len(outputs) > 40 and not [path for path in outputs if path.name.startswith(".") or path.suffix == ".lock"]
    for number, path in enumerate(outputs):
        kept = tmp_path / str(number)
        path.rename(kept)
        kept.chmod(0o444)
        os.link(kept, path)
    shutil.rmtree(work[0] / ".checkpoints")  # or a training would find that nothing is left to do
    before = state(tmp_path)
    run_all()
    assert state(tmp_path) == before
