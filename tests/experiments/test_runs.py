"""Grids of experiments: what a grid file may say, what makes a run stale, and that a kill loses nothing finished."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from condmix import CondmixError
from condmix.experiments.evidence import collect, evidence, table
from condmix.experiments.grid import cost, done, plan, read_grid
from condmix.experiments.runner import run_grid
from condmix.files.artifacts import write_checked_json
from dvc_project import TINY
from grid_project import GRID, Repository, changed, write_grid

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"baseline": "oen"}, 'baseline: no experiment "oen"; found: one, two; did you mean "one"?'),
        (changed(against="three"), 'experiments.two.against: no experiment "three"'),
        (changed(also_against=["one", "three"]), 'experiments.two.also_against: no experiment "three"'),
        (changed(fusoin="mean"), 'no setting "experiments.two.fusoin"; found: experiments.two.against'),
        (changed(perspectives=[]), "experiments.two.perspectives is []"),
        ({"seeds": [0, 0]}, "seeds names one twice: 0, 0"),
        (changed(seeds=[1, 1]), "experiments.two.seeds names one twice: 1, 1"),
        (changed(seeds=[]), "experiments.two.seeds is []"),
        ({"settings": {"train.processes": 2}}, "leave out train.processes"),
        ({"seeds": [2**32]}, "seeds.0 is 4294967296"),
        ({"seeds": []}, "seeds is []"),
        (changed(guidance=float("inf")), "experiments.two.guidance is inf"),
        ({"experiments": {}}, "experiments: list at least 1"),
    ],
)
def test_a_grid_file_is_refused_in_one_sentence(tmp_path, changes, says):
    write_grid(tmp_path, **changes)
    with pytest.raises(CondmixError) as error:
        read_grid(tmp_path, "small")
    assert says in str(error.value) and "\n" not in str(error.value)
    assert "conf/experiments/small.yaml" in str(error.value)


@pytest.mark.parametrize(("line", "says"), [("name: x", "leave out name"), ("1: 2", "the key 1 is not text")])
def test_keys_that_no_grid_has(tmp_path, line, says):
    write_grid(tmp_path)
    path = tmp_path / "conf" / "experiments" / "small.yaml"
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(CondmixError, match=says):
        read_grid(tmp_path, "small")


def test_a_grid_that_does_not_exist(tmp_path):
    write_grid(tmp_path)
    with pytest.raises(CondmixError, match='no grid "smal"; found: small; did you mean "small"'):
        read_grid(tmp_path, "smal")


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "conf" / "experiments").glob("*.yaml")))
def test_several_captions_are_compared_with_one_caption_of_the_same_fusion(name):
    experiments = read_grid(ROOT, name).experiments
    alone = {
        one.fusion: key for key, one in experiments.items() if one.perspectives == ("caption_1",) and not one.control
    }
    for key, one in experiments.items():
        several = len(one.perspectives) > 1 and all(place.startswith("caption") for place in one.perspectives)
        if alone and (several or "joined" in key):
            assert alone[one.fusion] in (one.against or read_grid(ROOT, name).baseline, *one.also_against), key


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(tmp_path_factory.mktemp("repository"))


def test_names_say_what_a_run_is_with_seeds_outermost(repository):
    names = repository.names()
    assert [name.rsplit("-", 1)[0] for name in names] == ["small-one-0", "small-two-0", "small-one-1", "small-two-1"]
    assert len({name.rsplit("-", 1)[1] for name in names}) == 4


def test_an_experiment_may_have_seeds_of_its_own(repository):
    usual, own = repository.names(), repository.names(**changed(seeds=[1, 5]))
    assert own[:3] == [name for name in usual if "two-0" not in name]
    assert [name.rsplit("-", 1)[0] for name in own[3:]] == ["small-two-5"]


def test_only_what_decides_a_result_makes_a_run_stale(repository):
    before = repository.names()
    repository.append("README.md", "more\n")
    repository.append("src/condmix/stages/report.py", "# more\n")
    repository.append("src/condmix/fusions/film.py", "# more\n")
    repository.append("src/condmix/datasets/webdataset.py", "# more\n")
    repository.write("metrics/headline/experiment.json", "{}")
    assert repository.names(experiments={**GRID["experiments"], "more": GRID["experiments"]["two"]})[:2] == before[:2]
    assert repository.names() == before

    repository.append("src/condmix/fusions/mean.py", "# more\n")
    fusion = repository.names()
    assert fusion[::2] == before[::2] and not set(fusion[1::2]) & set(before[1::2])
    assert not set(repository.names(settings={"train.images": 48})) & set(fusion)
    repository.append("src/condmix/diffusion/unet.py", "# more\n")
    code = repository.names()
    assert not set(code) & set(fusion)
    lock = (repository.folder / "dvc.lock").read_text()
    repository.write("dvc.lock", lock.replace("md5: clip", "md5: clip-of-another-machine"))
    assert repository.names() == code
    repository.write("dvc.lock", lock.replace("md5: archives", "md5: other"))
    assert not set(repository.names()) & set(code)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (changed(fusion="maen"), 'two: params.yaml: no fusion "maen"'),
        (changed(settings={"train.image": 3}), 'two: conf/tiny.yaml: no setting "train.image"'),
        (changed(settings={"train.images": "many"}), "two: conf/tiny.yaml: train.images is 'many'"),
    ],
)
def test_settings_of_a_grid_are_checked_before_anything_runs(repository, changes, says):
    with pytest.raises(CondmixError) as error:
        repository.names(**changes)
    assert says in str(error.value) and str(error.value).startswith("conf/experiments/small.yaml: ")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("dvc.lock", "", "dvc.lock at HEAD must be a mapping"),
        ("dvc.lock", "stages: {encode: 5}", "dvc.lock at HEAD is not what DVC writes (stages.encode: "),
        ("dvc.yaml", "stages: {a: [", "dvc.yaml at HEAD is not valid YAML"),
        ("dvc.yaml", "stages: {evaluate: {cmd: x, deps: 5}}", "(stages.evaluate.deps: "),
        ("dvc.yaml", "stages: {}", "dvc.yaml has no stage evaluate"),
        ("params.yaml", "- 1", "params.yaml at HEAD must be a mapping"),
    ],
)
def test_files_that_are_damaged_at_the_commit_are_named(repository, name, text, says):
    before = (repository.folder / name).read_text()
    repository.write(name, text)
    try:
        with pytest.raises(CondmixError) as error:
            repository.names()
        assert says in str(error.value) and "\n" not in str(error.value)
    finally:
        repository.write(name, before)


def test_only_experiments_of_the_grid_can_be_asked_for(repository):
    write_grid(repository.folder)
    grid = read_grid(repository.folder, "small")
    with pytest.raises(CondmixError, match='grid small: no experiment "tow"; found: one, two'):
        run_grid(repository.folder, grid, 1, ["tow"])


def test_cost_is_scaled_from_a_reproduced_model_or_not_known(repository):
    write_grid(repository.folder, settings={"train.images": 600, "evaluate.n": 30})
    grid = read_grid(repository.folder, "small")
    runs = plan(repository.folder, grid)
    assert cost(repository.folder, grid, runs, {})[0] is None
    assert "4 of 4 runs are missing; what they will cost is not known" in table(repository.folder, grid)
    for folder in ("models/caption", "metrics"):
        (repository.folder / folder).mkdir(parents=True, exist_ok=True)
    for damaged in ("[]", "{", '{"profile": "tiny", "seconds": "x", "images_seen": 1}'):
        (repository.folder / "models/caption/model.json").write_text(damaged)
        with pytest.raises(CondmixError, match="model.json is damaged"):
            cost(repository.folder, grid, runs, {})
    card = {"profile": "tiny", "seconds": 10, "images_seen": 100}
    write_checked_json(repository.folder / "models/caption/model.json", card)
    write_checked_json(repository.folder / "metrics/caption.json", {"seconds": 20, "n": 10})
    assert cost(repository.folder, grid, runs, {}) == (60 + 60, "scaled from caption")


def test_a_grid_does_not_run_what_is_not_committed(repository):
    write_grid(repository.folder)
    path = repository.folder / "src/condmix/new.py"
    path.write_text("")
    with pytest.raises(CondmixError, match="src/condmix/new.py are not committed"):
        run_grid(repository.folder, read_grid(repository.folder, "small"), 1)
    path.unlink()


def test_a_killed_grid_goes_on_and_repeats_nothing(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    project.environment["CONDMIX_TRACKING"] = "off"
    evaluate = TINY["evaluate"] | {"features": ["judge"]}  # without CLIP's, whose imports take longer than the drawing
    (project.folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"evaluate": evaluate}))
    write_grid(project.folder, seeds=[0])
    project.commit("grid")
    # as many at a time as there are cores: one process each
    command = ["condmix", "experiments", "run", "--grid", "small", "-j", str(os.cpu_count())]
    runner = subprocess.Popen(
        [project.python, "-m", *command], cwd=project.folder, env=project.environment, stderr=subprocess.DEVNULL
    )
    try:
        while not done(project.folder) and runner.poll() is None:
            time.sleep(0.02)
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    assert runner.returncode == -signal.SIGKILL
    (first, reference), *others = done(project.folder).items()
    assert not others
    revision = project.run("git", "rev-parse", reference).stdout

    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "later")
    second = project.run(*command).stderr  # finds the first run, which hangs on the commit before
    assert first not in second
    assert len(done(project.folder)) == 2 and project.run("git", "rev-parse", reference).stdout == revision
    assert not [path for path in (project.folder / ".dvc/tmp/grid").iterdir() if path.is_dir()]
    status = project.run("git", "status", "--porcelain", "--untracked-files=all").stdout.splitlines()
    assert sorted(status) == sorted(f"?? metrics/experiments/small/runs/{name}.zip" for name in done(project.folder))

    found = collect(project.folder, read_grid(project.folder, "small"))
    assert [one.metrics["perspectives"] for one in found] == [["caption_1"], ["caption_1", "caption_2"]]
    for one in found:
        assert one.metrics["seed"] == one.seed == 0
        assert {"details.json", "real.npy", "captions.npy"} <= {path.name for path in one.folder.iterdir()}
    assert "0 of 2 runs are missing" in project.run("condmix", "experiments", "plan", "--grid", "small").stdout
    assert first in project.run("dvc", "exp", "show", "--all-commits", "--csv").stdout

    # The evidence, committed, is all that a clone needs, which has neither DVC's cache nor its experiments.
    project.commit("evidence")
    clone = tmp_path / "clone"
    project.run("git", "clone", "-q", str(project.folder), str(clone))
    grid = read_grid(clone, "small")
    assert not done(clone)
    assert [one.metrics for one in collect(clone, grid)] == [one.metrics for one in found]
    assert "0 of 2 runs are missing" in table(clone, grid)
    path = evidence(clone, plan(clone, grid)[0])
    whole = path.read_bytes()
    for damage in (whole[:-100], whole[:200] + b"damaged" + whole[207:], b""):
        path.write_bytes(damage)
        shutil.rmtree(clone / ".checkpoints" / "experiments" / path.stem, ignore_errors=True)
        with pytest.raises(CondmixError, match=f"{path.stem}.zip"):
            collect(clone, grid)
    path.unlink()
    assert len(collect(clone, grid)) == 1 and "1 of 2 runs are missing" in table(clone, grid)
