"""What ran on what: the MLflow run of a training, environment facts, and the project's root.

The trainer must run on machines without MLflow; there `track` says so once and records nothing, as it does,
silently, with CONDMIX_TRACKING=off.
MLflow takes seconds to import, so it is imported when a run starts, not before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

EXPERIMENT = "condmix"


def project_root() -> Path:
    """The main checkout: in a DVC queue run the working folder is a temporary copy, DVC_ROOT is not."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def environment() -> dict[str, Any]:
    """Commit, versions and hardware, as plain values for a model's card and the report."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "commit": git_commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": gpus,
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
    """A tracked run. Every method is also valid on the null run of a machine without MLflow."""

    id: str | None = None

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers; a name's prefix ("train/") becomes a section of the UI."""

    def tag(self, values: Mapping[str, str]) -> None:
        """Set or replace tags."""

    def image(self, key: str, image: np.ndarray, step: int = 0) -> None:
        """Log a picture, (H, W, 3) uint8; equal keys at several steps become a slider."""

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into the run."""

    def register(self, name: str, folder: str, alias: str) -> None:
        """Enter the artifact folder of this run as a new version of the registered model `name`."""


class MlflowRun(Run):
    """A run in the project's MLflow store."""

    def __init__(self, client: Any, run_id: str):
        self._client, self.id = client, run_id

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._client.log_batch(self.id, metrics=entries, synchronous=False)

    def tag(self, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.id, key, value)

    def image(self, key: str, image: np.ndarray, step: int = 0) -> None:
        self._client.log_image(self.id, image, key=key, step=step)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        self._client.log_artifact(self.id, str(path), folder)

    def register(self, name: str, folder: str, alias: str) -> None:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # it exists already
            self._client.create_registered_model(name)
        source = f"{self._client.get_run(self.id).info.artifact_uri}/{folder}"
        version = self._client.create_model_version(name, source=source, run_id=self.id)
        self._client.set_registered_model_alias(name, alias, version.version)


@contextlib.contextmanager
def track(name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> Iterator[Run]:
    """A run of the experiment `condmix`: resumed when `run_id` is one of the store's, else new."""
    client = _client()
    if client is None:
        yield Run()
        return
    run = _resume(client, run_id) or _create(client, name, params, tags)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run.id, status)  # waits for what is logged in the background


def find_run(tags: Mapping[str, str], params: Mapping[str, Any]) -> str | None:
    """Id of the newest run that has these tags and params: how an evaluation finds its training."""
    client = _client()
    if client is None:
        return None
    clauses = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    clauses += [f"params.`{key}` = '{value}'" for key, value in params.items()]
    found = client.search_runs([_experiment(client)], " and ".join(clauses), max_results=1)
    return found[0].info.run_id if found else None


def _create(client: Any, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> MlflowRun:
    from mlflow.entities import Param

    facts = {"mlflow.runName": name, "git_commit": git_commit()}
    for tag, variable in [("dvc_exp", "DVC_EXP_NAME"), ("dvc_baseline", "DVC_EXP_BASELINE_REV")]:
        if os.environ.get(variable):
            facts[tag] = os.environ[variable]
    run = client.create_run(_experiment(client), tags={**facts, **tags})
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in params.items()])
    return MlflowRun(client, run.info.run_id)


def _resume(client: Any, run_id: str | None) -> MlflowRun | None:
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException:  # the store was deleted since; a new run replaces it
        return None
    return MlflowRun(client, run_id)


def _client() -> Any:
    """A client of the store at MLFLOW_TRACKING_URI, by default mlflow.db in the project's root."""
    if os.environ.get("CONDMIX_TRACKING") == "off":
        return None
    if importlib.util.find_spec("mlflow") is None:
        print("condmix: MLflow is not installed, so this run is not tracked", file=sys.stderr)
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # Without a buffer, its thread looks once a second whether it shall end; with one, it ends when told to.
    os.environ.setdefault("MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS", "1")
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)  # 40 lines of migrations at first use
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    from mlflow import MlflowClient

    # Several processes creating the database at once crash each other ("duplicate column").
    with _store_lock():
        client = MlflowClient(_store())
        client.search_experiments(max_results=1)
    return client


def _store() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_root() / 'mlflow.db'}"


def _store_lock() -> Any:
    from filelock import FileLock

    return FileLock(project_root() / ".mlflow.lock")


def _experiment(client: Any) -> str:
    with _store_lock():
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return found.experiment_id
        # Without a location, an experiment first created in a queue run points into its temporary folder;
        # a server chooses its own.
        local = (project_root() / "mlartifacts").as_uri() if _store().startswith("sqlite") else None
        return client.create_experiment(EXPERIMENT, artifact_location=local)


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def cpu_name() -> str:
    """The processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
