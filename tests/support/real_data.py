"""Real data, which lie beside the repository or in CONDMIX_SHARED; a test that needs them is skipped elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiles import ROOT

DATA = Path(os.environ.get("CONDMIX_SHARED") or ROOT.parent / "shared") / "data"


def shared(path: str) -> Path:
    """A file or folder of the real data."""
    if not (DATA / path).exists():
        pytest.skip(f"no {DATA / path}: set CONDMIX_SHARED to the folder that holds data/")
    return DATA / path


def build(script: str, *arguments: object) -> None:
    """Run one of the real data's own builders."""
    subprocess.run([sys.executable, shared(script), *map(str, arguments)], check=True, capture_output=True)
