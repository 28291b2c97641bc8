"""A trained variant -> a model of MLflow's that draws (condmix.tracking.served), and a version of a registered model.

`@current` is the version that was trained last. `@best` is the first one that was judged, until another has a better
headline figure under the same protocol: the same data, judge, settings of the evaluation and guidance. A version keeps
its figure for each protocol as a tag.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

PACKAGE = Path(__file__).parents[1]


def register(client: MlflowClient, run_id: str, event: Mapping[str, Any], project: Path) -> None:
    """Log the model in `project` (a folder that condmix.load reads), and make it the newest version, `@current`."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    name, variant = event["name"], event["variant"]
    card = json.loads((project / "models" / variant / "model.json").read_text())
    version = registered(client, name, card["sha256"], run_id)
    if version is None:
        logged = _logged(client, run_id, card["sha256"])
        if logged.status != LoggedModelStatus.READY:
            _upload(client, logged, variant, card, project)
            client.finalize_logged_model(logged.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        _create(client, name)
        tags = {key: str(card[key]) for key in ("variant", "fusion", "perspectives")} | {"model_sha256": card["sha256"]}
        with _as_default(client.tracking_uri):
            version = client.create_model_version(
                name, f"models:/{logged.model_id}", run_id, tags=tags, await_creation_for=30, model_id=logged.model_id
            )
    client.set_registered_model_alias(name, "current", version.version)


def _logged(client: MlflowClient, run_id: str, sha256: str) -> LoggedModel:
    """The run's model with these weights: one that an earlier try has begun, or a new one.

    A try that fails is made again, for as long as it takes, and a model holds a CLIP: each would fill the disk anew.
    """
    experiment = client.get_run(run_id).info.experiment_id
    begun = client.search_logged_models([experiment], f"tags.model_sha256 = '{sha256}'")
    mine = [model for model in begun if model.source_run_id == run_id]
    return mine[0] if mine else client.create_logged_model(experiment, "model", run_id, {"model_sha256": sha256})


def _upload(client: MlflowClient, logged: LoggedModel, variant: str, card: Mapping[str, Any], project: Path) -> None:
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory(dir=project.parent) as folder:
        save_model(
            path := f"{folder}/model",
            python_model=str(PACKAGE / "tracking" / "served.py"),
            artifacts={"project": str(project)},
            model_config={"variant": variant},
            code_paths=[str(PACKAGE)],
            signature=signature(card),
            input_example=example(card),
            pip_requirements=requirements(),
            mlflow_model=Model(
                logged.artifact_location, logged.source_run_id, model_uuid=logged.model_id, model_id=logged.model_id
            ),
        )
        client.log_model_artifacts(logged.model_id, path)


@contextlib.contextmanager
def _as_default(uri: str) -> Iterator[None]:
    """Make `uri` MLflow's default store for a while.

    Whichever store a client is of, MLflow looks for the model that becomes a version in the default one, which is
    ./mlflow.db: not the project's own where a run's working folder is another, as a grid's and a DVC queue's is.
    """
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None is its own default


def score(client: MlflowClient, event: Mapping[str, Any]) -> None:
    """Note a version's headline figure, and move `@best` to it where it is the best under its protocol."""
    name, key, value = event["name"], f"{event['measure']}.{event['protocol'][:12]}", event["value"]
    version = registered(client, name, event["model_sha256"])
    if version is None:  # trained elsewhere
        return
    client.set_model_version_tag(name, version.version, key, str(value))
    best = client.get_registered_model(name).aliases.get("best")
    if best is not None:
        before = client.get_model_version(name, best).tags.get(key)
        sign = 1 if event["higher_is_better"] else -1
        if before is None or sign * value <= sign * float(before):
            return
    client.set_registered_model_alias(name, "best", version.version)


def registered(client: MlflowClient, name: str, sha256: str, run_id: str | None = None) -> ModelVersion | None:
    """The newest version with these weights (of this run), None where there is none."""
    versions = client.search_model_versions(f"name = '{name}'" + (f" and run_id = '{run_id}'" if run_id else ""))
    found = [version for version in versions if version.tags.get("model_sha256") == sha256]
    return max(found, key=lambda version: int(version.version), default=None)


def signature(card: Mapping[str, Any]) -> ModelSignature:
    """The columns of a request that this variant can answer, all optional, and those of its answer."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    words = Array(DataType.string)
    columns: dict[str, Array | DataType] = {"captions": words, "negatives": words} if _has_captions(card) else {}
    columns |= {"image": DataType.binary, "prompt": DataType.string} if "image" in _perspectives(card) else {}
    columns |= {"class_name": DataType.string} if "class" in _perspectives(card) else {}
    columns |= {"guidance": DataType.double, "sampler": DataType.string, "steps": DataType.long}
    columns |= {"n": DataType.long, "seed": DataType.long}
    answer = {"request": DataType.long, "seed": DataType.long, "png": DataType.binary}
    return ModelSignature(
        Schema([ColSpec(kind, column, required=False) for column, kind in columns.items()]),
        Schema([ColSpec(kind, column) for column, kind in answer.items()]),
    )


def example(card: Mapping[str, Any]) -> Any:
    """A request of one picture, as a table."""
    import pandas as pd

    word = next(iter(card["class_names"]), "a picture")
    request: dict[str, Any] = {"captions": [word]} if _has_captions(card) else {}
    request |= {"class_name": word} if "class" in _perspectives(card) and card["class_names"] else {}
    return pd.DataFrame([{**request, "n": 1, "seed": 0}])


def requirements() -> list[str]:
    """What this package needs, at the versions that are installed here."""
    try:
        texts = metadata.requires("condmix") or []
    except metadata.PackageNotFoundError:  # it runs from its source, without having been installed
        texts = ["mlflow"]
    found = []
    for name in sorted({Requirement(text).name for text in texts if "extra ==" not in text}):
        try:
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:  # of another platform
            continue
    return found


def _perspectives(card: Mapping[str, Any]) -> list[str]:
    return str(card["perspectives"]).split("+")


def _has_captions(card: Mapping[str, Any]) -> bool:
    return any(name not in ("image", "class") for name in _perspectives(card))


def _create(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
