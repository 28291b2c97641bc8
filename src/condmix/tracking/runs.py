"""What ran on what: the record of a training or an evaluation, environment facts, and the project's root.

A tracked run writes what it logs to a journal, a folder in .checkpoints/tracking, and talks to no server or database.
A process beside it (condmix.tracking.delivery) takes the journal to MLflow, so nothing that is wrong there can stop,
slow or hang a training: it is said in one line, and the journal waits for `condmix tracking sync` or the next run.

The trainer must run on machines without MLflow; there `track` says so once and records nothing, as it does,
silently, with CONDMIX_TRACKING=off.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from condmix.runtime.cores import cores
from condmix.runtime.messages import without_credentials

GRID = "CONDMIX_GRID"  # the environment's variable with the name of the grid that a run is part of
UPLOAD_RATE = 20e6  # bytes per second: how much longer the end of a run waits for large files
LOCAL = 5  # times longer it waits for a database on this machine, which may be new; there only work takes time


def project_root() -> Path:
    """The main checkout: in a DVC queue run the working folder is a temporary copy, DVC_ROOT is not."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def journals() -> Path:
    """The folder of the records that MLflow has not taken yet, one folder each, by the time of their start."""
    return project_root() / ".checkpoints" / "tracking"


def patience() -> float:
    """Seconds that a run waits for MLflow in all, and after which a silent MLflow is reported."""
    try:
        return float(os.environ["CONDMIX_TRACKING_SECONDS"])
    except (KeyError, ValueError):
        return 12.0


def environment(precision: str, processes: int = 1, threads: int | None = None) -> dict[str, Any]:
    """Commit, versions, hardware and how it was used, as plain values: for cards, metrics, the pages and MLflow.

    `precision` is the arithmetic that was used, "bf16" or "fp32", by `processes` processes of `threads` threads each;
    None: of as many as this process has.
    """
    import torch

    from condmix.runtime import native

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "commit": git_commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": cores(),
        "gpus": gpus,
        "precision": precision,
        "threads": threads or torch.get_num_threads(),
        "processes": processes,
        "kernels": None if gpus else native.kernels(),
    }


def git_commit() -> str:
    """The commit of the working folder, with "+" when tracked code or settings differ from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "src", "conf", "params.yaml")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


class Run:
    """A tracked run. Every method is also valid on this null run, of a machine without MLflow."""

    id: str | None = None  # ours: MLflow's own is known only when MLflow has answered

    def mlflow_id(self) -> str | None:
        """MLflow's id of the run, None where MLflow has not answered in time."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; a name's prefix ("train/") becomes a section of the UI."""

    def tag(self, values: Mapping[str, Any]) -> None:
        """Set or replace tags."""

    def image(self, key: str, image: np.ndarray, step: int = 0) -> None:
        """Log a picture, (H, W, 3) uint8; equal keys at several steps become a slider."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run."""

    def inputs(self, name: str, sha256: str, context: str, source: Path) -> None:
        """Say which data set the run is of, in "training" or "evaluation"."""

    def table(self, file: str, columns: Mapping[str, Sequence[Any]], pictures: np.ndarray) -> None:
        """Log a table `file` (.json): a row for each of the pictures (n, H, W, 3) uint8, which are its last column."""

    def model(self, name: str, variant: str, root: Path, paths: Sequence[Path]) -> None:
        """Register the variant as a new version of the model `name`, which draws, and as the latest (`@current`).

        `paths` are the files and folders of the project in `root` that condmix.load needs for it.
        """

    def score(self, name: str, figure: Mapping[str, Any]) -> None:
        """Move `@best` of the registered model to the version with these weights if it is better than the best so far.

        `figure`: model_sha256, measure, value, higher_is_better, and protocol, a hash; other protocols don't compare.
        """


class JournalRun(Run):
    """A run that is written to a journal: events.jsonl, a JSON object per event, and files beside it.

    events.jsonl is locked for as long as this process lives, however it ends: so it is known that nothing follows.
    """

    def __init__(self, run_id: str, opening: Mapping[str, Any]):
        self.id = run_id
        self.folder = journals() / f"{time.time_ns()}-{run_id[:8]}"
        hidden = self.folder.with_name(f".{self.folder.name}")  # until it is locked
        hidden.mkdir(parents=True)
        self._events: BinaryIO = open(hidden / "events.jsonl", "ab", buffering=0)  # noqa: SIM115
        fcntl.flock(self._events, fcntl.LOCK_EX)
        self._files = self._bytes = 0
        self._write("open", id=run_id, **opening)
        hidden.rename(self.folder)
        self._delivery = Delivery(self.folder, opening["name"].rpartition("/")[2])

    def mlflow_id(self) -> str | None:
        return self._delivery.mlflow_id()

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._record("metrics", values={key: float(value) for key, value in values.items()}, step=step)

    def tag(self, values: Mapping[str, Any]) -> None:
        self._record("tags", values={key: str(value) for key, value in values.items()})

    def image(self, key: str, image: np.ndarray, step: int = 0) -> None:
        from PIL import Image

        self._record_file("image", "picture.png", Image.fromarray(image).save, key=key, step=step)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self._record_file("artifact", Path(path).name, lambda target: _link(path, target), folder=folder)

    def inputs(self, name: str, sha256: str, context: str, source: Path) -> None:
        self._record("inputs", name=name, digest=sha256[:36], context=context, source=str(source.resolve()))

    def table(self, file: str, columns: Mapping[str, Sequence[Any]], pictures: np.ndarray) -> None:
        def place(target: Path) -> None:
            np.save(target, pictures)

        self._record_file("table", "pictures.npy", place, table=file, columns={k: list(v) for k, v in columns.items()})

    def model(self, name: str, variant: str, root: Path, paths: Sequence[Path]) -> None:
        found = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]

        def place(target: Path) -> None:
            for file in found:
                (target / file.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
                _link(file, target / file.relative_to(root))
                self._bytes += file.stat().st_size

        self._record_file("model", "project", place, name=name, variant=variant)

    def score(self, name: str, figure: Mapping[str, Any]) -> None:
        self._record("score", name=name, **figure)

    def end(self, status: str) -> None:
        """Finish the journal, and give MLflow a while to take the rest."""
        self._record("end", status=status)
        self._events.close()
        self._delivery.finish(self._bytes / UPLOAD_RATE, hurry=status != "FINISHED")

    def _record_file(self, event: str, name: str, place: Callable[[Path], object], /, **facts: Any) -> None:
        self._files += 1
        file = Path("files", str(self._files), name)
        try:
            (self.folder / file).parent.mkdir(parents=True)
            place(self.folder / file)
            self._bytes += (self.folder / file).stat().st_size
        except OSError as error:
            self._lost(error)
        else:
            self._record(event, file=str(file), **facts)

    def _record(self, event: str, /, **facts: Any) -> None:
        try:
            self._write(event, **facts)
        except OSError as error:
            self._lost(error)

    def _write(self, event: str, /, **facts: Any) -> None:
        line = json.dumps({"event": event, "time": int(time.time() * 1000), **facts}) + "\n"
        self._events.write(line.encode())

    def _lost(self, error: OSError) -> None:
        self._delivery.warn(
            f"{self.folder} can't be written ({error.strerror}), so MLflow will not get all of this run"
        )


class Delivery:
    """The process that takes a run's journal to MLflow, as the run sees it: what it reports, and its end."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self._warned = self._local = False
        self._where = "MLflow"
        self._mlflow_id: str | None = None
        self._news = threading.Condition()
        self._left = patience()
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "condmix.tracking.delivery", str(folder)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the training, which then says how it ended
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._silence = threading.Timer(self._left, self._not_in_time)
        self._silence.daemon = True
        self._silence.start()

    def mlflow_id(self) -> str | None:
        """MLflow's id of the run; waits for it while nothing is known to be wrong."""
        started = time.monotonic()
        with self._news:
            self._news.wait_for(lambda: self._mlflow_id or self._warned, self._left)
        self._left = max(0.0, self._left - (time.monotonic() - started))
        return self._mlflow_id

    def finish(self, upload: float, hurry: bool) -> None:
        """Wait for the rest of the journal to be delivered, `upload` seconds longer for its files, then give up.

        A run that was stopped waits for a third of the time: somebody wants it to end.
        """
        wait = (LOCAL * patience() if self._local else self._left) / (3 if hurry else 1)
        try:
            self._process.wait(wait + upload)
        except subprocess.TimeoutExpired:
            self._undelivered(f"{self._where} has not taken everything in time")
        finally:
            self._silence.cancel()
            self._process.kill()
            self._process.wait()
        if self.folder.exists():
            self._undelivered("the process that delivers it has ended")
        elif self._warned:
            _say(f"{self.name}: its record has reached MLflow after all")

    def warn(self, problem: str) -> None:
        """Say once what is wrong."""
        with self._news:
            warned, self._warned = self._warned, True
            self._news.notify_all()
        if not warned:
            _say(problem)

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            report = json.loads(line)
            if "where" in report:
                self._where = report["where"]
            elif "error" in report:
                self._local = False  # so the run's end does not wait for more than it would for a server
                self._undelivered(report["error"])
            else:
                self._silence.cancel()
                with self._news:
                    self._mlflow_id = report.get("run")
                    self._local |= report.get("local", False)
                    self._news.notify_all()
        if self.folder.exists():
            self._undelivered("the process that delivers it has ended")

    def _not_in_time(self) -> None:
        self._undelivered(f"{self._where} did not answer within {patience():g} seconds")

    def _undelivered(self, problem: str) -> None:
        where = os.path.relpath(self.folder)
        self.warn(
            f"{problem}; {self.name} goes on untracked, and its record is kept in {where} until "
            "`condmix tracking sync` or the next run delivers it"
        )


@contextlib.contextmanager
def track(
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, Any],
    run_id: str | None = None,
    joins: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Run]:
    """A run of MLflow's experiment `condmix`: a new one, or the one that an earlier, interrupted process began.

    That one is named by `run_id`, the `id` of its Run. `joins`, {"tags": ..., "params": ...}, means another run
    that has these, to which figures are added: its status and its times stay its own. MLflow without such a run
    gets a new one.
    """
    run = _opened(name, params, tags, run_id or uuid.uuid4().hex, joins)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        if isinstance(run, JournalRun):
            run.end(status)


def _opened(name: str, params: Mapping, tags: Mapping, run_id: str, joins: Mapping | None) -> Run:
    if os.environ.get("CONDMIX_TRACKING") == "off":
        return Run()
    if importlib.util.find_spec("mlflow") is None:
        _say("MLflow is not installed, so this run is not tracked")
        return Run()
    facts = {"git_commit": git_commit(), **_source(tags)}
    for tag, variable in [("dvc_exp", "DVC_EXP_NAME"), ("dvc_baseline", "DVC_EXP_BASELINE_REV"), ("grid", GRID)]:
        if os.environ.get(variable):
            facts[tag] = os.environ[variable]
    opening = {
        "name": f"{facts.get('dvc_exp', facts['git_commit'])}/{name}",
        "params": {key: str(value) for key, value in params.items()},
        "tags": {**facts, **{key: str(value) for key, value in tags.items()}},
        "joins": joins,
    }
    try:
        return JournalRun(run_id, opening)
    except OSError as error:
        _say(f"{journals()} can't be written ({error.strerror}), so {name} is not tracked")
        return Run()


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)  # the file may be replaced before it is delivered; the link stays what it is
    except OSError:
        shutil.copyfile(path, target)


def _source(tags: Mapping[str, Any]) -> dict[str, str]:
    """MLflow's own tags for who ran what: command, commit, branch, repository, user."""
    command = f"condmix {'train' if tags.get('kind') == 'training' else 'evaluate'}"
    facts = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name
        facts["mlflow.user"] = getpass.getuser()
    for key, arguments in {
        "mlflow.source.git.commit": ("rev-parse", "HEAD"),
        "mlflow.source.git.branch": ("branch", "--show-current"),
        "mlflow.source.git.repoURL": ("config", "remote.origin.url"),
    }.items():
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            if value := without_credentials(_git(*arguments)):
                facts[key] = value
    return facts


def _say(sentence: str) -> None:
    from tqdm import tqdm

    tqdm.write(f"condmix: {sentence}", file=sys.stderr)  # above a progress bar, if there is one
    sys.stderr.flush()


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def cpu_name() -> str:
    """The processor and the instructions that PyTorch uses on it, as in "AMD EPYC, AVX512".

    Virtual machines give several generations of processors, which round differently, one name.
    """
    import torch

    return f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"


def cpu_model() -> str:
    """The processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
