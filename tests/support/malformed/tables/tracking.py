"""MLflow's store: training goes on whatever it is."""

from __future__ import annotations

from collections.abc import Iterator

from malformed import damage as d
from malformed.runner import Case
from malformed.tables import (
    TRAIN,
)
from malformed.tables.fetching import execute


def cases() -> Iterator[Case]:
    """Training goes on whatever the store is: the results must be those of the undamaged store."""
    store = {
        "empty": d.replaced(b""),
        "noise": d.replaced(bytes(range(256)) * 40),
        "text": d.replaced("not a database"),
        "half": d.edited(lambda data: data[: len(data) // 2]),
        **d.places(),
    }
    for what, damage in store.items():
        yield Case(
            "tracking",
            f"mlflow.db {what}",
            "tracked",
            lambda project, damage=damage: damage(project / "mlflow.db"),
            (TRAIN,),
            "mlflow.db",
            environment={"CONDMIX_TRACKING": "on"},
        )
    statements = {
        "of another version": "UPDATE alembic_version SET version_num = 'ffffffffffff'",
        "experiment deleted": "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'condmix'",
        "runs deleted": "UPDATE runs SET lifecycle_stage = 'deleted'",
        "no runs": "DROP TABLE runs",
        "no experiments": "DROP TABLE experiments",
    }
    for what, statement in statements.items():
        yield Case(
            "tracking",
            f"mlflow.db {what}",
            "tracked",
            lambda project, statement=statement: execute(project / "mlflow.db", statement),
            (TRAIN,),
            "mlflow.db",
            environment={"CONDMIX_TRACKING": "on"},
        )
    for uri in (
        "./mlruns",
        "localhost:5000",
        "htp://x",
        "sqlite:////missing",
        "http://127.0.0.1:9",
        "http://user:secret@127.0.0.1:9",
        "sqlite:///params.yaml",
        "file:///proc/x",
        "http://a..b",
    ):
        yield Case(
            "tracking",
            f"MLFLOW_TRACKING_URI {uri}",
            "tracked",
            lambda _: None,
            (TRAIN,),
            environment={"CONDMIX_TRACKING": "on", "MLFLOW_TRACKING_URI": uri},
        )
