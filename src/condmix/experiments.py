"""A grid of experiments, conf/experiments/<grid>.yaml -> one DVC experiment per (experiment, seed), and their page.

Each run takes place in a clone of its own, made at the commit that was HEAD when the grid started: `dvc repro`
of the stage evaluate@experiment, `dvc exp save`, and a fetch of the experiment's reference into the repository, as
the last step: a run is either there as a whole or not at all. `dvc exp show --all-commits` lists the runs like any
other experiment. The clones share the repository's DVC cache, checkpoints and MLflow store, so an interrupted run goes
on where it was: finished stages come from DVC's run cache, a training from its checkpoint.

Why not `dvc exp run --temp`: it stashes what is uncommitted, detaches HEAD, and resets the tree for a moment. Over
hours of runs that would lose somebody's edit, and a kill in that moment leaves the repository so. Its stash has one
entry for all: runs that start together can take each other's, and what a killed one leaves there runs next, under
the old name. `dvc queue` goes through the same stash when it queues.

Results depend on how many processes a run has up to rounding; that is the cores divided by the runs at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError
from tqdm import tqdm

from condmix import CondmixError
from condmix.config import Settings, load, unknown

TARGET = "evaluate@experiment"
DETAILS = "metrics/details/experiment"
METRICS = "metrics/experiment.json"
LOSSES = "metrics/losses/experiment.csv"
PARAMS_OK = "data/params.ok"  # the same text after every check, so what is behind it decides no result
FUSIONS = "src/condmix/fusions"
MESSAGE = "condmix experiments: {seconds:.0f} s, {jobs} at a time"
MESSAGE_RE = re.compile(r"condmix experiments: (\d+) s, (\d+) at a time")
GRACE = 10  # seconds that an interrupted run has for ending by itself

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # it becomes part of a git reference


class Experiment(Settings):
    """One line of the comparison: what the model is told, how it is merged, and what that is compared with."""

    says: Annotated[str, Field(min_length=1)]
    perspectives: Annotated[tuple[str, ...], Field(min_length=1)]
    fusion: str
    guidance: float | None = None  # null: params.yaml's
    settings: dict[str, Any] = {}  # dotted keys of conf/<profile>.yaml, over the grid's
    against: str | None = None  # null: the grid's baseline
    control: str | None = None  # what this control would rule out


class Grid(Settings):
    """A checked conf/experiments/<name>.yaml."""

    name: Identifier
    profile: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    baseline: str
    settings: dict[str, Any] = {}  # dotted keys of conf/<profile>.yaml, for all runs
    experiments: Annotated[dict[Identifier, Experiment], Field(min_length=1)]


@dataclass(frozen=True)
class Run:
    """One cell of the grid; `params` are changes of params.yaml, `settings` of conf/<profile>.yaml (dotted keys)."""

    name: str  # <grid>-<experiment>-<seed>-<8 hex digits of everything that decides the result>
    experiment: str
    seed: int
    profile: str
    params: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Finished:
    """A finished run: metrics/experiment.json, and a local folder with the files of metrics/details/experiment."""

    experiment: str
    seed: int
    metrics: dict[str, Any]
    folder: Path


def read_grid(root: Path, name: str) -> Grid:
    """The grid `name` of the project in `root`; CondmixError names the first thing that is wrong with it."""
    folder = root / "conf" / "experiments"
    grids = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in grids:
        raise CondmixError(unknown("grid", name, grids, where="conf/experiments"))
    where = f"conf/experiments/{name}.yaml"
    try:
        content = yaml.safe_load((root / where).read_text())
    except yaml.YAMLError as error:
        raise CondmixError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise CondmixError(f"{where} must be a mapping of settings, not {type(content).__name__}")
    try:
        grid = Grid(name=name, **content)
    except ValidationError as error:
        raise CondmixError(_first_problem(error, where)) from None
    names = list(grid.experiments)
    for key, given in [
        ("baseline", grid.baseline),
        *((f"experiments.{one}.against", e.against) for one, e in grid.experiments.items() if e.against),
    ]:
        if given not in names:
            raise CondmixError(unknown("experiment", given, names, f"{where}: {key}"))
    if len(set(grid.seeds)) < len(grid.seeds):
        raise CondmixError(f"{where}: seeds names one twice: {', '.join(map(str, grid.seeds))}")
    for settings in (grid.settings, *(experiment.settings for experiment in grid.experiments.values())):
        for key in ("train.processes", "evaluate.processes"):
            if key in settings:
                raise CondmixError(f"{where}: leave out {key}; `condmix experiments run -j` decides it")
    return grid


def plan(root: Path, grid: Grid, commit: str = "HEAD") -> list[Run]:
    """All runs of a grid at a commit, seeds outermost, so that a partial grid has whole seeds.

    CondmixError for a setting or name that does not exist, and where the commit has no reproduced baseline.
    """
    files = {
        path: _yaml_at(root, commit, path)
        for path in ("dvc.yaml", "dvc.lock", "params.yaml", f"conf/{grid.profile}.yaml")
    }
    for name, experiment in grid.experiments.items():
        _check(grid, name, _changes(grid, experiment, grid.seeds[0]), files)
    runs = []
    for seed in grid.seeds:
        for name, experiment in grid.experiments.items():
            params, settings = _changes(grid, experiment, seed)
            decides = json.dumps(_recipe(root, commit, grid.profile, params, settings, files), sort_keys=True)
            digest = hashlib.sha256(decides.encode()).hexdigest()[:8]
            runs.append(Run(f"{grid.name}-{name}-{seed}-{digest}", name, seed, grid.profile, params, settings))
    return runs


def done(root: Path) -> dict[str, str]:
    """Names of all DVC experiments -> their git references, whichever commit they hang on."""
    references = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    # refs/exps/<2 digits>/<38 digits of the baseline>/<name>; what has fewer parts is DVC's own
    return {reference.split("/")[4]: reference for reference in references if reference.count("/") == 4}


def collect(root: Path, grid: Grid) -> list[Finished]:
    """The grid's finished runs, in the plan's order; their files are fetched from DVC's cache once."""
    references = done(root)
    found = []
    for run in plan(root, grid):
        if run.name in references:
            revision = _git(root, "rev-parse", references[run.name]).strip()
            metrics = json.loads(_git(root, "show", f"{revision}:{METRICS}"))
            found.append(Finished(run.experiment, run.seed, metrics, _details(root, run.name, revision)))
    return found


def report(root: Path, grid: Grid) -> Path:
    """Write metrics/experiments/<grid>/ from what is finished; returns the folder."""
    from condmix import evidence

    finished = collect(root, grid)
    if not finished:
        raise CondmixError(f"no run of grid {grid.name} is finished: condmix experiments run --grid {grid.name}")
    folder = root / "metrics" / "experiments" / grid.name
    evidence.write(grid, finished, folder=folder)
    return folder


def table(root: Path, grid: Grid) -> str:
    """The runs with their states, and what the missing ones will cost."""
    runs, references = plan(root, grid), done(root)
    width = max(len(run.experiment) for run in runs)
    lines = [
        f"{run.experiment:<{width}}  {run.seed:>4}  {'done' if run.name in references else 'missing'}" for run in runs
    ]
    missing = sum(run.name not in references for run in runs)
    seconds, source = cost(root, grid, runs, references)
    left = f"{missing} of {len(runs)} runs are missing"
    if seconds is None:
        left += f"; what they will cost is not known: {source}"
    elif missing:
        left += f": about {_duration(missing * seconds)} of this machine, {_duration(seconds)} each, {source}"
    return "\n".join([f"{'experiment':<{width}}  seed  state", *lines, "", left])


def cost(
    root: Path, grid: Grid, runs: Sequence[Run], references: Mapping[str, str]
) -> tuple[float, str] | tuple[None, str]:
    """Seconds that a run takes of the whole machine, and from what they were predicted.

    A run that shared the machine with others counts its share. Before any run of the grid is finished, the
    reproduced variants' models and metrics tell, scaled by train.images and evaluate.n.
    """
    shares = []
    for run in runs:
        if run.name in references:
            said = MESSAGE_RE.search(_git(root, "log", "-1", "--format=%B", references[run.name]))
            if said:
                shares.append(int(said[1]) / int(said[2]))
    if shares:
        return statistics.median(shares), f"by the median of {len(shares)} finished runs"

    settings = _yaml_at(root, "HEAD", f"conf/{grid.profile}.yaml")
    images = runs[0].settings.get("train.images", _value(settings, "train.images"))
    pictures = runs[0].settings.get("evaluate.n", _value(settings, "evaluate.n"))
    training, evaluation, used = [], [], []
    for path in sorted(root.glob("models/*/model.json")):
        card = json.loads(path.read_text())
        if card.get("profile") != grid.profile or not card.get("images_seen"):
            continue
        used.append(path.parent.name)
        training.append(card["seconds"] / card["images_seen"] * images)
        metrics = root / "metrics" / f"{path.parent.name}.json"
        found = json.loads(metrics.read_text()) if metrics.exists() else {}
        if "seconds" in found:
            evaluation.append(found["seconds"] / found["n"] * pictures)
    if not training:
        return None, f"no run is finished, and no model of profile {grid.profile} lies in models/"
    source = f"scaled from {', '.join(used)}"
    if not evaluation:
        return statistics.median(training), f"{source}, training alone: no metrics say how long judging took"
    return statistics.median(training) + statistics.median(evaluation), source


class Runner:
    """Runs what is missing, `jobs` at a time; a kill at any moment loses nothing that is finished."""

    def __init__(self, root: Path, grid: Grid, jobs: int):
        self.root, self.grid, self.jobs = root.resolve(), grid, jobs
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        # Runs of one process exchange no gradients, so side by side they waste the least of the cores.
        self.processes = max(1, cores // jobs)
        self.work = self.root / ".dvc" / "tmp" / "grid"  # ignored by git and DVC
        self.logs = self.root / ".checkpoints" / "logs"
        self._children: set[subprocess.Popen] = set()
        self._stopped = threading.Event()
        self._guard = threading.Lock()  # of the children, and of the repository's references

    def run(self) -> None:
        """All missing runs; CondmixError at the end if some failed, or where the commit is not what would run."""
        self.commit = _git(self.root, "rev-parse", "HEAD").strip()
        _refuse_uncommitted(self.root)
        runs, references = plan(self.root, self.grid, self.commit), done(self.root)
        missing = [run for run in runs if run.name not in references]
        for folder in (self.work, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.cache = Path(_call(self.root, "dvc", "cache", "dir").strip())
        self._remove_left_clones()
        predicted = cost(self.root, self.grid, runs, references)[0]
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            failed = self._run_all(missing, predicted)
        finally:
            signal.signal(signal.SIGTERM, before)
        if failed:
            raise CondmixError(f"{len(failed)} of {len(missing)} runs failed: {', '.join(run.name for run in failed)}")

    def _run_all(self, missing: list[Run], predicted: float | None) -> list[Run]:
        """The runs that failed."""
        failed, shares = [], [] if predicted is None else [predicted]
        pool = ThreadPoolExecutor(self.jobs)
        with tqdm(total=len(missing), unit="run", bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} runs{postfix}") as bar:
            _say_left(bar, shares)
            try:
                futures = {pool.submit(self._one, run): run for run in missing}
                for future in as_completed(futures):
                    run, error = futures[future], future.exception()
                    if error is None:
                        shares.append(future.result() / self.jobs)
                        tqdm.write(f"{run.name}: done in {_duration(future.result())}", file=sys.stderr)
                    elif isinstance(error, CondmixError):
                        failed.append(run)
                        tqdm.write(f"\n{run.name} failed\n{error}\n", file=sys.stderr)
                    else:
                        raise error
                    bar.update()
                    _say_left(bar, shares)
            except KeyboardInterrupt:
                raise CondmixError(
                    "stopped; finished runs stay, and the same command goes on with the others"
                ) from None
            finally:
                self._stopped.set()
                self._end_children()
                pool.shutdown(cancel_futures=True)
        return failed

    def _one(self, run: Run) -> float:
        """One run in a clone of its own; returns the seconds it took, CondmixError with its last lines if it fails."""
        log = self.logs / f"{run.name}.log"
        with self._alone(run) as lock, open(log, "wb") as output:
            started = time.monotonic()
            if run.name in done(self.root):  # finished by somebody else while this one waited
                return 0.0
            clone = self.work / run.name
            shutil.rmtree(clone, ignore_errors=True)
            try:
                self._clone(run, clone)
                environment = self._environment(run)
                # `dvc repro` alone would fetch and embed again: it does not look for persistent outputs in the cache.
                checkout = ["dvc", "checkout", "-q", "--force", "--allow-missing", "--with-deps", TARGET]
                for command in (checkout, ["dvc", "repro", TARGET]):
                    self._child(command, clone, environment, output, lock)
                message = MESSAGE.format(seconds=time.monotonic() - started, jobs=self.jobs)
                save = ["dvc", "exp", "save", "-n", run.name, "-m", message, "-I", METRICS, "-I", LOSSES, TARGET]
                self._child(save, clone, environment, output, lock)
                with self._guard:
                    reference = done(clone)[run.name]
                    fetch = ("fetch", "-q", "--no-write-fetch-head", "--no-tags", str(clone))
                    _git(self.root, *fetch, f"{reference}:{reference}")
            finally:
                shutil.rmtree(clone, ignore_errors=True)
            return time.monotonic() - started

    def _clone(self, run: Run, clone: Path) -> None:
        """The repository at the grid's commit, with the run's params, on the same cache."""
        _git(self.root, "clone", "-q", "--shared", "--no-checkout", str(self.root), str(clone))
        _git(clone, "checkout", "-q", "--detach", self.commit)
        for key in ("user.name", "user.email"):  # `dvc exp save` fails without; a clone has not the repository's own
            _git(clone, "config", key, _git(self.root, "config", "--default", "condmix", "--get", key).strip())
        local = self.root / ".dvc" / "config.local"
        if local.exists():
            shutil.copy(local, clone / ".dvc" / "config.local")
        _call(clone, "dvc", "config", "--local", "cache.dir", str(self.cache))
        processes = {"train.processes": self.processes, "evaluate.processes": self.processes}
        _write_changes(clone, run.profile, run.params, {**run.settings, **processes})

    def _environment(self, run: Run) -> dict[str, str]:
        return {
            **os.environ,
            "OMP_NUM_THREADS": str(self.processes),  # a stage that starts several processes shares these out
            "DVC_ROOT": str(self.root),  # checkpoints and MLflow's runs go where they outlive the clone
            "DVC_EXP_NAME": run.name,
            "DVC_EXP_BASELINE_REV": self.commit,
        }

    def _child(self, command: list[str], folder: Path, environment: dict[str, str], log: Any, lock: int) -> None:
        """Run a command in a process group of its own; CondmixError with its last lines if it fails."""
        with self._guard:
            if self._stopped.is_set():
                raise CondmixError("stopped before it began")
            # The child inherits the lock, so that a run which outlives a killed runner is still known to go on.
            child = subprocess.Popen(
                _on_path(command),
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock,),
            )
            self._children.add(child)
        code = child.wait()
        self._children.discard(child)
        if code:
            last = Path(log.name).read_text(errors="replace").strip().splitlines()[-15:]
            quoted = "\n".join(f"  {line}" for line in last)
            raise CondmixError(
                f"{' '.join(command[:3])} ended with status {code}; its last lines (all: {log.name}):\n{quoted}"
            )

    def _end_children(self) -> None:
        """Interrupt what still runs, with time to record it as stopped, then end it."""
        with self._guard:
            children = list(self._children)
        for end in (signal.SIGINT, signal.SIGKILL):
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, end)
            for child in children:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE)

    @contextlib.contextmanager
    def _alone(self, run: Run) -> Iterator[int]:
        """The descriptor of the run's lock; waits for a process that a killed runner left at the same run."""
        with open(self.work / f"{run.name}.lock", "w") as file:
            said = False
            while not _try_lock(file.fileno()):
                if not said:
                    tqdm.write(f"{run.name}: waits for a process of another runner to end", file=sys.stderr)
                    said = True
                if self._stopped.wait(1):
                    raise CondmixError("stopped before it began")
            yield file.fileno()

    def _remove_left_clones(self) -> None:
        """Delete the clones of killed runs, which may never be started again, but none that is in use."""
        for clone in (path for path in self.work.iterdir() if path.is_dir()):
            with open(self.work / f"{clone.name}.lock", "w") as file:
                if _try_lock(file.fileno()):
                    shutil.rmtree(clone, ignore_errors=True)


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


def _check(grid: Grid, name: str, changes: tuple[dict[str, Any], dict[str, Any]], files: Mapping[str, Any]) -> None:
    """The changed settings must be what `condmix check` accepts; else its sentence, and which experiment it is of."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in ("params.yaml", f"conf/{grid.profile}.yaml"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(yaml.safe_dump(files[path]))
        try:
            _write_changes(folder, grid.profile, *changes)
            load(folder)
        except CondmixError as error:
            raise CondmixError(f"conf/experiments/{grid.name}.yaml: {name}: {error}") from None


def _write_changes(folder: Path, profile: str, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
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


def _recipe(
    root: Path,
    commit: str,
    profile: str,
    params: Mapping[str, Any],
    settings: Mapping[str, Any],
    files: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that decides a run's result, stage by stage, as DVC sees it: commands, code, settings, networks.

    So a commit that changes the report, the documents or another fusion leaves a finished run finished.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder, conf = Path(scratch), f"conf/{profile}.yaml"
        (folder / "conf").mkdir()
        for path in ("params.yaml", conf):
            (folder / path).write_text(yaml.safe_dump(files[path]))
        _write_changes(folder, profile, params, settings)
        values = {path: yaml.safe_load((folder / path).read_text()) for path in ("params.yaml", conf)}
    for stage in ("train", "evaluate"):  # for the runner to decide; they change results by rounding alone
        values[conf].get(stage, {}).pop("processes", None)

    def expand(text: str) -> str:
        return text.replace("${profile}", profile).replace("${item.variant}", "experiment")

    stages = {name: files["dvc.yaml"]["stages"][name] for name in _stages_behind(files["dvc.yaml"], TARGET)}
    code = {dep for stage in stages.values() for dep in stage["deps"] if dep.startswith("src/")}
    if FUSIONS in code:  # each run has one, and a model knows its fusion's code by its hash
        code = code - {FUSIONS} | {f"{FUSIONS}/__init__.py", f"{FUSIONS}/{params['fusion']}.py"}
    chosen: dict[str, Any] = {}
    for stage in stages.values():
        for entry in stage.get("params", []):
            for path, keys in {"params.yaml": [entry]}.items() if isinstance(entry, str) else entry.items():
                chosen |= {f"{expand(path)}:{key}": _value(values[expand(path)], key) for key in keys}
    return {
        "commands": {name: stage["cmd"] for name, stage in stages.items()},
        "code": _git(root, "ls-tree", commit, "--", *sorted(code)),
        "settings": chosen,
        "networks": _networks(profile, stages, files["dvc.lock"]),
    }


def _stages_behind(pipeline: Mapping[str, Any], target: str) -> list[str]:
    """The stages of dvc.yaml on which a target's result depends, itself among them."""
    made = {}
    for name, stage in pipeline["stages"].items():
        for output in [*stage.get("outs", []), *stage.get("metrics", [])]:
            made[output if isinstance(output, str) else next(iter(output))] = name
    found: list[str] = []
    pending = [target.split("@")[0]]
    while pending:
        name = pending.pop()
        if name not in found:
            found.append(name)
            pending += [made[dep] for dep in pipeline["stages"][name]["deps"] if dep in made and dep != PARAMS_OK]
    return sorted(found)


def _networks(profile: str, stages: Mapping[str, Any], lock: Mapping[str, Any]) -> dict[str, str]:
    """MD5 of the trained networks that all runs share (CLIP, judge): code does not determine them to the bit."""
    found = {}
    for name, stage in stages.items():
        outputs = [
            output for output in stage.get("outs", []) if isinstance(output, str) and output.startswith("models/")
        ]
        if "matrix" in stage or not outputs:
            continue
        entry = lock.get("stages", {}).get(name, {"deps": [], "outs": []})
        if not any(dep["path"].startswith(f"data/{profile}/") for dep in entry["deps"]):
            raise CondmixError(
                f"dvc.lock at HEAD holds no {outputs[0]} of profile {profile}, which all runs share: "
                "set the profile in params.yaml, run dvc repro embed judge, and commit"
            )
        found |= {output["path"]: output["md5"] for output in entry["outs"]}
    return found


def _details(root: Path, name: str, revision: str) -> Path:
    """The run's details, out of DVC's cache, in .checkpoints/experiments/<name>/: there as a whole or not at all."""
    folder = root / ".checkpoints" / "experiments" / name
    if folder.exists():
        return folder
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as scratch:
        part = Path(scratch) / name
        try:
            DVCFileSystem(str(root), rev=revision).get(DETAILS, str(part), recursive=True)
        except (DvcException, FileNotFoundError) as error:
            raise CondmixError(
                f"the files of {name} are not in DVC's cache any more ({error}): "
                f"dvc exp remove {name}, and run the grid again"
            ) from None
        os.replace(part, folder)
    return folder


def _refuse_uncommitted(root: Path) -> None:
    """CondmixError where code or settings differ from HEAD, from which the runs start."""
    where = ("src", "conf", ":!conf/experiments", "params.yaml", "dvc.yaml", "dvc.lock")
    changed = [line[3:] for line in _git(root, "status", "--porcelain", "--", *where).splitlines()]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CondmixError(
            f"{', '.join(changed[:3])}{more} are not committed, and runs start from the commit: commit first"
        )


def _yaml_at(root: Path, commit: str, path: str) -> dict[str, Any]:
    try:
        return yaml.safe_load(_git(root, "show", f"{commit}:{path}"))
    except CondmixError:
        raise CondmixError(f"{path} is not committed, and runs start from the commit") from None


def _git(root: Path, *arguments: str) -> str:
    return _call(root, "git", *arguments)


def _call(folder: Path, *command: str) -> str:
    """What a command prints; CondmixError with what it complains about if it fails."""
    found = subprocess.run(_on_path(list(command)), cwd=folder, capture_output=True, text=True)
    if found.returncode:
        raise CondmixError(f"{' '.join(command[:3])} failed in {folder}: {' '.join(found.stderr.split())}")
    return found.stdout


def _on_path(command: list[str]) -> list[str]:
    """The command, with DVC as this Python's own: no activated environment is needed."""
    return [sys.executable, "-m", *command] if command[0] == "dvc" else command


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _say_left(bar: tqdm, shares: Sequence[float]) -> None:
    left = bar.total - bar.n
    if shares and left:
        bar.set_postfix_str(f"about {_duration(statistics.median(shares) * left)} left")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """The value under a dotted key, None where there is none."""
    found: Any = settings
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _first_problem(error: ValidationError, where: str) -> str:
    """One sentence for pydantic's first complaint about a grid."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        inside = problem["loc"][0] == "experiments"
        known = (Experiment if inside else Grid).model_fields
        return unknown("setting", problem["loc"][-1], [name for name in known if name != "name"], f"{where}: {key}")
    if problem["type"] == "missing":
        return f"{where}: {key} is missing"
    return f"{where}: {key} is {problem['input']!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"
