"""A grid of experiments, conf/experiments/<grid>.yaml -> its runs, which of them are done, and what the rest will cost.

A run is one (experiment, seed). Its name holds a hash of everything that decides its result, its recipe, so that a
change of code or settings makes it missing again, and nothing else does. Finished runs are DVC experiments in the
repository, and each leaves its evidence (condmix.experiments.evidence), with which the grid goes on in a clone, on
another machine too: the networks that all runs share count by how they are trained, not by their bits, which differ
between processors.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from condmix import CondmixError, pipeline
from condmix.files.artifacts import read_checked_json
from condmix.settings.load import load, unknown
from condmix.settings.schema import Fraction, Guidance, Name, Params, Seed, Settings, Text, sentence
from condmix.settings.yamlfile import parse_yaml, read_yaml

TARGET = "evaluate@experiment"
HEADLINE = "metrics/headline/experiment.json"
PARAMS_OK = "data/params.ok"  # the same text after every check, so what is behind it decides no result
FUSIONS, DATASETS = "src/condmix/fusions", "src/condmix/datasets"
SHARED = ("data/${profile}/archives", "data/${profile}/generated")  # made once for all runs, from what lies outside
# Stages that do nothing where this section of the profile is null, so that their code decides nothing there either.
OPTIONAL = {"generate_captions": "generated", "prior": "prior"}
MESSAGE = "condmix experiments: {seconds:.0f} s, {jobs} at a time"
MESSAGE_RE = re.compile(r"condmix experiments: (\d+) s, (\d+) at a time")

PROCESSES = ("train.processes", "evaluate.processes")  # for `-j` to decide; they change results by rounding alone

Declared = TypeVar("Declared", bound=Settings)
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # it becomes part of a git reference


class Experiment(Settings):
    """One line of the comparison: what the model is told, how it is merged, and what that is compared with."""

    says: Name
    perspectives: Annotated[tuple[Text, ...], Field(min_length=1)]
    fusion: Text
    # What a line leaves out is no value of a setting, but that it changes nothing there.
    guidance: Guidance | None = None  # null: params.yaml's
    settings: dict[Text, Any] = {}  # dotted keys of conf/<profile>.yaml, over the grid's
    against: Text | None = None  # null: the grid's baseline
    also_against: tuple[Text, ...] = ()  # further ones that it is compared with
    control: Text | None = None  # what this control would rule out
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] | None = None  # null: the grid's


class Grid(Settings):
    """A checked conf/experiments/<name>.yaml."""

    name: Identifier
    profile: Name
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    baseline: Text
    settings: dict[Text, Any] = {}  # dotted keys of conf/<profile>.yaml, for all runs
    wrong: dict[Text, tuple[Fraction, ...]] = {}  # for a source, such as caption_2: shares that are wrong in evaluation
    experiments: Annotated[dict[Identifier, Experiment], Field(min_length=1)]

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The grid's seeds, then those that single experiments have besides."""
        own = (seed for experiment in self.experiments.values() for seed in experiment.seeds or ())
        return tuple(dict.fromkeys([*self.seeds, *own]))

    def seeds_of(self, experiment: str) -> tuple[int, ...]:
        return self.experiments[experiment].seeds or self.seeds

    @property
    def places(self) -> list[tuple[str, int]]:
        """(experiment, seed) of every run, seeds outermost, so that a partial grid has whole seeds."""
        return [(name, seed) for seed in self.every_seed for name in self.experiments if seed in self.seeds_of(name)]


StageOutput = str | Annotated[dict[str, Any], Field(min_length=1)]


class Stage(BaseModel):
    """What is read of a stage of dvc.yaml."""

    model_config = ConfigDict(extra="allow")
    cmd: str | list[str]
    deps: list[str] = []
    params: list[str | dict[str, list[str] | None]] = []
    outs: list[StageOutput] = []
    metrics: list[StageOutput] = []


class Pipeline(BaseModel):
    """dvc.yaml."""

    stages: dict[str, Stage]


class LockedFile(BaseModel):
    """A file or folder of dvc.lock."""

    path: str
    md5: str | None = None


class LockedStage(BaseModel):
    """A stage of dvc.lock."""

    deps: list[LockedFile] = []
    outs: list[LockedFile] = []


class Lock(BaseModel):
    """dvc.lock."""

    stages: dict[str, LockedStage]


@dataclass(frozen=True)
class PlannedRun:
    """One cell of the grid; `params` are changes of params.yaml, `settings` of conf/<profile>.yaml (dotted keys)."""

    name: str  # <grid>-<experiment>-<seed>-<8 hex digits of everything that decides the result>
    experiment: str
    seed: int
    profile: str
    params: Mapping[str, Any]
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]  # what the digits are the hash of


def read_grid(root: Path, name: str) -> Grid:
    """The grid `name` of the project in `root`; CondmixError names the first thing that is wrong with it."""
    where, grid = f"conf/experiments/{name}.yaml", read_declared(root, "experiments", name, Grid)
    names = list(grid.experiments)
    for key, given in [
        ("baseline", grid.baseline),
        *((f"experiments.{one}.against", e.against) for one, e in grid.experiments.items() if e.against),
        *(
            (f"experiments.{one}.also_against", other)
            for one, e in grid.experiments.items()
            for other in e.also_against
        ),
    ]:
        if given not in names:
            raise CondmixError(unknown("experiment", given, names, f"{where}: {key}"))
    own = {f"experiments.{one}.seeds": e.seeds for one, e in grid.experiments.items() if e.seeds}
    for key, seeds in {"seeds": grid.seeds, **own}.items():
        if len(set(seeds)) < len(seeds):
            raise CondmixError(f"{where}: {key} names one twice: {', '.join(map(str, seeds))}")
    for settings in (grid.settings, *(experiment.settings for experiment in grid.experiments.values())):
        refuse_processes(settings, where)
    return grid


def read_declared(root: Path, folder: str, name: str, model: type[Declared]) -> Declared:
    """conf/<folder>/<name>.yaml, checked; CondmixError names the first thing that is wrong with it."""
    what, names = model.__name__.lower(), sorted(path.stem for path in (root / "conf" / folder).glob("*.yaml"))
    if name not in names:
        raise CondmixError(unknown(what, name, names, where=f"conf/{folder}"))
    where = f"conf/{folder}/{name}.yaml"
    content = read_yaml(root / where, where)
    if "name" in content:
        raise CondmixError(f"{where}: a {what} is named by its file; leave out name")
    try:
        return model.model_validate({"name": name, **content})
    except ValidationError as error:
        raise CondmixError(sentence(error.errors()[0], model, where)) from None


def refuse_processes(keys: Iterable[str], where: str) -> None:
    """CondmixError where a file sets how many processes a run has."""
    for key in PROCESSES:
        if key in keys:
            raise CondmixError(f"{where}: leave out {key}; `-j` of the command decides it")


@dataclass(frozen=True)
class Baseline:
    """A commit that runs start from: params.yaml, the profile's settings, dvc.yaml and dvc.lock as it has them.

    `shared` is what the runs share, as in a recipe, for a commit whose dvc.lock is of another profile.
    """

    root: Path
    commit: str
    profile: str
    files: Mapping[str, Any]
    shared: Mapping[str, str] | None = None

    @classmethod
    def read(cls, root: Path, commit: str, profile: str, where: str) -> Baseline:
        """CondmixError where a file is missing or damaged; `where` names the profile."""
        if not (root / "conf" / f"{profile}.yaml").exists():
            names = sorted(path.stem for path in (root / "conf").glob("*.yaml"))
            raise CondmixError(unknown("profile", profile, names, where))
        files = {path: _yaml_at(root, commit, path) for path in ("params.yaml", f"conf/{profile}.yaml")}
        schemas: dict[str, type[BaseModel]] = {"dvc.yaml": Pipeline, "dvc.lock": Lock}
        for path, kind in schemas.items():
            try:
                files[path] = kind.model_validate(_yaml_at(root, commit, path)).model_dump()
            except ValidationError as error:
                problem = error.errors()[0]
                key = ".".join(map(str, problem["loc"]))
                raise CondmixError(
                    f"{path} at {commit} is not what DVC writes ({key}: {problem['msg']}); restore it and commit"
                ) from None
        return cls(root, commit, profile, files)

    def checked(self, params: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> Params:
        """The settings with these changes, as `condmix check` accepts them; else its sentence, after `where`."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            try:
                self.write(folder, params, settings)
                return load(folder)
            except CondmixError as error:
                raise CondmixError(f"{where}: {error}") from None

    def write(self, folder: Path, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """params.yaml and conf/<profile>.yaml with these changes."""
        for path in ("params.yaml", f"conf/{self.profile}.yaml"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(yaml.safe_dump(self.files[path]))
        write_changes(folder, self.profile, params, settings)

    def run(self, group: str, experiment: str, params: Mapping[str, Any], settings: Mapping[str, Any]) -> PlannedRun:
        """A run of a grid or search, with its name; `params` holds the fusion and the seed."""
        recipe = _recipe(self, params, settings)
        name = f"{group}-{experiment}-{params['seed']}-{hashed(recipe)}"
        return PlannedRun(name, experiment, params["seed"], self.profile, params, settings, recipe)


def plan(root: Path, grid: Grid, commit: str = "HEAD", shared: Mapping[str, str] | None = None) -> list[PlannedRun]:
    """All runs of a grid at a commit, in the order of `Grid.places`.

    CondmixError for a setting or name that does not exist, and where the commit has no reproduced baseline, unless
    `shared` says what runs share.
    """
    where = f"conf/experiments/{grid.name}.yaml"
    baseline = replace(Baseline.read(root, commit, grid.profile, where), shared=shared)
    for name, experiment in grid.experiments.items():
        baseline.checked(*_changes(grid, experiment, grid.seeds[0]), f"{where}: {name}")
    return [baseline.run(grid.name, name, *_changes(grid, grid.experiments[name], seed)) for name, seed in grid.places]


def hashed(recipe: Mapping[str, Any]) -> str:
    """The digits of a run's name."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def done(root: Path) -> dict[str, str]:
    """Names of all DVC experiments -> their git references, whichever commit they hang on."""
    references = git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    # refs/exps/<2 digits>/<38 digits of the baseline>/<name>; what has fewer parts is DVC's own
    return {reference.split("/")[4]: reference for reference in references if reference.count("/") == 4}


class Cost(TypedDict):
    """What a model's card and an evaluation's metrics say of the time that they took."""

    profile: NotRequired[str]
    seconds: NotRequired[float]
    images_seen: NotRequired[Annotated[int, Field(ge=0)]]
    n: NotRequired[Annotated[int, Field(ge=1)]]


def cost(
    root: Path, grid: Grid, runs: Sequence[PlannedRun], references: Mapping[str, str]
) -> tuple[float, str] | tuple[None, str]:
    """Seconds that a run takes of the whole machine, and from what they were predicted.

    A run that shared the machine with others counts its share; one of another machine does not count. Before any run
    of the grid is finished, the reproduced variants' models and metrics tell, scaled by train.images and evaluate.n.
    """
    shares = []
    for run in runs:
        if run.name in references:
            said = MESSAGE_RE.search(git(root, "log", "-1", "--format=%B", references[run.name]))
            if said:
                shares.append(int(said[1]) / int(said[2]))
    if shares:
        return statistics.median(shares), f"by the median of {len(shares)} finished runs"

    settings = _yaml_at(root, "HEAD", f"conf/{grid.profile}.yaml")
    images = runs[0].settings.get("train.images", _value(settings, "train.images"))
    pictures = runs[0].settings.get("evaluate.n", _value(settings, "evaluate.n"))
    training, evaluation, used = [], [], []
    for path in sorted(root.glob("models/*/model.json")):
        card = read_checked_json(path, Cost, f"dvc repro train@{path.parent.name}")
        if card.get("profile") != grid.profile or not card.get("images_seen") or "seconds" not in card:
            continue
        used.append(path.parent.name)
        training.append(card["seconds"] / card["images_seen"] * images)
        metrics = root / "metrics" / f"{path.parent.name}.json"
        found = read_checked_json(metrics, Cost, f"dvc repro evaluate@{path.parent.name}") if metrics.exists() else {}
        if "seconds" in found and "n" in found:
            evaluation.append(found["seconds"] / found["n"] * pictures)
    if not training:
        return None, f"no run has been made on this machine, and models/ holds no model of profile {grid.profile}"
    source = f"scaled from {', '.join(used)}"
    if not evaluation:
        return statistics.median(training), f"{source}, training alone: no metrics say how long judging took"
    return statistics.median(training) + statistics.median(evaluation), source


def _changes(grid: Grid, experiment: Experiment, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a run changes in params.yaml, and, under dotted keys, in conf/<profile>.yaml."""
    params = {
        "profile": grid.profile,
        "fusion": experiment.fusion,
        "perspectives": list(experiment.perspectives),
        "seed": seed,
    }
    if experiment.guidance is not None:
        params["guidance"] = experiment.guidance
    return params, {**grid.settings, **experiment.settings}


def write_changes(folder: Path, profile: str, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Set values in params.yaml and conf/<profile>.yaml, as `dvc exp run -S` does: comments stay."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(folder / "params.yaml") as content:
        content.update(params)
    with modify_yaml(folder / "conf" / f"{profile}.yaml") as content:
        for key, value in settings.items():
            *sections, last = key.split(".")
            section = content
            for part in sections:
                section = section.setdefault(part, {})
                if not isinstance(section, dict):
                    raise CondmixError(f"{key} is no setting: {part} is not a section")
            section[last] = value


def _recipe(baseline: Baseline, params: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides a run's result, stage by stage, as DVC sees it: commands, code, settings, shared inputs.

    So a commit that changes the report, the documents or another fusion leaves a finished run finished.
    """
    profile, files, conf = baseline.profile, baseline.files, f"conf/{baseline.profile}.yaml"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        baseline.write(folder, params, settings)
        values = {path: yaml.safe_load((folder / path).read_text()) for path in ("params.yaml", conf)}
    for stage in ("train", "evaluate"):  # see PROCESSES
        values[conf].get(stage, {}).pop("processes", None)

    def expand(text: str) -> str:
        return text.replace("${profile}", profile).replace("${item.variant}", "experiment")

    stages = {
        name: files["dvc.yaml"]["stages"][name]
        for name in _stages_behind(files["dvc.yaml"], TARGET)
        if name not in OPTIONAL or _value(values[conf], OPTIONAL[name]) is not None
    }
    code = {dep for stage in stages.values() for dep in stage["deps"] if dep.startswith("src/")}
    if FUSIONS in code:  # each run has one, and a model knows its fusion's code by its hash
        code = code - {FUSIONS} | {f"{FUSIONS}/__init__.py", f"{FUSIONS}/{params['fusion']}.py"}
    if DATASETS in code:  # the same of data sets
        reader = pipeline.closure(f"datasets/{values[conf]['data']['dataset']}.py", pipeline.NEUTRAL)
        code = code - {DATASETS} | {f"src/condmix/{name}" for name in reader}
    chosen: dict[str, Any] = {}
    for stage in stages.values():
        for entry in stage.get("params", []):
            for path, keys in {"params.yaml": [entry]}.items() if isinstance(entry, str) else entry.items():
                chosen |= {f"{expand(path)}:{key}": _value(values[expand(path)], key) for key in keys}
    return {
        "commands": {name: stage["cmd"] for name, stage in stages.items()},
        "code": git(baseline.root, "ls-tree", baseline.commit, "--", *sorted(code)),
        "settings": chosen,
        "shared": _shared(baseline, stages),
    }


def _stages_behind(dvc_yaml: Mapping[str, Any], target: str) -> list[str]:
    """The stages of dvc.yaml on which a target's result depends, itself among them."""
    made = {}
    for name, stage in dvc_yaml["stages"].items():
        for output in [*stage.get("outs", []), *stage.get("metrics", [])]:
            made[output if isinstance(output, str) else next(iter(output))] = name
    found: list[str] = []
    pending = [target.split("@")[0]]
    while pending:
        name = pending.pop()
        if name not in dvc_yaml["stages"]:
            raise CondmixError(f"dvc.yaml has no stage {name}, which the runs of a grid need")
        if name not in found:
            found.append(name)
            pending += [made[dep] for dep in dvc_yaml["stages"][name]["deps"] if dep in made and dep != PARAMS_OK]
    return sorted(found)


def _shared(baseline: Baseline, stages: Mapping[str, Any]) -> dict[str, str]:
    """MD5 of what all runs share and code and settings do not determine to the bit.

    That is the archives (a folder of one's own may change), and what a captioner wrote.
    """
    profile, lock = baseline.profile, baseline.files["dvc.lock"]
    found: dict[str, str] = {}
    for name, stage in stages.items():
        outputs = [output if isinstance(output, str) else next(iter(output)) for output in stage.get("outs", [])]
        kept = [output.replace("${profile}", profile) for output in outputs if output.startswith(SHARED)]
        if "matrix" in stage or not kept:
            continue
        entry = lock.get("stages", {}).get(name, {})
        made = {output["path"]: output["md5"] for output in entry.get("outs", [])}
        inputs = [dep["path"] for dep in entry.get("deps", []) if dep["path"].startswith("data/")]
        if not set(kept) <= made.keys() or not all(path.startswith((f"data/{profile}/", PARAMS_OK)) for path in inputs):
            if baseline.shared is not None:
                return dict(baseline.shared)
            raise CondmixError(
                f"dvc.lock at HEAD holds no {kept[0]} of profile {profile}, which all runs share: "
                "set the profile in params.yaml, run dvc repro embed, and commit"
            )
        found |= {path: made[path] for path in kept}
    return found


def _yaml_at(root: Path, commit: str, path: str) -> dict[str, Any]:
    try:
        content = git(root, "show", f"{commit}:{path}")
    except CondmixError:
        raise CondmixError(f"{path} is not committed, and runs start from the commit") from None
    return parse_yaml(content, f"{path} at {commit}")


def git(root: Path, *arguments: str) -> str:
    """What git prints in `root`; CondmixError as `call`."""
    return call(root, "git", *arguments)


def call(folder: Path, *command: str) -> str:
    """What a command prints; CondmixError with what it complains about if it fails."""
    found = subprocess.run(on_path(list(command)), cwd=folder, capture_output=True, text=True, errors="replace")
    if found.returncode:
        raise CondmixError(f"{' '.join(command[:3])} failed in {folder}: {' '.join(found.stderr.split())}")
    return found.stdout


def on_path(command: list[str]) -> list[str]:
    """The command, with DVC as this Python's own: no activated environment is needed."""
    return [sys.executable, "-m", *command] if command[0] == "dvc" else command


def duration(seconds: float) -> str:
    """A length of time for people, as in "17 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    found: Any = settings
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
