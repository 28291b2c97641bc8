"""Finished runs of a grid -> their evidence: what reports are made of, with what made it, as one small file each.

metrics/experiments/<grid>/runs/<run>.zip holds metrics/details/experiment and recipe.json: the run's recipe, whose hash
is in the file's name, and the commit. Committed, that is all that a report needs in a clone. Pictures and captions of
data that condmix did not draw itself are left out: they are others', and a repository would publish them.

A change of code does not make a measurement untrue. So evidence stands for a run as long as what somebody declares is
the same: perspectives, fusion, seed, settings and data. Reports say which code made which run, and take differences
between runs of the same code only (condmix.experiments.findings). A setting that only one of both versions of the code
knows counts as a difference of code, unless the grid itself sets it. Where data come from (an address, a folder) is not
what they are: the archives' checksum is.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.experiments.grid import Grid, PlannedRun, cost, done, duration, git, hashed, plan
from condmix.files.artifacts import damaged, parse_json, read_json, write_checked_json
from condmix.files.atomic import replacing, scratch
from condmix.results.details import DetailsFile
from condmix.settings.plugins import plugin

DETAILS = "metrics/details/experiment"
DETAILS_FILE, REAL = "details.json", "real.npy"
RECIPE = "recipe.json"
WHERE_FROM = ("data.files", "data.folder")
LARGEST = 2**28  # bytes of one file of a run's evidence


class RunRecipe(TypedDict):
    """Everything that decides a run's result; `code` as `git ls-tree` prints it."""

    commands: dict[str, JsonValue]
    code: str
    settings: dict[str, JsonValue]
    shared: dict[str, str]


class RecipeFile(TypedDict):
    """recipe.json; `params` and `settings` are what the grid changes, as in PlannedRun."""

    commit: str
    params: dict[str, JsonValue]
    settings: dict[str, JsonValue]
    recipe: RunRecipe


@dataclass(frozen=True)
class Origin:
    """What made a run's evidence, beside what would make it now."""

    commit: str  # "" where it is not known
    code: Mapping[str, str]  # git's hash of each file or folder, and the command of each stage
    current: bool = True
    changed: tuple[str, ...] = ()  # the files, folders and stages that differ from the present ones
    unknown: tuple[str, ...] = ()  # settings that only one of both versions knows

    def agrees(self, other: Origin) -> bool:
        """Was the other made by the same code? Each has the files of its own fusion besides."""
        return all(self.code[name] == other.code[name] for name in self.code.keys() & other.code.keys())


@dataclass(frozen=True)
class Finished:
    """A finished run: metrics/experiment.json, and a local folder with the files of metrics/details/experiment."""

    experiment: str
    seed: int
    metrics: dict[str, Any]
    folder: Path
    origin: Origin


def collect(root: Path, grid: Grid, strict: bool = False) -> list[Finished]:
    """The grid's finished runs in the plan's order; of one run, what the present code made first, then the newest.

    With `strict`, only what the present code made.
    """
    references, found = done(root), []
    for run in plan(root, grid, shared=_shared(root, grid)):
        if run.name in references:
            keep(root, run, references[run.name])
        several = []
        for path, origin in origins(root, run):
            if origin.current or not strict:
                folder, metrics = read(root, path)
                origin = replace(origin, commit=origin.commit or str(metrics.get("commit", "")))
                several.append(Finished(run.experiment, run.seed, metrics, folder, origin))
        found += sorted(several, key=lambda one: (one.origin.current, _date(one.metrics)), reverse=True)
    return found


def read(root: Path, path: Path) -> tuple[Path, dict[str, Any]]:
    """A local folder with the files of a run's metrics/details/experiment, and its metrics/experiment.json."""
    folder = _unpacked(root, path)
    details: DetailsFile = read_json(folder / DETAILS_FILE, DetailsFile, _remedy(root, path))
    return folder, details["metrics"]


def is_done(root: Path, run: PlannedRun, references: Mapping[str, str]) -> bool:
    """Whether the present code made this run: it is a DVC experiment here, or its evidence lies here."""
    return run.name in references or any(origin.current for _, origin in origins(root, run))


def table(root: Path, grid: Grid, strict: bool = False) -> str:
    """The runs with their states, and what those that the present code did not make will cost."""
    runs, references = plan(root, grid, shared=_shared(root, grid)), done(root)
    missing = {run.name: run for run in runs if not is_done(root, run, references)}
    older = [] if strict else [name for name, run in missing.items() if any(origins(root, run))]
    width = max(len(run.experiment) for run in runs)

    def state(run: PlannedRun) -> str:
        return "by other code" if run.name in older else "missing" if run.name in missing else "done"

    lines = [f"{run.experiment:<{width}}  {run.seed:>4}  {state(run)}" for run in runs]
    seconds, source = cost(root, grid, runs, references)
    left = f"{len(missing)} of {len(runs)} runs are missing"
    if older:
        left += f", for {len(older)} of which reports show what other code made"
    if missing:
        left += (
            f"; what they will cost is not known: {source}"
            if seconds is None
            else f": about {duration(len(missing) * seconds)} of this machine, {duration(seconds)} each, {source}"
        )
    return "\n".join([f"{'experiment':<{width}}  seed  state", *lines, "", left])


def evidence(root: Path, run: PlannedRun) -> Path:
    """The file of the evidence that the present code makes."""
    return root / "metrics" / "experiments" / run.name.split("-")[0] / "runs" / f"{run.name}.zip"


def _shared(root: Path, grid: Grid) -> dict[str, str] | None:
    """The data that most of a grid's evidence is of, so that a clone can report which has none of them."""
    folder = root / "metrics" / "experiments" / grid.name / "runs"
    made = [recipe for path in sorted(folder.glob("*.zip")) if (recipe := read_recipe(root, path))]
    several = Counter(json.dumps(one["recipe"]["shared"], sort_keys=True) for one in made)
    return json.loads(several.most_common(1)[0][0]) if several else None


def origins(root: Path, run: PlannedRun) -> Iterator[tuple[Path, Origin]]:
    """Every file that is evidence of a run, and what made it."""
    path = evidence(root, run)
    for other in sorted(path.parent.glob(f"{run.name.rpartition('-')[0]}-????????.zip")):
        made = read_recipe(root, other)
        if other == path:  # one without a recipe was written before there were any; its name says that it is this one
            yield path, Origin(made["commit"] if made else "", code_of(run.recipe))
        elif made and (unknown := difference(made, run)) is not None:
            code, present = code_of(made["recipe"]), code_of(run.recipe)
            changed = {name for name in code.keys() | present.keys() if code.get(name) != present.get(name)}
            yield other, Origin(made["commit"], code, not (changed or unknown), tuple(sorted(changed)), unknown)


def difference(made: RecipeFile, run: PlannedRun) -> tuple[str, ...] | None:
    """The settings that only one of both recipes knows; None where they declare different things."""
    if made["recipe"]["shared"] != run.recipe["shared"]:
        return None
    before, now = (
        {name: value for name, value in _leaves(one["settings"]) if name.partition(":")[2] not in WHERE_FROM}
        for one in (made["recipe"], run.recipe)
    )
    unknown = before.keys() ^ now.keys()
    declared = [*made["params"], *run.params, *made["settings"], *run.settings]
    names = {name.partition(":")[2] for name in unknown}
    if any(before[name] != now[name] for name in before.keys() & now.keys()) or names & set(declared):
        return None
    return tuple(sorted(names))


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(name, value) of every setting; an empty section, or one that is null, is a value."""
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield name, "a section"  # so that a section and null differ
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def code_of(recipe: Mapping[str, Any]) -> dict[str, str]:
    """As `Origin.code`."""
    listed = (line.split("\t") for line in recipe["code"].splitlines())  # <mode> <kind> <hash>\t<path>
    return {path: entry for entry, path in listed} | {
        f"command of {stage}": str(command) for stage, command in recipe["commands"].items()
    }


# ---- files ----


def keep(root: Path, run: PlannedRun, reference: str) -> Path:
    """Write the evidence of a finished run out of its DVC experiment, where it does not lie yet."""
    path = evidence(root, run)
    if not path.exists():
        members = _details(root, run.name, git(root, "rev-parse", reference).strip())
        if not hasattr(plugin("datasets", dataset_of(run.recipe)), "draw"):
            members = without_data(members)
        baseline = "".join(reference.split("/")[2:4])  # refs/exps/<2 digits>/<38 digits of the commit>/<name>
        write(path, members | {RECIPE: recipe_text(run, baseline).encode()})
    return path


def dataset_of(recipe: Mapping[str, Any]) -> str:
    """The data set that a recipe's profile names."""
    (data,) = [section for name, section in recipe["settings"].items() if name.endswith(".yaml:data")]
    return str(data["dataset"])


def without_data(members: Mapping[str, bytes]) -> dict[str, bytes]:
    """A run's details without the real pictures and without a text of them."""
    details: dict[str, Any] = json.loads(members[DETAILS_FILE])
    samples = [{**sample, "captions": [], "condition_captions": []} for sample in details["samples"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DETAILS_FILE
        write_checked_json(path, {**details, "samples": samples})
        return {name: content for name, content in members.items() if name != REAL} | {DETAILS_FILE: path.read_bytes()}


def recipe_text(run: PlannedRun, commit: str) -> str:
    """recipe.json of a run that was made at a commit."""
    content = {"commit": commit, "params": run.params, "settings": run.settings, "recipe": run.recipe}
    return json.dumps(content, indent=1, sort_keys=True)


def write(path: Path, members: Mapping[str, bytes]) -> None:
    """Write evidence: the same bytes for the same members."""
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, content in sorted(members.items()):
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def read_recipe(root: Path, path: Path) -> RecipeFile | None:
    """recipe.json of evidence; None where it has none. CondmixError if it is not the recipe that the name holds."""
    with _opened(root, path) as file:
        if RECIPE not in file.namelist():
            return None
        text = file.read(RECIPE).decode("utf-8", "replace")
    made: RecipeFile = parse_json(text, RecipeFile, f"{RECIPE} in {path}", _remedy(root, path))
    if hashed(made["recipe"]) != path.stem.rpartition("-")[2]:
        raise damaged(path, f"its {RECIPE} is not the recipe that its name stands for", _remedy(root, path))
    return made


def _details(root: Path, name: str, revision: str) -> dict[str, bytes]:
    """The files of the run's details, out of DVC's cache."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    with scratch(root / ".checkpoints" / "experiments" / f".{name}") as part:
        try:
            DVCFileSystem(str(root), rev=revision).get(DETAILS, str(part), recursive=True)
        except (DvcException, FileNotFoundError) as error:
            raise CondmixError(
                f"the files of {name} are not in DVC's cache any more ({error}): "
                f"dvc exp remove {name}, and run the grid again"
            ) from None
        return {member.name: member.read_bytes() for member in (part / Path(DETAILS).name).iterdir()}


def _unpacked(root: Path, path: Path) -> Path:
    """The members of a run's evidence, in .checkpoints/experiments/<name>/: there as a whole or not at all."""
    folder = root / ".checkpoints" / "experiments" / path.stem
    if folder.exists():
        return folder
    with scratch(folder.with_name(f".{path.stem}")) as part, _opened(root, path) as file:
        for member in file.infolist():
            if member.file_size > LARGEST or Path(member.filename).name != member.filename:
                raise damaged(path, f"unexpected file {member.filename!r}", _remedy(root, path))
            (part / member.filename).write_bytes(file.read(member))
        os.replace(part, folder)
    return folder


@contextmanager
def _opened(root: Path, path: Path) -> Iterator[zipfile.ZipFile]:
    """Evidence, opened to be read; CondmixError where it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise damaged(path, str(error), _remedy(root, path)) from None


def _remedy(root: Path, path: Path) -> str:
    return f"git checkout {path.relative_to(root)}, or run the grid again"


def _date(metrics: Mapping[str, Any]) -> str:
    """When a run was evaluated, as text that sorts."""
    return str(metrics.get("environment", {}).get("date", ""))
