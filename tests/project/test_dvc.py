"""The pipeline under DVC itself, on a world of 60 scenes: what runs, what does not run again, what is tracked."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from PIL import Image

from condmix import pipeline
from condmix.cli import main
from condmix.settings.variants import REFERENCES
from dvc_project import ROOT

VARIANTS = ["class_v1", "class_v2", "caption", "experiment"]


@pytest.fixture(scope="module")
def project(reproduced, tmp_path_factory):
    return reproduced.copy(tmp_path_factory.mktemp("project") / "project")


def test_every_output_of_the_contract_is_there(project):
    for variant in VARIANTS:
        assert (project.folder / "models" / variant / "model.safetensors").exists()
        metrics = project.metrics(variant)
        assert metrics["variant"] == variant and metrics["n"] == 8 and metrics["guidance"] == 2.0
        assert metrics["sampler"] == "dpmpp_2m_sde" and metrics["steps"] == 2 and metrics["seed"] == 0
        assert metrics["fd_judge"] >= 0 and metrics["fd_clip"] >= 0
        for shares in (metrics["attribute_accuracy"], metrics["judge_accuracy"]):
            assert shares and all(0 <= share <= 1 for share in shares.values())
        assert [row["guidance"] for row in metrics["sweep"]] == [1.0, 3.0]
        assert ("oracle" in metrics) == variant.startswith("class")
    page = (project.folder / "metrics/report/index.html").read_text()
    assert all(variant in page for variant in VARIANTS)


def test_processes_of_a_launcher_draw_the_same_pictures(project):
    details = project.folder / "metrics/details/experiment/captions.npy"
    one, metrics = np.load(details).astype(int), project.metrics("experiment")
    launcher = [project.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    project.run(*launcher, "-m", "condmix", "evaluate", "experiment")
    assert abs(np.load(details).astype(int) - one).max() <= 1  # a batch of another size rounds otherwise
    assert project.metrics("experiment")["fd_judge"] == pytest.approx(metrics["fd_judge"], rel=0.01)
    assert not (project.folder / "data/tiny/drawn/experiment").exists()
    project.run("git", "checkout", "--", "metrics/headline")  # as the other tests expect it
    project.run("dvc", "checkout", "--force")


def test_a_second_repro_runs_nothing(project):
    done = project.run("dvc", "repro")
    assert project.ran(done.stdout) == set()
    assert "up to date" in done.stdout
    assert not project.run("git", "status", "--porcelain").stdout  # dvc.lock and the metrics are committed


def test_dvc_shows_five_to_eight_figures_of_each_variant(project):
    shown = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)[""]["data"]
    assert shown.keys() == {f"metrics/headline/{variant}.json" for variant in VARIANTS}
    for variant in VARIANTS:
        figures, metrics = shown[f"metrics/headline/{variant}.json"]["data"], project.metrics(variant)
        assert 5 <= len(figures) <= 8 and figures == {key: metrics[key] for key in figures}
        assert {"scene_accuracy", "fd_judge", "fd_clip"} <= figures.keys()


def test_plots_are_one_of_all_losses_and_one_picture_of_each_variant(project):
    plots = json.loads(project.run("dvc", "plots", "show", "--json").stdout)["data"]
    pictures = {f"metrics/samples/{variant}.png" for variant in VARIANTS}
    assert {name for name in plots if not name.startswith("metrics/experiments/")} == {"Training loss", *pictures}
    curves = {point["filename"] for point in plots["Training loss"][0]["content"]["data"]["values"]}
    assert curves == {f"{variant}.csv" for variant in VARIANTS}


def test_the_registry_and_the_loss_plot_name_every_variant():
    content = pipeline.read(ROOT)
    variants = {*REFERENCES, "experiment"}
    assert {entry["path"] for entry in content["artifacts"].values()} == {f"models/{name}" for name in variants}
    (loss,) = (plot["Training loss"] for plot in content["plots"] if "Training loss" in plot)
    assert loss["y"].keys() == {f"metrics/losses/{name}.csv" for name in variants}


def test_the_summary(project):
    table = project.run("condmix", "summary").stdout
    assert all(variant in table for variant in VARIANTS) and "mlflow ui" in table


def test_an_experiment_retrains_only_its_variant(project):
    before = {variant: project.metrics(variant) for variant in VARIANTS}
    done = project.run("dvc", "exp", "run", "-S", "fusion=additive")
    ran = project.ran(done.stdout)
    assert {stage for stage in ran if stage.startswith(("train", "evaluate"))} == {
        "train@experiment",
        "evaluate@experiment",
    }
    assert not ran & {"fetch", "prepare", "captions", "encode", "judge", "embed"}
    assert project.metrics("experiment")["fusion"] == "additive"
    assert all(project.metrics(variant) == before[variant] for variant in VARIANTS[:3])
    assert "additive" in project.run("dvc", "exp", "show", "--csv").stdout
    project.run("git", "checkout", "-q", ".")


@pytest.fixture(scope="module")
def tracked(project):
    """MLflow's client for what the project's commands have tracked."""
    return MlflowClient(f"sqlite:///{project.folder}/mlflow.db")


def test_every_training_is_one_tracked_run_with_what_it_was_and_what_came_out(tracked):
    runs = tracked.search_runs([tracked.get_experiment_by_name("condmix").experiment_id])
    assert len(runs) >= 4
    by_variant = {(run.data.params["variant"], run.data.params["fusion"]): run for run in runs}
    for variant, fusion in [("class_v1", "concat"), ("class_v2", "additive"), ("caption", "additive")]:
        run = by_variant[variant, fusion]
        params, tags, metrics = run.data.params, run.data.tags, run.data.metrics
        assert run.info.status == "FINISHED"
        assert params["profile"] == "tiny" and params["guidance"] == "2.0" and params["seed"] == "0"
        assert params["perspectives"] and params["encoder"].startswith("clip sha256:")
        assert len(tags["model_sha256"]) == 64 and tags["git_commit"]
        assert {"train/loss", "eval/fd_judge", "eval/attribute_accuracy_mean"} <= metrics.keys()
        assert 5 <= sum(name.startswith("eval/") for name in metrics) <= 8
        artifacts = {artifact.path for artifact in tracked.list_artifacts(run.info.run_id)}
        assert {"images", "samples.json", "metrics"} <= artifacts


def test_every_variant_is_a_model_with_a_best_and_a_current_version(tracked):
    found = {
        model.name: {alias: int(version) for alias, version in model.aliases.items()}
        for model in tracked.search_registered_models()
    }
    assert found.keys() == {f"condmix-tiny-{variant}" for variant in VARIANTS}
    trained_again = found.pop("condmix-tiny-experiment")  # in the experiment above
    assert trained_again["current"] == 2 and trained_again["best"] in (1, 2)
    assert all(aliases == {"best": 1, "current": 1} for aliases in found.values())


def test_a_fusion_that_does_not_exist_fails_at_once_in_our_words(project):
    done = project.run("dvc", "exp", "run", "-S", "fusion=addtive", fails=True)
    said = done.stderr + done.stdout
    assert 'no fusion "addtive"; found: additive, ' in said and 'did you mean "additive"?' in said
    assert project.ran(done.stdout) == {"check"}
    project.run("git", "checkout", "-q", ".")


@pytest.mark.parametrize(
    "given",
    [
        ["--caption", "a small red ring", "--caption", "something in the centre"],
        ["--caption", "a small red ring"],
        ["--variant", "class_v1", "--class", "ring", "--image", "picture.png"],
        ["--variant", "class_v2", "--prompt", "a red ring", "--guidance", "1", "--sampler", "ddim", "--steps", "3"],
        [],
    ],
)
def test_generate_draws_from_any_subset(project, monkeypatch, given):
    monkeypatch.chdir(project.folder)
    Image.new("RGB", (40, 32), "red").save("picture.png")
    done = CliRunner().invoke(main, ["generate", "--n", "4", "--scale", "1", "--out", "grid.png", *given])
    assert done.exit_code == 0, done.output
    with Image.open("grid.png") as grid:
        assert grid.size == (2 * 17 + 1, 2 * 17 + 1)


def test_generate_is_a_command_of_the_shell(project):
    project.run("condmix", "generate", "--out", "shell.png")
    assert (project.folder / "shell.png").stat().st_size > 100


def test_debug_shows_the_traceback(project):
    assert "Traceback" in project.run("condmix", "--debug", "hash", "absent", fails=True).stderr
    assert "Traceback" not in project.run("condmix", "hash", "absent", fails=True).stderr


# ---- a remote (docs/remote.md) ----


@pytest.fixture(scope="module")
def shared(project, tmp_path_factory):
    """The project with what it made pushed: its repository to a bare one, its cache to a folder."""
    folder = tmp_path_factory.mktemp("shared")
    for key, value in (("user.name", "t"), ("user.email", "t@t")):
        project.run("git", "config", key, value)
    project.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "git"))
    project.run("git", "remote", "add", "origin", str(folder / "git"))
    project.run("dvc", "remote", "add", "--default", "storage", str(folder / "storage"))
    project.run("git", "commit", "-qm", "DVC remote", ".dvc/config")
    project.run("dvc", "push", "-q")
    project.run("git", "push", "-q", "origin", "main")
    return folder


def clone(project, shared, folder):
    project.run("git", "clone", "-q", str(shared / "git"), str(folder))
    return folder


def test_a_clone_pulls_everything_and_computes_nothing(project, shared, tmp_path):
    there = clone(project, shared, tmp_path / "there")
    project.run("dvc", "--cd", str(there), "pull", "-q")
    done = project.run("dvc", "--cd", str(there), "repro")
    assert project.ran(done.stdout) == set() and "up to date" in done.stdout
    for name in ("models/experiment/model.safetensors", "metrics/experiment.json", "metrics/samples/caption.png"):
        assert (there / name).read_bytes() == (project.folder / name).read_bytes()


def test_an_experiment_reaches_a_clone_with_its_files(project, shared, tmp_path):
    project.run("dvc", "exp", "run", "-q", "-n", "sent", "-S", "guidance=3", "evaluate@experiment")
    made = project.metrics("experiment")
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "exp", "push", "origin", "sent")
    there = clone(project, shared, tmp_path / "there")
    project.run("dvc", "--cd", str(there), "exp", "pull", "origin", "sent")
    project.run("dvc", "--cd", str(there), "exp", "apply", "sent")
    found = json.loads((there / "metrics" / "experiment.json").read_text())
    assert found == made and found["guidance"] == 3


def test_a_registered_model_is_fetched_by_its_version(project, shared, tmp_path):
    project.run("gto", "register", "experiment")
    project.run("git", "push", "-q", "origin", "experiment@v0.0.1")
    got = tmp_path / "model"
    url = str(shared / "git")
    project.run("dvc", "artifacts", "get", url, "experiment", "--rev", "v0.0.1", "-o", str(got))
    model = project.folder / "models" / "experiment" / "model.safetensors"
    assert (got / "model.safetensors").read_bytes() == model.read_bytes()
