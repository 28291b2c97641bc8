"""Tracking: MLflow gets what a run was and what came out, and whatever is wrong with MLflow, the run goes on."""

import http.server
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from mlflow import MlflowClient

import condmix.tracking.runs
from condmix import CondmixError, cli
from condmix.tracking import delivery, machine
from condmix.tracking.delivery import Journal, Store, Trouble, explain, shown, sync, waiting
from condmix.tracking.runs import track
from no_delivery import NoDelivery

SOURCE = Path(__file__).parents[2] / "src"
PIXELS = np.full((8, 8, 3), 200, np.uint8)


@pytest.fixture(scope="session")
def new_store(tmp_path_factory):
    """A project with an empty database, which takes MLflow seconds to make."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(root))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Store(60)
    return root


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project without MLflow's database, whose runs leave journals."""
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    for name in ("MLFLOW_TRACKING_URI", "CONDMIX_TRACKING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(condmix.tracking.runs, "Delivery", NoDelivery)
    return root


@pytest.fixture
def store(root, new_store):
    """The same with a database: a copy, so every test moves a project."""
    shutil.copy(new_store / "mlflow.db", root)
    return root


def runs(root):
    """All runs in the project's store, the newest first."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("condmix").experiment_id])


def a_run(**given):
    """Record one metric; returns the run's id."""
    with track("experiment", {"seed": 0}, {"kind": "training"}, **given) as run:
        run.metrics({"train/loss": 0.5}, 8)
    return run.id


# ---- what MLflow gets ----


def test_a_run_is_delivered_whole(store):
    weights = store / "model.safetensors"
    weights.write_bytes(b"weights")
    with track("experiment", {"seed": 0, "long": "x" * 7000}, {"kind": "training"}) as run:
        for step in range(3):
            run.metrics({"train/loss": 0.5 / (step + 1), "eval/a class: ä&b": 1}, step)
        run.image("samples", PIXELS, 3)
        run.artifact(weights, "model")
        run.tag({"model_sha256": "ab"})
        weights.unlink()
    assert sync() == f"1 of 1 records delivered to MLflow at {store / 'mlflow.db'}"
    assert waiting() == [] and sync() == "nothing waits for MLflow"

    (found,) = runs(store)
    assert found.info.status == "FINISHED" and found.info.run_name.endswith("/experiment")
    assert found.data.params["seed"] == "0" and len(found.data.params["long"]) == 6000
    assert found.data.tags["kind"] == "training" and found.data.tags["model_sha256"] == "ab"
    assert found.data.metrics == {"train/loss": 0.5 / 3, "eval/a class: ä_b": 1}
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.25), (2, 0.5 / 3)]
    files = store / "mlartifacts" / found.info.run_id / "artifacts"
    assert (files / "model" / "model.safetensors").read_bytes() == b"weights"
    assert len(list((files / "images").iterdir())) == 2  # the picture and its thumbnail


def test_a_run_is_named_by_its_experiment_and_says_who_ran_what(store, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "demo-two-0")
    for command in (["init", "-q"], ["remote", "add", "origin", "https://me:secret@host/project.git"]):
        subprocess.run(["git", *command], check=True)
    a_run()
    sync()
    (found,) = runs(store)
    tags = found.data.tags
    assert (
        found.info.run_name == "demo-two-0/experiment"
        and tags["mlflow.source.git.repoURL"] == "https://host/project.git"
    )
    assert tags["mlflow.source.name"] == "condmix train" and tags["mlflow.user"]


def test_runs_of_a_grid_are_under_one_parent(store, monkeypatch):
    monkeypatch.setenv("CONDMIX_GRID", "demo")
    a_run()
    a_run()
    sync()
    second, first, parent = sorted(runs(store), key=lambda run: run.info.run_name == "grid demo")
    assert parent.info.run_name == "grid demo" and parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.info.run_id}


def test_a_table_of_samples_has_condition_seed_and_picture(store):
    pictures = np.stack([PIXELS, PIXELS // 2])
    with track("experiment", {}, {}) as run:
        run.table("samples.json", {"condition": ["a ring", "a disc"], "seed": [0, 1]}, pictures)
    sync()
    (found,) = runs(store)
    files = store / "mlartifacts" / found.info.run_id / "artifacts"
    table = json.loads((files / "samples.json").read_text())
    assert table["columns"] == ["condition", "seed", "picture"]
    assert [row[:2] for row in table["data"]] == [["a ring", 0], ["a disc", 1]]
    assert all(
        (store / "mlartifacts" / found.info.run_id / "artifacts" / row[2]["filepath"]).exists() for row in table["data"]
    )


def test_the_machine_is_watched_while_a_run_goes_on(store):
    with track("experiment", {}, {}):
        ended = threading.Event()
        ended.set()  # after one sample
        machine.watch(waiting()[0].folder, ended).join()
    sync()
    (found,) = runs(store)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= found.data.metrics.keys()


def test_a_journal_that_is_delivered_does_not_begin_anew(store, monkeypatch):
    """The machine is watched until the process ends, and a sample may come while the journal is deleted."""
    a_run()
    folder, rmtree = waiting()[0].folder, shutil.rmtree

    def removed(path, **given):
        for entry in Path(path).iterdir():
            entry.unlink() if entry.is_file() else rmtree(entry)
        ended = threading.Event()
        ended.set()
        for place in (folder, Path(path)):
            machine.watch(place, ended).join()
        rmtree(path, **given)

    monkeypatch.setattr(delivery.shutil, "rmtree", removed)
    sync()
    assert list(folder.parent.iterdir()) == [] and sync() == "nothing waits for MLflow"


def test_many_metrics_are_few_requests(store, monkeypatch):
    with track("experiment", {}, {}) as run:
        for step in range(600):
            run.metrics({"a": step, "b": -step}, step)
    batches = []
    log_batch = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *a, **k: batches.append(k) or log_batch(*a, **k))
    sync()
    assert len(batches) == 3 and sum(len(batch["metrics"]) for batch in batches) == 1200


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED"), (ValueError, "FAILED")]
)
def test_a_run_ends_as_it_ended(store, error, status):
    with pytest.raises(error), track("experiment", {}, {}):
        raise error
    sync()
    assert runs(store)[0].info.status == status


def test_a_run_keeps_its_own_times_however_late_it_is_delivered(store):
    before = time.time() * 1000
    a_run()
    after = time.time() * 1000
    time.sleep(0.05)
    sync()
    info = runs(store)[0].info
    assert before - 1 <= info.start_time <= info.end_time <= after + 1


def test_a_process_that_was_killed_leaves_a_run_that_ended_with_its_last_word(store):
    code = (
        "import os, signal; from condmix.tracking import runs\n"
        "runs.Delivery = lambda *a: None\n"
        "with runs.track('experiment', {}, {}) as run:\n"
        "    run.metrics({'a': 1}); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, timeout=60)
    with open(waiting()[0].folder / "events.jsonl", "a") as file:
        file.write('{"event": "metr')  # cut off by the kill
    last = waiting()[0].last_time()
    sync()
    (found,) = runs(store)
    assert (found.info.status, found.info.end_time, found.data.metrics) == ("KILLED", last, {"a": 1})


def test_an_interrupted_run_that_goes_on_is_one_run(store):
    with pytest.raises(KeyboardInterrupt), track("experiment", {}, {}) as first:
        first.metrics({"loss": 1}, 1)
        raise KeyboardInterrupt
    sync()
    with track("experiment", {}, {}, run_id=first.id) as second:
        second.metrics({"loss": 0.5}, 2)
    sync()
    (found,) = runs(store)
    assert found.info.status == "FINISHED" and found.data.metrics == {"loss": 0.5}
    assert second.id == first.id


def test_an_evaluation_adds_to_the_training_and_leaves_its_status_and_times(store):
    with track("experiment", {"guidance": 3.0}, {"kind": "training"}) as run:
        run.tag({"model_sha256": "ab"})
    joins = {"tags": {"model_sha256": "ab"}, "params": {"guidance": 3.0}}
    with pytest.raises(ValueError), track("experiment", {}, {}, joins=joins) as run:
        run.metrics({"eval/fd": 7})
        raise ValueError  # of the evaluation, not of the training
    assert len(waiting()) == 2  # the training is delivered first, or the evaluation would not find it
    end = json.loads((waiting()[0].folder / "events.jsonl").read_text().splitlines()[-1])["time"]
    sync()
    (found,) = runs(store)
    assert (found.info.status, found.info.end_time, found.data.metrics) == ("FINISHED", end, {"eval/fd": 7})

    a_run(joins={"tags": {"model_sha256": "other"}})  # trained elsewhere
    sync()
    assert len(runs(store)) == 2 and runs(store)[0].info.status == "FINISHED"


def test_a_run_that_goes_on_is_left_to_its_own_delivery(store):
    with track("experiment", {}, {}):
        assert sync().startswith("0 of 1 records delivered")
        assert len(waiting()) == 1
    assert sync().startswith("1 of 1")


# ---- a project that is moved or copied ----


def test_a_moved_project_logs_to_where_it_lies_now(store, monkeypatch):
    picture = store / "a.txt"
    picture.write_text("first")
    with track("experiment", {}, {}) as run:
        run.artifact(picture, "model")
    sync()
    elsewhere = store.with_name("elsewhere")
    store.rename(elsewhere)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("DVC_ROOT", str(elsewhere))
    with track("experiment", {}, {}) as run:
        run.artifact(elsewhere / "a.txt")
    sync()
    assert not store.exists()
    assert len(list((elsewhere / "mlartifacts").glob("*/artifacts/**/a.txt"))) == 2
    for found in runs(elsewhere):  # those of before, too: the page shows their files
        assert Path(found.info.artifact_uri.removeprefix("file://")).is_relative_to(elsewhere)


def test_another_ones_database_keeps_its_folder(store, new_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new_store / 'mlflow.db'}")
    Store(5)
    (place,) = sqlite3.connect(new_store / "mlflow.db").execute(
        "SELECT artifact_location FROM experiments WHERE name = 'condmix'"
    ).fetchone()  # fmt: skip
    assert place == (new_store / "mlartifacts").as_uri()


# ---- trouble ----


def lock(root):
    database = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    return database.close


def change(sql, back):
    def make(root):
        def run(statement):
            database = sqlite3.connect(root / "mlflow.db")
            database.execute(statement)
            database.commit()
            database.close()

        run(sql)
        return lambda: run(back)

    return make


def replaced(put):
    """put(path, whole) makes something else of a database that had these bytes."""

    def make(root):
        database, kept = root / "mlflow.db", root / "kept.db"
        database.rename(kept)
        put(database, kept.read_bytes())

        def mend():
            database.rmdir() if database.is_dir() else database.unlink()
            kept.rename(database)

        return mend

    return make


STATE = "UPDATE experiments SET lifecycle_stage = '{}' WHERE name = 'condmix'"


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lock, "mlflow.db is locked by another process"),
        (change(STATE.format("deleted"), STATE.format("active")), "was deleted in MLflow.*experiments restore"),
        (
            change(
                "UPDATE alembic_version SET version_num = 'f' || version_num",
                "UPDATE alembic_version SET version_num = substr(version_num, 2)",
            ),
            "written by another version of MLflow",
        ),
        (replaced(lambda path, whole: path.write_bytes(b"junk" * 500)), "mlflow.db is damaged"),
        (replaced(lambda path, whole: path.write_bytes(whole[:20_000])), "mlflow.db is damaged"),  # its first pages
        (replaced(lambda path, whole: path.mkdir()), "mlflow.db is a folder"),
        (replaced(lambda path, whole: os.mkfifo(path)), "mlflow.db is a pipe or a device"),
    ],
    ids=["locked", "deleted", "version", "junk", "cut", "folder", "pipe"],
)
def test_a_store_in_trouble_is_named_and_gets_the_run_when_it_is_mended(store, break_it, says):
    a_run()
    mend = break_it(store)
    with pytest.raises(Trouble, match=says) as error:
        Store(0.2)
    assert "\n" not in str(error.value)
    assert len(waiting()) == 1
    mend()
    assert sync().startswith("1 of 1 records delivered")
    assert runs(store)[0].data.metrics == {"train/loss": 0.5}


def test_a_run_waits_for_another_that_makes_the_database(root):
    """Two trainings begin at once: one makes the database, which takes longer than a server may take to answer."""
    lock = FileLock(root / ".mlflow.lock")
    lock.acquire()
    seen = []

    def busy():
        if lock.is_locked:
            seen.append("the other is at it")
            lock.release()

    Store(5, busy)
    assert seen == ["the other is at it"]


def test_a_lock_that_is_never_released_is_named(root):
    with FileLock(root / ".mlflow.lock"), pytest.raises(Trouble, match=r"another process holds .*\.mlflow\.lock"):
        Store(0.05)


def test_a_run_that_is_deleted_midway_is_delivered_to_a_new_one(store):
    with track("experiment", {}, {}) as run:
        run.metrics({"loss": 1})
        server, journal = Store(5), waiting()[0]
        server.deliver(journal)
        server.client.delete_run(journal.run_id)
        run.metrics({"loss": 2}, 1)
        with pytest.raises(Trouble, match="the run was deleted in MLflow"):
            server.deliver(journal)
    sync()
    (found,) = runs(store)
    assert found.info.status == "FINISHED" and found.data.metrics == {"loss": 2}


@pytest.fixture
def serve(monkeypatch):
    """Starts a server on which `answer(path, body)` gives a status and a body, and makes it the tracking server."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, content = answer(self.path.partition("?")[0].rpartition("mlflow/")[2], body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                with suppress(BrokenPipeError):  # of a client that has waited long enough
                    self.wfile.write(content)

            do_POST = do_PATCH = do_GET

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{server.server_port}")
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


FOREIGN = [  # JSON of a server that is not MLflow's
    b'{"hello": 1}', b"{}", b"[]", b"5", b"null", b'"x"', b'{"experiment": 5}', b'{"experiment": []}',
    b'{"experiment": null}', b'{"experiment": {"experiment_id": 5, "lifecycle_stage": "active"}}',
    b'{"experiment": {"experiment_id": "1"}}', b'{"experiment": {"experiment_id": "", "lifecycle_stage": "active"}}',
    b'{"experiment": {"experiment_id": "1", "lifecycle_stage": ["active"]}}',
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"", "answers 401: check MLFLOW_TRACKING_USERNAME"),
        (404, b"", "answers 404: it is not the address of an MLflow server"),
        (500, b"", "answers 500"),
        (503, b"", "answers 503"),
        (200, b"<html>a login page</html>", "answers with other than MLflow's JSON: it is no MLflow server"),
        *((200, body, "answers with other than MLflow's JSON: it is no MLflow server") for body in FOREIGN),
    ],
)
def test_a_server_that_refuses_is_named_at_once_and_without_its_password(root, serve, status, body, says):
    asked = []
    server = serve(lambda path, _: asked.append(path) or (status, body))
    with pytest.raises(Trouble, match=says) as error:
        Store(5)
    assert f"http://127.0.0.1:{server.server_port} " in str(error.value) + " " and "secret" not in str(error.value)
    assert len(asked) == 1  # MLflow itself would ask for minutes


def test_a_server_that_does_not_answer_is_left(root, serve):
    ended = threading.Event()
    serve(lambda *_: (200, b"" if ended.wait(60) else b""))
    try:
        with pytest.raises(Trouble, match="does not answer in time"):
            Store(1)
    finally:
        ended.set()


def test_nobody_at_the_address(root, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(Trouble, match=r"^nothing answers at http://127.0.0.1:9 \(connection refused\)$"):
        Store(5)


class SmallServer:
    """Of MLflow's server what a delivery needs; it fails while `down`, and is another one while `foreign`."""

    def __init__(self):
        self.down, self.foreign, self.metrics, self.status, self.created = False, {}, [], None, 0

    def __call__(self, path, body):
        if self.down:
            return 500, b""
        if path in self.foreign:
            return 200, self.foreign[path]
        asked = json.loads(body) if body else {}
        run = {"info": {"run_id": "r1", "lifecycle_stage": "active", "status": self.status or "RUNNING"}}
        self.metrics += [(one["key"], one["value"]) for one in asked.get("metrics", [])]
        self.status = asked.get("status", self.status)
        self.created += path == "runs/create"
        answer = {
            "experiments/get-by-name": {"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}},
            "runs/create": {"run": run}, "runs/get": {"run": run}, "runs/update": {"run_info": run["info"]},
        }.get(path, {})  # fmt: skip
        return 200, json.dumps(answer).encode()


def test_a_server_that_dies_midway_gets_the_rest_later_and_nothing_twice(root, serve):
    server = SmallServer()
    serve(server)
    with track("experiment", {}, {}) as run:
        run.metrics({"loss": 3})
        store, journal = Store(5), waiting()[0]
        store.deliver(journal)
        server.down = True
        run.metrics({"loss": 2})
        with pytest.raises(Trouble, match="answers 500"):
            store.deliver(journal)
    assert server.metrics == [("loss", 3)]
    server.down = False
    sync()
    assert server.metrics == [("loss", 3), ("loss", 2)] and server.created == 1 and server.status == "FINISHED"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs/create", b'{"hello": 1}'),
        ("runs/create", b'{"run": [1]}'),
        ("runs/create", b'{"run": {"info": {"run_id": 5}}}'),
        ("runs/search", b'{"runs": [{"info": {}}]}'),
        ("runs/log-batch", b'"x"'),
    ],
)
def test_a_server_that_turns_into_another_one_is_named_and_gets_the_run_later(root, serve, path, body):
    server = SmallServer()
    serve(server)
    a_run()
    server.foreign = {path: body, "runs/get": b'{"hello": 1}'}
    with pytest.raises(CondmixError, match="0 of 1 records delivered; .* with other than MLflow's JSON"):
        sync()
    assert len(waiting()) == 1
    server.foreign = {}
    assert sync().startswith("1 of 1") and server.metrics[-1] == ("train/loss", 0.5)


@pytest.mark.parametrize(
    "uri",
    ["./mlruns", "localhost:5000", "htp://user:secret@host", "user:secret@host:5000", "http:", "", "file:///runs"],
)
def test_an_address_that_is_none_is_refused(root, monkeypatch, uri):
    monkeypatch.setattr(delivery, "store_uri", lambda: uri)
    with pytest.raises(Trouble, match="MLFLOW_TRACKING_URI is .* but must be") as error:
        Store(1)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://user:secret@host:5000/path", "http://host:5000"),
        ("postgresql+psycopg2://user:s@cret@host/db?password=secret", "postgresql+psycopg2://host"),
        ("http://host/?token=secret", "http://host"),
        ("http://user:sec/ret@host", "the address in MLFLOW_TRACKING_URI"),
        ("http://user:12/34@host", "the address in MLFLOW_TRACKING_URI"),
        ("http://user:sec?ret@host", "the address in MLFLOW_TRACKING_URI"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:///mlflow.db", "mlflow.db"),
    ],
)
def test_an_address_is_shown_without_credentials(uri, says):
    assert shown(uri) == says
    error = RuntimeError(f"no driver for {uri}")
    assert not any(part in explain(error, uri) for part in ("secret", "s@cret", "sec/ret", "12/34", "sec?ret"))


def test_a_journal_that_fails_is_named_and_the_others_are_delivered(store, monkeypatch):
    first, second = a_run(), a_run()
    take = Store._take

    def fail(self, journal, event):
        if event.get("id") == first:
            raise ValueError("of this run")
        take(self, journal, event)

    monkeypatch.setattr(Store, "_take", fail)
    with pytest.raises(CondmixError, match=r"1 of 2 records delivered; MLflow at .* fails \(ValueError: of this run\)"):
        sync()
    assert runs(store)[0].data.tags["condmix.run"] == second


@pytest.mark.parametrize("content", [b"", b"junk\n", b"[]\n", b'{"event": "open"}\n', bytes(64)])
def test_a_journal_without_its_beginning_is_named_and_kept(store, content):
    """As a power cut leaves it."""
    a_run()
    folder = waiting()[0].folder
    (folder / "events.jsonl").write_bytes(content)
    with pytest.raises(
        CondmixError, match=r"0 of 1 records delivered; .* is damaged \(it does not begin with its run\)"
    ):
        sync()
    assert (folder / "events.jsonl").read_bytes() == content and not runs(store)
    (folder / "events.jsonl").unlink()
    with pytest.raises(CondmixError, match=r"there is no .*events.jsonl"):
        sync()


def test_lines_that_a_full_disk_cut_are_left_out(store):
    a_run()
    path = waiting()[0].folder / "events.jsonl"
    opening, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([opening, b'{"event": "met', b'{"event"}\n[5]\n', *others]))
    assert sync().startswith("1 of 1 records delivered")
    assert runs(store)[0].data.metrics["train/loss"] == 0.5


# ---- the run's side ----


def test_without_mlflow_a_run_is_not_recorded_and_says_so(root, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert a_run() is None and not (root / ".checkpoints").exists()
    assert capsys.readouterr().err == "condmix: MLflow is not installed, so this run is not tracked\n"


def test_tracking_off_is_silent(root, monkeypatch, capsys):
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    assert a_run() is None and not (root / ".checkpoints").exists()
    assert capsys.readouterr().err == ""


def test_a_journal_that_cannot_be_written_does_not_stop_a_run(root, capsys):
    (root / ".checkpoints").write_text("in the way")
    assert a_run() is None
    assert "so experiment is not tracked" in capsys.readouterr().err


def test_a_full_disk_does_not_stop_a_run(root, monkeypatch, capsys):
    with track("experiment", {}, {}) as run:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(run, "_write", full)
        run.metrics({"loss": 1})
        run.image("samples", PIXELS)
    assert "No space left on device" in capsys.readouterr().err


def process(monkeypatch, code, seconds):
    """A process of this code in place of the one that delivers."""
    popen = subprocess.Popen

    def start(command, **given):
        return popen([sys.executable, "-c", code] if "condmix.tracking.delivery" in command else command, **given)

    monkeypatch.setattr(condmix.tracking.runs.subprocess, "Popen", start)
    monkeypatch.setenv("CONDMIX_TRACKING_SECONDS", str(seconds))


@pytest.fixture
def really(root, monkeypatch):
    """The project of `root`, with a process beside its runs."""
    monkeypatch.undo()
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.delenv("CONDMIX_TRACKING", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def test_a_delivery_that_hangs_is_left(really, monkeypatch, capsys):
    process(monkeypatch, "import time; time.sleep(600)", 0.2)
    with track("experiment", {}, {}) as run:
        assert run.mlflow_id() is None
        deadline = time.monotonic() + 60
        while not run._delivery._warned and time.monotonic() < deadline:
            time.sleep(0.01)
    said = capsys.readouterr().err
    assert said.startswith("condmix: MLflow did not answer within 0.2 seconds; experiment goes on untracked, ")
    assert said.count("\n") == 1 and len(waiting()) == 1


def test_a_delivery_that_crashes_is_said_once(really, monkeypatch, capsys):
    process(monkeypatch, "raise SystemExit(3)", 30)
    with track("experiment", {}, {}) as run:
        assert run.mlflow_id() is None  # does not wait for it
    said = capsys.readouterr().err
    assert "the process that delivers it has ended" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (None, r"nothing answers at http://127.0.0.1:9 \(connection refused\)"),
        (b'{"hello": 1}', r"http://127.0.0.1:\d+ answers with other than MLflow's JSON: it is no MLflow server"),
    ],
    ids=["dead", "foreign"],
)
def test_a_training_without_an_mlflow_server_ends_with_its_model_and_one_warning(
    project, monkeypatch, capfd, serve, body, says
):
    from condmix.stages.train import run as training

    monkeypatch.delenv("CONDMIX_TRACKING", raising=False)
    if body is None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    else:
        serve(lambda *_: (200, body))
    monkeypatch.setenv("CONDMIX_TRACKING_SECONDS", "60")
    few_steps = project.diffusion.model_copy(update={"steps": 5})  # fewer than a preview's usual 10
    training(project.model_copy(update={"diffusion": few_steps}), "experiment")
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("condmix: ")]
    assert len(said) == 1 and "secret" not in said[0]
    assert re.match(f"condmix: {says}; experiment goes on untracked, ", said[0])
    assert (project.paths.model("experiment") / "model.safetensors").exists()
    assert json.loads((project.paths.model("experiment") / "model.json").read_text())["mlflow_run"] is None
    (journal,) = waiting()
    events = [json.loads(line) for line in (journal.folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("image") == 4
    assert events[-1] | {"time": 0} == {"event": "end", "time": 0, "status": "FINISHED"}


def test_a_run_and_its_delivery_end_together_with_everything_delivered(really, new_store, monkeypatch, capsys):
    monkeypatch.setenv("CONDMIX_TRACKING_SECONDS", "60")
    shutil.copy(new_store / "mlflow.db", really)
    monkeypatch.setattr(condmix.tracking.runs, "Delivery", NoDelivery)
    older = a_run()
    monkeypatch.undo()
    monkeypatch.chdir(really)
    monkeypatch.setenv("DVC_ROOT", str(really))
    monkeypatch.setenv("CONDMIX_TRACKING_SECONDS", "60")
    with track("experiment", {}, {}) as run:
        run.metrics({"loss": 1})
        mlflow_id = run.mlflow_id()
    assert capsys.readouterr().err == "" and waiting() == []
    first, second = runs(really)
    assert first.info.run_id == mlflow_id and first.info.status == "FINISHED"
    assert second.data.tags["condmix.run"] == older  # what an earlier run left is delivered, too


def test_the_command(store, root):
    a_run()
    done = CliRunner().invoke(cli.main, ["tracking", "sync"])
    assert (done.exit_code, done.output) == (0, f"1 of 1 records delivered to MLflow at {root / 'mlflow.db'}\n")


# ---- conditions ----


def test_what_made_a_figure_is_in_the_card_and_the_tags(project, monkeypatch, tmp_path):
    import torch

    from condmix.diffusion.model import read_card
    from condmix.stages.train import run as training

    monkeypatch.delenv("CONDMIX_TRACKING", raising=False)
    monkeypatch.setattr(condmix.tracking.runs, "Delivery", NoDelivery)
    training(project, "experiment")
    card = read_card(project.paths.model("experiment"))
    made = card["environment"]
    assert card["precision"] == made["precision"] in ("bf16", "fp32") and made["processes"] == 1
    assert made["threads"] == torch.get_num_threads() and made["torch"] == torch.__version__ and made["cpu"]
    assert (made["kernels"] or "torch").split()[0] in ("condmix", "torch")
    (journal,) = waiting()
    events = [json.loads(line) for line in (journal.folder / "events.jsonl").read_text().splitlines()]
    tags = {key: value for event in events if event["event"] == "tags" for key, value in event["values"].items()}
    assert tags["environment.precision"] == made["precision"] and tags["environment.threads"] == str(made["threads"])


def test_auto_is_resolved_to_what_the_hardware_computes_in(monkeypatch):
    import torch

    from condmix.runtime.precision import resolved

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for amx, avx, expected in ((True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has=amx: has)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=avx: has)
        assert resolved("auto") == expected
    assert (resolved("bf16"), resolved("fp32")) == ("bf16", "fp32")


def test_journal_of_another_process_is_left_to_it(root):
    a_run()
    folder = waiting()[0].folder
    with Journal(folder).alone() as mine, Journal(folder).alone() as other:
        assert (mine, other) == (True, False)
    assert delivery.deliver_ended(SimpleNamespace(deliver=lambda j: None, close=lambda j: None), waiting()) == ([], 1)
