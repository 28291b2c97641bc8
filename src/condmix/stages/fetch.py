"""Stage fetch: URLs with sizes and checksums -> verified archives; or a folder is packed, or a data set draws itself.

A download goes to data/<profile>/partial/, is resumed where it stopped, and moves to archives/ when its checksum is
right. An archive that is there and right is kept. `file://` URLs and mirrors work alike.
"""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condmix import CondmixError, pipeline, shown
from condmix.download.transfer import fetch
from condmix.files.atomic import remove_folder
from condmix.settings import load
from condmix.settings.schema import File, Params

EXAMPLES = 5  # names of files that are left out of a folder


def main(params: Params) -> None:
    """Fills `params.paths.archives`."""
    plugin = load.plugin("datasets", params.data.dataset)
    paths = params.paths
    if hasattr(plugin, "draw"):
        draw(plugin, params.data.world, paths.archives, paths.partial)
        return
    if params.data.folder is not None:
        if not hasattr(plugin, "pack"):
            raise CondmixError(f"conf/{params.profile}.yaml: {params.data.dataset} takes data.files, not data.folder")
        if params.data.files:
            raise CondmixError(f"conf/{params.profile}.yaml has data.folder and data.files: remove one of them")
        check_tracked(params.data.folder, params.root)
        pack(plugin, params.root / params.data.folder, paths.archives, paths.partial)
        return
    if not params.data.files:
        raise CondmixError(
            f"conf/{params.profile}.yaml lists no data.files: nothing to fetch for {params.data.dataset}"
        )
    say_what_comes(params.data.files, paths.archives, paths.partial)
    for file in params.data.files:
        fetch(file, paths.archives, paths.partial)


def say_what_comes(files: Sequence[File], archives: Path, partial: Path) -> None:
    """Says how much is downloaded, and how much room there is, before it begins; nothing where all is there."""
    missing = [file for file in files if not (archives / file.name).exists()]
    parts = [partial / f"{file.name}.part" for file in missing]
    left = sum(file.size for file in missing) - sum(part.stat().st_size for part in parts if part.exists())
    if missing:
        folder = next(path for path in (archives, *archives.parents) if path.exists())
        print(
            f"downloads {', '.join(shown(file.name) for file in missing)}: {gigabytes(left)} in all, to "
            f"{shown(str(archives))}, where {gigabytes(shutil.disk_usage(folder).free)} are free; Ctrl-C stops it, and "
            "the next run goes on from there",
            flush=True,
        )


def gigabytes(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def draw(plugin: Any, settings: dict, archives: Path, partial: Path) -> None:
    """Draws aside and moves the finished files into place."""
    remove_folder(partial)
    plugin.draw(partial, settings)
    archives.mkdir(parents=True, exist_ok=True)
    for path in sorted(partial.iterdir()):
        os.replace(path, archives / path.name)
    partial.rmdir()


def check_tracked(folder: str, root: Path) -> None:
    """CondmixError where DVC would not notice a change in the folder."""
    stage = pipeline.read(root)["stages"].get("fetch")
    deps = stage.get("deps") if isinstance(stage, dict) else None
    if not isinstance(deps, list):
        file = root / pipeline.FILE
        raise CondmixError(f"{file}: the stage fetch lists no deps; take it back from git (git checkout {file.name})")
    if Path(folder) not in [Path(dep) for dep in deps if isinstance(dep, str)]:
        raise CondmixError(
            f'DVC does not watch {folder}: add the line "- {folder}" to the deps of the stage fetch in dvc.yaml, '
            "so that a changed picture makes the pipeline run again"
        )


def pack(plugin: Any, folder: Path, archives: Path, partial: Path) -> None:
    """Packs aside, puts the result in the place of what was there, and says what is left out."""
    if not folder.is_dir():
        raise CondmixError(f"data.folder: there is no folder {folder}")
    remove_folder(partial)
    partial.mkdir(parents=True)
    plugin.pack(folder, partial)
    remove_folder(archives)
    os.replace(partial, archives)
    remarks = list(plugin.remarks(folder))
    for what, count in Counter(what for what, _ in remarks).items():
        examples = [shown(where) for kind, where in remarks if kind == what][:EXAMPLES]
        print(f"{what}: {count} ({', '.join(examples)}{', ...' if count > EXAMPLES else ''})")
