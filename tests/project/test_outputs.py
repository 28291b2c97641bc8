"""Stages run by hand after `dvc repro`: their outputs are read-only links into DVC's cache then, and are replaced."""

import hashlib
import os
import shutil
from pathlib import Path

import yaml
from click.testing import CliRunner

from condmix.cli import main
from every_stage import SETTINGS, STAGES

ROOT = Path(__file__).parents[2]


def run_all():
    for stage in STAGES:
        done = CliRunner().invoke(main, stage, catch_exceptions=False)
        assert done.exit_code == 0, f"{stage}: {done.output[-2000:]}"


def state(folder):
    """Content and time of change of every file."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_no_stage_writes_through_a_link_into_the_cache(tmp_path, monkeypatch):
    work, cache = tmp_path / "work", tmp_path / "cache"
    (work / "conf").mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", work)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    (work / "params.yaml").write_text(yaml.safe_dump(settings | {"profile": "tiny", "variants": ["experiment"]}))
    (work / "conf" / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.chdir(work)
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    run_all()
    outputs = [path for top in ("data", "models", "metrics") for path in (work / top).rglob("*") if path.is_file()]
    assert len(outputs) > 40 and not [path for path in outputs if path.name.startswith(".") or path.suffix == ".lock"]
    for number, path in enumerate(outputs):
        kept = cache / str(number)
        cache.mkdir(exist_ok=True)
        path.rename(kept)
        kept.chmod(0o444)
        os.link(kept, path)
    shutil.rmtree(work / ".checkpoints")  # or a training would find that nothing is left to do
    before = state(cache)
    run_all()
    assert state(cache) == before
