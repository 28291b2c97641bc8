"""What a killed DVC leaves behind, and stumbles over ever after: state files that it does not write in one step."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from condmix.files.atomic import write_text

LOCK = "dvc.lock"
RUNNING = Path(".dvc", "tmp", "rwlock")  # which files the DVC processes of this moment read and write


def repair(root: Path) -> list[str]:
    """Mend dvc.lock and DVC's rwlock if they can't be read; says in a sentence each what was done."""
    return [sentence for sentence in (_lock_file(root), _running(root)) if sentence]


def _lock_file(root: Path) -> str | None:
    """git's copy of dvc.lock, staged or committed, in the place of one that DVC refuses; nothing where git has none.

    That loses no result: DVC's run cache knows the finished stages, and checks their outputs out.
    """
    path = root / LOCK
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    if readable(text) or "<<<<<<<" in text:  # a merge's conflict is for people to solve; DVC names the file
        return None
    reason = f"{LOCK} was {'half written' if text.strip() else 'empty'}, as a kill of DVC leaves it"
    for revision in ("", "HEAD") if shutil.which("git") else ():
        kept = subprocess.run(["git", "show", f"{revision}:./{LOCK}"], cwd=root, capture_output=True, text=True)
        if kept.returncode == 0 and readable(kept.stdout):
            write_text(path, kept.stdout)
            return f"{reason}: git's copy is in its place again; finished stages come from DVC's cache"
    path.unlink()
    return f"{reason}, and git has no copy: it is removed; finished stages come from DVC's cache"


def readable(text: str) -> bool:
    """Whether DVC accepts this as the content of dvc.lock."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, LOCK))
    except (YAMLFileCorruptedError, Invalid):
        return False
    return True


def _running(root: Path) -> str | None:
    """Without this file, DVC takes it that no other DVC is at work."""
    path = root / RUNNING
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        path.unlink()
        return f"{RUNNING} was not readable, as a kill of DVC leaves it: it is removed"
    return None
