"""Training against PostgreSQL, an S3-type server and MLflow's server while each of them is killed: `make test-slow`."""

import csv
import time

import mlflow
import pytest
from mlflow import MlflowClient

from condmix.stages.train import run as training
from condmix.tracking.delivery import sync, waiting
from condmix.training.trainer import Trainer
from dvc_project import TINY, Project
from servers import Mlflow, Postgres, Store, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}")]
KILLED, BACK = {10: 0, 30: 1, 50: 2}, {20: 0, 40: 1, 60: 2}  # step: which of the three servers
STEPS = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def store(folder):
    store = Store(folder).start()
    yield store
    store.kill()


@pytest.fixture(scope="module")
def servers(folder, store):
    postgres = Postgres().start()
    server = Mlflow(folder, postgres, store).start()
    yield postgres, store, server
    server.kill()
    postgres.remove()


def test_training_goes_on_whichever_server_dies_and_mlflow_gets_everything(project, servers, monkeypatch):
    postgres, store, server = servers
    monkeypatch.delenv("CONDMIX_TRACKING", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("CONDMIX_TRACKING_SECONDS", "120")
    advance = Trainer.advance

    def step(self, number):
        if number in KILLED:
            until(lambda: known(server.uri) > 0)
            servers[KILLED[number]].kill()
        if number in BACK:
            servers[BACK[number]].again()
            until(lambda: known(server.uri) >= number - 2)  # what was logged while it was down has arrived
        return advance(self, number)

    monkeypatch.setattr(Trainer, "advance", step)
    train = project.train.model_copy(update={"images": 8 * STEPS, "log_every": 1})
    training(project.model_copy(update={"train": train}), "experiment")
    if waiting():
        sync()

    client = MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("condmix").experiment_id])
    with open(project.paths.metrics / "losses" / "experiment.csv") as file:
        curve = [(int(float(row["images"])), float(row["loss"])) for row in csv.DictReader(file)]
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, pytest.approx(point.value)) for point in points] == curve and len(curve) == STEPS
    assert run.info.status == "FINISHED" and waiting() == []
    pictures = [one for one in client.list_artifacts(run.info.run_id, "images") if one.path.endswith(".png")]
    assert len(pictures) == 4
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: server.uri)
    mlflow.set_tracking_uri(server.uri)
    try:
        model = mlflow.pyfunc.load_model("models:/condmix-tiny-experiment@current")
    finally:
        mlflow.set_tracking_uri(None)
    assert len(model.predict([{"class_name": "round", "n": 2, "steps": 2}])) == 2


def known(uri):
    """How many losses MLflow has; 0 while it can't say."""
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("condmix")
        (run,) = client.search_runs([experiment.experiment_id])
        return len(client.get_metric_history(run.info.run_id, "train/loss"))
    except Exception:
        return 0


def until(true):
    deadline = time.monotonic() + 600
    while not true():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_the_store_is_a_remote_of_dvc(store, tmp_path):
    made = Project.create(tmp_path / "made", "tiny", TINY)
    made.environment |= store.access
    for key, value in (("user.name", "t"), ("user.email", "t@t")):
        made.run("git", "config", key, value)
    made.run("dvc", "remote", "add", "--default", "storage", "s3://dvc/condmix")
    made.run("dvc", "repro", "check", "fetch")
    made.commit("fetched")
    made.run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "git"))
    made.run("git", "remote", "add", "origin", str(tmp_path / "git"))
    made.run("git", "push", "-q", "origin", "main")
    made.run("dvc", "push")

    there = tmp_path / "there"
    made.run("git", "clone", "-q", str(tmp_path / "git"), str(there))
    made.run("dvc", "--cd", str(there), "pull", "check", "fetch")
    assert archives(there) == archives(made.folder) != {}
    assert made.ran(made.run("dvc", "--cd", str(there), "repro", "fetch").stdout) == set()

    made.run("dvc", "exp", "run", "-n", "sent", "-S", "conf/tiny.yaml:data.world.seed=8", "fetch")
    made.run("dvc", "exp", "push", "origin", "sent")
    made.run("dvc", "--cd", str(there), "exp", "pull", "origin", "sent")
    assert archives(there) != archives(made.folder)
    made.run("dvc", "--cd", str(there), "exp", "branch", "sent", "sent")
    made.run("git", "-C", str(there), "checkout", "-q", "sent")
    made.run("dvc", "--cd", str(there), "checkout", "fetch")  # `exp apply` fails where stages have never run
    assert archives(there) == archives(made.folder)


def archives(project):
    """{name: content} of what the stage `fetch` writes."""
    folder = project / "data" / "tiny" / "archives"
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
