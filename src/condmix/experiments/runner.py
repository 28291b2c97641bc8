"""The missing runs of a grid (condmix.experiments.grid), or a search's -> one DVC experiment for each.

Each run takes place in a clone of its own, made at the commit that was HEAD when the command started: `dvc repro` of
the stage evaluate@experiment, `dvc exp save`, and a fetch of the experiment's reference into the repository, as the
last step: a run is either there as a whole or not at all. `dvc exp show --all-commits` lists the runs like any other
experiment. The clones share the repository's DVC cache, checkpoints and MLflow store, so an interrupted run goes
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
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from condmix import CondmixError
from condmix.experiments.evidence import is_done, keep
from condmix.experiments.grid import (
    HEADLINE,
    MESSAGE,
    PROCESSES,
    TARGET,
    Grid,
    PlannedRun,
    call,
    cost,
    done,
    duration,
    git,
    on_path,
    plan,
    write_changes,
)
from condmix.runtime.cores import cores
from condmix.settings.load import unknown
from condmix.tracking.runs import GRID

GRACE = 10  # seconds that an interrupted run has for ending by itself


def run_grid(root: Path, grid: Grid, jobs: int, only: Sequence[str] = ()) -> None:
    """All missing runs of a grid, `jobs` at a time; CondmixError at the end if some failed.

    `only` names the experiments that are run, where it names any; CondmixError for one that the grid lacks.
    """
    for name in only:
        if name not in grid.experiments:
            raise CondmixError(unknown("experiment", name, list(grid.experiments), f"grid {grid.name}"))
    with Runner(root, grid.name, jobs) as runner:
        runs, references = plan(root, grid, runner.commit), done(root)
        chosen = [run for run in runs if run.experiment in (only or grid.experiments)]
        missing = [run for run in chosen if not is_done(root, run, references)]
        for run in runs:
            if run.name in references:  # a kill may have come before its evidence
                keep(root, run, references[run.name])
        failed = _run_all(runner, missing, cost(root, grid, runs, references)[0])
    if failed:
        raise CondmixError(f"{len(failed)} of {len(missing)} runs failed: {', '.join(run.name for run in failed)}")


def _run_all(runner: Runner, missing: list[PlannedRun], predicted: float | None) -> list[PlannedRun]:
    """The runs that failed."""
    failed, shares = [], [] if predicted is None else [predicted]
    with tqdm(total=len(missing), unit="run", bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} runs{postfix}") as bar:
        _say_left(bar, shares)
        futures = {runner.start(run): run for run in missing}
        for future in as_completed(futures):
            run, error = futures[future], future.exception()
            if error is None:
                shares.append(future.result() / runner.jobs)
                tqdm.write(f"{run.name}: done in {duration(future.result())}", file=sys.stderr)
            elif isinstance(error, CondmixError):
                failed.append(run)
                tqdm.write(f"\n{run.name} failed\n{error}\n", file=sys.stderr)
            else:
                raise error
            bar.update()
            _say_left(bar, shares)
    return failed


class Runner:
    """Makes runs, `jobs` at a time; a kill at any moment loses nothing that is finished.

    It is a context: what still runs at its end is ended, and begins where it was when it is started again.
    """

    def __init__(self, root: Path, group: str, jobs: int):
        """`group` is the name under which MLflow shows the runs."""
        self.root, self.group, self.jobs = root.resolve(), group, jobs
        # Runs of one process exchange no gradients, so side by side they waste the least of the cores.
        self.processes = max(1, cores() // jobs)
        self.work = self.root / ".dvc" / "tmp" / "grid"  # ignored by git and DVC
        self.logs = self.root / ".checkpoints" / "logs"
        self._children: set[subprocess.Popen] = set()
        self._stopped = threading.Event()
        self._guard = threading.Lock()  # of the children, and of the repository's references

    def __enter__(self) -> Runner:
        """CondmixError where the commit is not what would run."""
        self.commit = git(self.root, "rev-parse", "HEAD").strip()
        _refuse_uncommitted(self.root)
        for folder in (self.work, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self.cache = Path(call(self.root, "dvc", "cache", "dir").strip())
        self._remove_left_clones()
        self._pool = ThreadPoolExecutor(self.jobs)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._end_children()
        self._pool.shutdown(cancel_futures=True)

    def start(self, run: PlannedRun) -> Future[float]:
        """Make a run as soon as one of the `jobs` is free; the seconds that it took, CondmixError if it failed."""
        return self._pool.submit(self._one, run)

    def _one(self, run: PlannedRun) -> float:
        """One run in a clone of its own; returns the seconds it took, CondmixError with its last lines if it fails."""
        log = self.logs / f"{run.name}.log"
        with self._alone(run) as lock, open(log, "wb") as output:
            started = time.monotonic()
            if is_done(self.root, run, done(self.root)):  # finished by somebody else while this one waited
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
                save = ["dvc", "exp", "save", "-n", run.name, "-m", message, "-I", HEADLINE, TARGET]
                self._child(save, clone, environment, output, lock)
                with self._guard:
                    reference = done(clone)[run.name]
                    fetch = ("fetch", "-q", "--no-write-fetch-head", "--no-tags", str(clone))
                    git(self.root, *fetch, f"{reference}:{reference}")
                    keep(self.root, run, reference)
            finally:
                shutil.rmtree(clone, ignore_errors=True)
            return time.monotonic() - started

    def _clone(self, run: PlannedRun, clone: Path) -> None:
        """The repository at the grid's commit, with the run's params, on the same cache."""
        git(self.root, "clone", "-q", "--shared", "--no-checkout", str(self.root), str(clone))
        git(clone, "checkout", "-q", "--detach", self.commit)
        for key in ("user.name", "user.email"):  # `dvc exp save` fails without; a clone has not the repository's own
            git(clone, "config", key, git(self.root, "config", "--default", "condmix", "--get", key).strip())
        local = self.root / ".dvc" / "config.local"
        if local.exists():
            shutil.copy(local, clone / ".dvc" / "config.local")
        call(clone, "dvc", "config", "--local", "cache.dir", str(self.cache))
        write_changes(clone, run.profile, run.params, {**run.settings, **dict.fromkeys(PROCESSES, self.processes)})

    def _environment(self, run: PlannedRun) -> dict[str, str]:
        return {
            **os.environ,
            "OMP_NUM_THREADS": str(self.processes),  # a stage that starts several processes shares these out
            "DVC_ROOT": str(self.root),  # checkpoints and MLflow's runs go where they outlive the clone
            GRID: self.group,  # under which MLflow shows the run
            "DVC_EXP_NAME": run.name,
            "DVC_EXP_BASELINE_REV": self.commit,
        }

    def _child(self, command: list[str], folder: Path, environment: dict[str, str], log: BinaryIO, lock: int) -> None:
        """Run a command in a process group of its own; CondmixError with its last lines if it fails."""
        with self._guard:
            if self._stopped.is_set():
                raise CondmixError("stopped before it began")
            # The child inherits the lock, so that a run which outlives a killed runner is still known to go on.
            child = subprocess.Popen(
                on_path(command),
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
    def _alone(self, run: PlannedRun) -> Iterator[int]:
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


def _refuse_uncommitted(root: Path) -> None:
    """CondmixError where code or settings differ from HEAD, from which the runs start."""
    where = ("src", "conf", ":!conf/experiments", ":!conf/searches", "params.yaml", "dvc.yaml", "dvc.lock")
    changed = [line[3:] for line in git(root, "status", "--porcelain", "--", *where).splitlines()]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise CondmixError(
            f"{', '.join(changed[:3])}{more} are not committed, and runs start from the commit: commit first"
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _say_left(bar: tqdm, shares: Sequence[float]) -> None:
    left = (bar.total or 0) - bar.n
    if shares and left:
        bar.set_postfix_str(f"about {duration(statistics.median(shares) * left)} left")
