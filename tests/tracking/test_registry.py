"""A trained variant as a model of MLflow's: it draws and serves, and its aliases follow the last and the best one."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

import condmix
import condmix.tracking.runs
from condmix import CondmixError
from condmix.diffusion.model import read_card
from condmix.stages.train import run as training
from condmix.tracking import registry
from condmix.tracking.delivery import sync
from condmix.tracking.runs import track
from no_delivery import NoDelivery
from tiny_project import make_project

NAME = "condmix-tiny-experiment"
OTHER = "condmix-tiny-class_v1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny project with two variants trained, and all of it delivered to MLflow."""
    project = make_project(tmp_path_factory.mktemp("trained"))
    uri = f"sqlite:///{project.root / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setenv("DVC_ROOT", str(project.root))
        for name in ("CONDMIX_TRACKING", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        patch.setattr(condmix.tracking.runs, "Delivery", NoDelivery)
        retrained(project, 0)
        retrained(project, 0, "class_v1")
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        yield project
        mlflow.set_tracking_uri(None)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_registered_model_draws_what_condmix_load_draws(trained):
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@current")
    for unknown in ({"caption": "a ring"}, {}):
        with pytest.raises(MlflowException, match="the request has none of this model's columns: .*class_name, .*seed"):
            model.predict(pd.DataFrame([unknown]))
    drawn = model.predict(pd.DataFrame([{"class_name": "round", "n": 2, "seed": 3, "guidance": 1.5}]))
    own = condmix.load("experiment").draw(class_name="round", n=2, seed=3, guidance=1.5)
    assert list(drawn["seed"]) == [3, 4] and list(drawn["request"]) == [0, 0]
    assert np.array_equal(np.stack([opened(png) for png in drawn["png"]]), own)
    record = json.loads(Image.open(io.BytesIO(drawn["png"][1])).info["condmix"])
    assert record["request"]["class_name"] == "round" and record["request"]["seed"] == 3 and record["picture"] == 1


def test_its_signature_has_what_the_variant_sees_and_its_example_is_drawn(trained):
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@current")
    inputs = model.metadata.get_input_schema()
    assert {"captions", "class_name", "n", "seed"} <= set(inputs.input_names()) and "image" not in inputs.input_names()
    assert set(model.input_example.columns) == {"captions", "class_name", "n", "seed"}
    assert any(line.startswith("torch==") for line in registry.requirements())


def test_what_cannot_be_drawn_is_one_sentence(trained):
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@current")
    with pytest.raises(MlflowException, match='request 0: no class "rond"; found: .*did you mean "round"') as error:
        model.predict(pd.DataFrame([{"class_name": "rond"}]))
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


def test_the_version_knows_its_run_and_its_data(trained):
    client = MlflowClient()
    version = client.get_model_version_by_alias(NAME, "current")
    card = read_card(trained.paths.model("experiment"))
    assert version.tags["model_sha256"] == card["sha256"] and version.tags["fusion"] == "concat"
    run = client.get_run(version.run_id)
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "tiny/train" and card["dataset_sha256"].startswith(data.dataset.digest)
    assert [tag.value for tag in data.tags] == ["training"]
    assert run.outputs.model_outputs[0].model_id and run.data.metrics["train/images_per_second"] > 0
    assert run.data.tags["mlflow.source.name"] == "condmix train" and run.data.tags["mlflow.user"]


def scored(project, value, protocol="a", variant="experiment", measure="scene_accuracy", better=True):
    """Judge the weights that lie there."""
    sha256 = read_card(project.paths.model(variant))["sha256"]
    with track(variant, {}, {"kind": "evaluation"}, joins={"tags": {"model_sha256": sha256}}) as run:
        figure = {"measure": measure, "value": value, "higher_is_better": better, "protocol": protocol}
        run.score(f"condmix-tiny-{variant}", {"model_sha256": sha256, **figure})
    sync()


def retrained(project, seed, variant="experiment"):
    training(project.model_copy(update={"seed": seed}), variant)
    sync()


def aliases(name=NAME):
    found = MlflowClient().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def test_best_moves_when_the_figure_improves_and_current_with_each_training(trained):
    assert aliases() == {"current": 1}
    scored(trained, 0.5)
    assert aliases() == {"current": 1, "best": 1}
    retrained(trained, 1)
    scored(trained, 0.4)
    assert aliases() == {"current": 2, "best": 1}
    scored(trained, 0.9, protocol="b")  # not comparable
    assert aliases() == {"current": 2, "best": 1}
    retrained(trained, 2)
    scored(trained, 0.6)
    assert aliases() == {"current": 3, "best": 3}


def test_a_run_in_another_folder_is_registered_in_its_project(trained, tmp_path, monkeypatch):
    """As the runs of a grid and of DVC's queue are: without an address, their store is the project's."""
    before = aliases()["current"]
    training(trained.model_copy(update={"seed": 3}), "experiment")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(None)
    assert "1 of 1" in sync() and not list(tmp_path.iterdir())
    assert "MLFLOW_TRACKING_URI" not in os.environ
    mlflow.set_tracking_uri(f"sqlite:///{trained.root / 'mlflow.db'}")
    assert aliases()["current"] == before + 1


@pytest.mark.parametrize(("seed", "step"), [(4, "finalize_logged_model"), (5, "create_model_version")])
def test_a_model_that_could_not_be_registered_is_not_logged_anew(trained, monkeypatch, seed, step):
    def models():
        return sorted(path.name for path in (trained.root / "mlartifacts" / "models").iterdir())

    def broken(*arguments, **options):
        raise OSError("not now")

    before = models()
    training(trained.model_copy(update={"seed": seed}), "experiment")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, broken)
        for _ in range(3):
            with pytest.raises(CondmixError, match="not now"):
                sync()
    after = models()
    assert len(after) == len(before) + 1
    assert "1 of 1" in sync() and models() == after
    source = MlflowClient().get_model_version_by_alias(NAME, "current").source
    assert {source.removeprefix("models:/")} == set(after) - set(before)


def test_a_distance_is_better_when_it_is_smaller(trained):
    figure = {"variant": "class_v1", "measure": "fid", "better": False}
    scored(trained, 7.0, **figure)
    retrained(trained, 1, "class_v1")
    scored(trained, 6.0, **figure)
    assert aliases(OTHER) == {"current": 2, "best": 2}


@pytest.mark.slow
def test_a_model_answers_over_http(trained):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{NAME}@current"]
    server = subprocess.Popen([*command, "--env-manager", "local", "--port", str(port)], env=os.environ)
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server)
        answer = post(port, [{"class_name": "round", "n": 2, "seed": 3}])
        pictures = [opened(base64.b64decode(row["png"])) for row in answer["predictions"]]
        assert np.array_equal(np.stack(pictures), condmix.load("experiment").draw(class_name="round", n=2, seed=3))
        with pytest.raises(urllib.error.HTTPError) as error:
            post(port, [{"class_name": "rond"}])
        assert error.value.code == 400 and b'did you mean \\"round\\"' in error.value.read()
    finally:
        server.terminate()
        server.wait(60)


def post(port, rows):
    body = json.dumps({"dataframe_records": rows}).encode()
    url = f"http://127.0.0.1:{port}/invocations"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=300))


def wait_for(url, server):
    deadline = time.monotonic() + 900  # on a machine that does much else
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return urllib.request.urlopen(url, timeout=5)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")
