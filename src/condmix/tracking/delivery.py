"""Journals of runs (condmix.tracking.runs) -> MLflow, as a process beside the run or as `condmix tracking sync`.

What MLflow took is noted in the journal, so that a delivery which breaks off goes on where it was; a journal that
MLflow has whole is deleted. The run of a journal is found by a tag with its id, so it is one run however often it was
interrupted. The store is that of MLFLOW_TRACKING_URI, by default mlflow.db in the project's root; this one is created
in one piece, and names the folder where the project lies now.

Messages never show a URI's credentials, and no text of MLflow that could hold them.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import re
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from condmix import CondmixError
from condmix.runtime.oserrors import sentence
from condmix.tracking import machine, registry
from condmix.tracking.runs import LOCAL, journals, patience, project_root

EXPERIMENT = "condmix"
RUN_TAG = "condmix.run"
GRID_TAG = "condmix.grid"
RETRY = 30  # seconds between two tries to deliver to an MLflow that refused
EVERY = 2  # seconds between two looks for new events
POLL = 0.2  # seconds between two looks whether the run has ended
OPENING = {"id", "name", "params", "tags", "joins", "time"}  # keys of a journal's first event
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # and their default ports
SCHEMES = ("http", "https", "sqlite", *DATABASES)
# Where MLflow's schema holds places of artifacts, absolute ones.
PLACES = {
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
    "experiments": ("artifact_location",),
}
FOREIGN = "{where} answers with other than MLflow's JSON: it is no MLflow server"
# What an error's text means; {0} is the match's first group, {where} the store without credentials.
MEANINGS = [
    (r"connection refused", "nothing answers at {where} (connection refused)"),
    (r"failed to resolve|name or service not known|temporary failure in name", "the host of {where} is not known"),
    (r"timed out|timeout", "{where} does not answer in time"),
    (r"(?:error code|too many) (40[13])", "{where} answers {0}: check MLFLOW_TRACKING_USERNAME and _PASSWORD"),
    (r"(?:error code|too many) (404)", "{where} answers {0}: it is not the address of an MLflow server"),
    (r"(?:error code|too many) (\d{3})", "{where} answers {0}"),
    (r"not in a valid json|no json|expecting value|^ParseError", FOREIGN),
    (r"connection aborted|remotedisconnected|reset by peer|broken pipe", "{where} closed the connection"),
    (r"network is unreachable|no route to host", "{where} can't be reached"),
    (r"out-of-date database schema", "{where} was written by another version of MLflow: use that version, or take a "
        "backup and run `mlflow db upgrade`"),
    (r"database is locked", "{where} is locked by another process"),
    (r"not a database|malformed", "{where} is damaged: move it away, and a new one is made"),
    (r"readonly database|permission denied", "{where} must not be written"),
    (r"disk is full", "the disk of {where} is full"),
    (r"unable to open database", "{where} can't be opened"),
    (r"(experiment|run) \S+ must be in the 'active' state", "the {0} was deleted in MLflow: restore it there"),
    (r"filesystem tracking backend", "{where} is a folder of runs, to which MLflow no longer writes: set "
        "MLFLOW_TRACKING_URI to a database (sqlite:///mlflow.db) or a server"),
]  # fmt: skip


class Trouble(CondmixError):
    """Why MLflow does not take a run, as a part of a sentence."""


class Journal:
    """A run's record on disk, and how much of it MLflow has."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.run_id: str | None = None  # MLflow's
        self.owned = True  # whether the run's status and times are this journal's
        self._taken = 0  # bytes of events.jsonl
        with contextlib.suppress(OSError, ValueError, KeyError):
            state = json.loads((folder / "delivered.json").read_text())
            self.run_id, self.owned, self._taken = state["run"], state["owned"], state["taken"]

    def in_use(self) -> bool:
        """Whether its run goes on: then more will follow."""
        with open(self.folder / "events.jsonl", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def has_news(self) -> bool:
        return (self.folder / "events.jsonl").stat().st_size > self._taken

    def new(self) -> Iterator[tuple[dict[str, Any], int]]:
        """The events that MLflow has not, each with the place behind it; what a kill cut off is left out."""
        with open(self.folder / "events.jsonl", "rb") as file:
            file.seek(self._taken)
            place = self._taken
            for line in file:
                place += len(line)
                with contextlib.suppress(ValueError, RecursionError):
                    event = json.loads(line) if line.endswith(b"\n") else None
                    if isinstance(event, dict) and "event" in event:
                        yield event, place

    def check_opened(self) -> None:
        """Trouble where it does not begin with its run, as after a power cut: MLflow could take nothing of it."""
        event, _ = next(self.new(), ({}, 0)) if (self.folder / "events.jsonl").exists() else ({}, 0)
        if event.get("event") != "open" or not OPENING <= event.keys():
            raise Trouble(f"{self.folder} is damaged (it does not begin with its run): delete that folder")

    def last_time(self) -> int:
        """When the run last wrote, in ms."""
        return int((self.folder / "events.jsonl").stat().st_mtime * 1000)

    def took(self, place: int) -> None:
        """Note that MLflow has everything before `place`."""
        self._taken = place
        part = self.folder / ".delivered.json"
        part.write_text(json.dumps({"run": self.run_id, "owned": self.owned, "taken": place}))
        part.replace(self.folder / "delivered.json")

    def forget(self) -> None:
        """MLflow has lost the run: everything is to be delivered again, to a new one."""
        self.run_id, self.owned = None, True
        self.took(0)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether this process may deliver it; another one may be at it."""
        with open(self.folder / "lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


class Store:
    """MLflow's experiment, ready to take runs; Trouble says why it is not."""

    def __init__(self, timeout: float, reached: Callable[[], object] = lambda: None):
        """`timeout`: seconds to wait for one answer of a server.

        `reached` is called when a local database is known to be there and usable, or to be made by another process:
        all else is only work.
        """
        # Tries are made here, at longer intervals. Without this, a dead server holds a client for minutes.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(max(1, int(timeout)))
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self.uri = store_uri()
        self._timeout = timeout
        with self.speaking():
            _refuse_unknown(self.uri)
            with self._alone(reached) if self.uri.startswith("sqlite") else contextlib.nullcontext():
                self._check_database()
                if self.uri.startswith("sqlite"):
                    reached()
                from mlflow import MlflowClient

                for name in ("mlflow", "alembic"):  # of the migrations at first use, and whole tracebacks
                    logging.getLogger(name).setLevel(logging.CRITICAL)
                if self.uri == f"sqlite:///{own_database()}":
                    create_own_database()
                self.client = MlflowClient(self.uri)
                self.experiment_id = self._experiment()

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Turns whatever goes wrong between us and MLflow into Trouble."""
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        except Trouble:
            raise
        except Exception as error:
            raise Trouble(explain(error, self.uri)) from error

    def deliver(self, journal: Journal) -> None:
        """Everything that is new in a journal."""
        if journal.run_id is None:
            journal.check_opened()
        with self.speaking():
            try:
                self._deliver(journal)
            except Exception:
                if journal.run_id and self._is_lost(journal.run_id):
                    journal.forget()
                    raise Trouble(f"the run was deleted in MLflow ({shown(self.uri)})") from None
                raise

    def _deliver(self, journal: Journal) -> None:
        if not journal.has_news():
            return
        self._check_database()
        place, metrics = None, []  # metrics are handed over together: one by one would take minutes over a network
        for event, place in journal.new():
            if event["event"] == "metrics":
                metrics += _metrics(event)
                continue
            self._log(journal, metrics)
            metrics = []
            self._take(journal, event)
            journal.took(place)
        self._log(journal, metrics)
        if place is not None:
            journal.took(place)

    def close(self, journal: Journal) -> None:
        """Record a run as killed that ended without saying so, and delete its journal, which MLflow has whole."""
        with self.speaking():
            if journal.run_id and journal.owned and self.client.get_run(journal.run_id).info.status == "RUNNING":
                self.client.set_terminated(journal.run_id, "KILLED", journal.last_time())
        gone = journal.folder.with_name(f".{journal.folder.name}")  # at once: half a journal would be a damaged one
        journal.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _take(self, journal: Journal, event: Mapping[str, Any]) -> None:
        client, run = self.client, journal.run_id or ""  # "open" comes first, and gives it
        match event["event"]:
            case "open":
                journal.run_id, journal.owned = self._open(event)
            case "tags":
                client.log_batch(run, tags=_tags(event["values"]))
            case "image" if (journal.folder / event["file"]).exists():
                from PIL import Image

                with Image.open(journal.folder / event["file"]) as image:
                    client.log_image(run, image, key=event["key"], step=event["step"], timestamp=event["time"])
            case "artifact" if (journal.folder / event["file"]).exists():
                client.log_artifact(run, str(journal.folder / event["file"]), event["folder"])
            case "inputs":
                client.log_inputs(run, [_dataset(event)])
            case "table" if (journal.folder / event["file"]).exists():
                client.log_table(run, _table(event, journal.folder / event["file"]), event["table"])
            case "model" if (journal.folder / event["file"]).exists():
                registry.register(client, run, event, journal.folder / event["file"])
            case "score":
                registry.score(client, event)
            case "end" if journal.owned:
                client.set_terminated(run, event["status"], event["time"])

    def _open(self, event: Mapping[str, Any]) -> tuple[str, bool]:
        """MLflow's id of the run of a journal, and whether it is the journal's own: found, or made."""
        from mlflow.entities import Param

        with self._alone():
            if run := self._find({RUN_TAG: event["id"]}, {}):
                self.client.update_run(run, status="RUNNING")
                return run, True
            joins = event["joins"]
            if joins and (run := self._find(joins.get("tags", {}), joins.get("params", {}))):
                return run, False
            tags = {"mlflow.runName": event["name"], RUN_TAG: event["id"], **event["tags"]}
            if grid := event["tags"].get("grid"):
                tags["mlflow.parentRunId"] = self._parent(grid)
            made = self.client.create_run(self.experiment_id, start_time=event["time"], tags=tags)
            run = self._known(made.info.run_id)
            params = [Param(_name(key), value[:6000]) for key, value in event["params"].items()]
            for start in range(0, len(params), 100):
                self.client.log_batch(run, params=params[start : start + 100])
            return run, True

    def _find(self, tags: Mapping[str, Any], params: Mapping[str, Any]) -> str | None:
        """The newest run that has these."""
        clauses = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        clauses += [f"params.`{key}` = '{value}'" for key, value in params.items()]
        found = self.client.search_runs([self.experiment_id], " and ".join(clauses), max_results=1)
        return self._known(found[0].info.run_id) if found else None

    def _parent(self, grid: str) -> str:
        """The run under which those of a grid are shown."""
        if run := self._find({GRID_TAG: grid}, {}):
            return run
        tags = {"mlflow.runName": f"grid {grid}", GRID_TAG: grid}
        run = self._known(self.client.create_run(self.experiment_id, tags=tags).info.run_id)
        self.client.set_terminated(run)
        return run

    def _is_lost(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "deleted")
        except MlflowException as error:
            return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")

    def _log(self, journal: Journal, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), 500):
            self.client.log_batch(journal.run_id or "", metrics=metrics[start : start + 500])

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            # Without a location, an experiment first created in a queue run points into its temporary folder;
            # a server chooses its own.
            local = artifacts() if self.uri.startswith("sqlite") else None
            return self._known(self.client.create_experiment(EXPERIMENT, artifact_location=local))
        if found.lifecycle_stage == "deleted":
            raise Trouble(
                f'the experiment "{EXPERIMENT}" was deleted in MLflow ({shown(self.uri)}): '
                f"restore it (mlflow experiments restore --experiment-id {found.experiment_id})"
            )
        return self._known(found.experiment_id if found.lifecycle_stage == "active" else "")

    def _known(self, given: str) -> str:
        """An id that MLflow gave. Its client takes any JSON object for an answer, with "" for all that it lacks."""
        if not given:
            raise Trouble(FOREIGN.format(where=shown(self.uri)))
        return given

    @contextlib.contextmanager
    def _alone(self, busy: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Processes that create the database, or one run, at once crash each other or make two.

        `busy` is called before waiting for another process.
        """
        lock = FileLock(project_root() / ".mlflow.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            busy()
            try:
                lock.acquire(timeout=LOCAL * min(self._timeout, patience()))
            except Timeout:
                raise Trouble(f"another process holds {lock.lock_file}") from None
        try:
            yield
        finally:
            lock.release()

    def _check_database(self) -> None:
        """Find out at once what MLflow would try for minutes."""
        parts = urlsplit(self.uri)
        kind = parts.scheme.partition("+")[0]
        if kind in DATABASES and parts.hostname:
            socket.create_connection((parts.hostname, parts.port or DATABASES[kind]), self._timeout).close()
        if kind != "sqlite":
            return
        path = Path(self.uri.removeprefix("sqlite:///").partition("?")[0])
        if path.exists() and not path.is_file():
            raise Trouble(f"{path} is {'a folder' if path.is_dir() else 'a pipe or a device'}, not a database")
        if path.exists() and path.stat().st_size:
            with contextlib.closing(sqlite3.connect(path, self._timeout, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                if path.resolve() == own_database():
                    keep_artifacts_here(database)
                database.execute("COMMIT")


def create_own_database() -> None:
    """Make mlflow.db where there is none: a kill in those seconds must not leave half of its tables."""
    from mlflow import MlflowClient

    path = own_database()
    if path.exists() and path.stat().st_size:
        return
    part = path.with_name(f"{path.name}.new")
    part.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
    part.replace(path)


def keep_artifacts_here(database: sqlite3.Connection) -> None:
    """Let the project's own database name the folder where the project lies now, if it was moved or copied since."""
    known = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "experiments" not in known:
        return
    row = database.execute("SELECT artifact_location FROM experiments WHERE name = ?", [EXPERIMENT]).fetchone()
    old, here = row[0] if row else None, artifacts()
    if not old or old == here or not re.match(r"file:|/", old):
        return
    for table in PLACES.keys() & known:
        for column in PLACES[table]:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608  # names of our own
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                [here, len(old) + 1, old, len(old) + 1, f"{old}/"],
            )


def store_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own_database()}"


def own_database() -> Path:
    return project_root() / "mlflow.db"


def artifacts() -> str:
    """Where the artifacts of a local store lie, as a URI."""
    return (project_root() / "mlartifacts").as_uri()


def shown(uri: str) -> str:
    """A tracking URI without credentials: where it may hold some, its scheme, host and port alone."""
    if "@" not in uri and "?" not in uri:
        return uri.removeprefix("sqlite:///")
    try:
        parts = urlsplit(uri)
        if parts.hostname and ("@" in parts.netloc) == ("@" in uri):
            return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        pass
    return "the address in MLFLOW_TRACKING_URI"


def explain(error: BaseException, uri: str) -> str:
    """What went wrong, in words that hold nothing secret."""
    where, text = shown(uri), f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return f"{where} needs the Python package {error.name}, which is not installed"
    for pattern, meaning in MEANINGS:
        if match := re.search(pattern, text, re.IGNORECASE):
            return meaning.format(*(group.lower() for group in match.groups()), where=where)
    if where != uri.removeprefix("sqlite:///"):
        return f"MLflow at {where} fails ({type(error).__name__})"
    lines = [line for line in text.splitlines() if line.strip()]
    return f"MLflow at {where} fails ({lines[0][:200]})"


def waiting() -> list[Journal]:
    """All journals, the oldest first."""
    folders = journals().glob("[0-9]*/") if journals().exists() else ()
    return [Journal(folder) for folder in sorted(folders)]


def sync() -> str:
    """Deliver every journal whose run has ended; returns what was done, CondmixError says what could not be."""
    found = waiting()
    if not found:
        return "nothing waits for MLflow"
    store = Store(timeout=30)
    problems, delivered = deliver_ended(store, found)
    left = len(found) - delivered
    if problems:
        raise CondmixError(f"{delivered} of {len(found)} records delivered; {problems[0]}")
    going_on = f"; {left} of runs that go on are delivered by these" if left else ""
    return f"{delivered} of {len(found)} records delivered to MLflow at {shown(store.uri)}{going_on}"


def deliver_ended(store: Store, found: list[Journal]) -> tuple[list[str], int]:
    """What went wrong, and how many journals were delivered, of those whose run has ended."""
    problems, delivered = [], 0
    for journal in found:
        try:
            with journal.alone() as may:
                if not may or journal.in_use():
                    continue
                store.deliver(journal)
                store.close(journal)
                delivered += 1
        except Trouble as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(sentence(error) or str(error))
    return problems, delivered


def follow(journal: Journal, report: Any) -> bool:
    """Deliver a journal while its run goes on, older ones before; whether MLflow has it all when the run has ended."""
    store, problem, before = None, None, None
    while True:
        ended = not journal.in_use()  # asked first, so that nothing follows what is read next
        try:
            if store is None:
                store = Store(patience() * 2 / 3, lambda: report(local=True))
                deliver_ended(store, [one for one in waiting() if one.folder.name < journal.folder.name])
            store.deliver(journal)
            if ended:
                store.close(journal)
                return True
            if journal.run_id != before:
                before = journal.run_id
                report(run=before)
        except Trouble as error:
            store = None
            if problem is None:
                problem = str(error)
                report(error=problem)
            if ended:
                return False
            _wait_for_the_end(journal, RETRY)
        else:
            _wait_for_the_end(journal, EVERY)


def _wait_for_the_end(journal: Journal, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while journal.in_use() and time.monotonic() < deadline:
        time.sleep(POLL)


def _refuse_unknown(uri: str) -> None:
    scheme, separator, _ = uri.partition("://")
    if (separator and scheme.partition("+")[0] in SCHEMES) or re.match(r"(databricks|uc)\b", uri):
        return
    raise Trouble(
        f"MLFLOW_TRACKING_URI is {shown(uri)}, but must be the address of a server (http://host:port) or of a database "
        "(sqlite:///mlflow.db, postgresql://...)"
    )


def _metrics(event: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(_name(key), value, event["time"], event["step"]) for key, value in event["values"].items()]


def _dataset(event: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": event["source"]})
    dataset = Dataset(event["name"], event["digest"], "local", source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", event["context"])])


def _table(event: Mapping[str, Any], pictures: Path) -> dict[str, list[Any]]:
    import numpy as np
    from mlflow import Image

    return {**event["columns"], "picture": [Image(picture) for picture in np.load(pictures)]}


def _tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(_name(key), value[:8000]) for key, value in values.items()]


def _name(key: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w./ :-]", "_", key)[:250]


def main(folder: Path) -> int:
    """The process beside a run; it says on its standard output what the run must know, as lines of JSON."""

    def report(**facts: Any) -> None:
        with contextlib.suppress(OSError):  # the run was killed
            print(json.dumps(facts), file=sys.__stdout__, flush=True)

    report(where=shown(store_uri()))
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    journal, ended = Journal(folder), threading.Event()
    with journal.alone():
        machine.watch(folder, ended)
        try:
            return 0 if follow(journal, report) else 1
        finally:
            ended.set()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
