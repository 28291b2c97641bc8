"""Evidence outlives a change of code, is lost to a change of what is declared, and says what made it."""

import json
import zipfile
from dataclasses import replace

import pytest

from condmix import CondmixError
from condmix.experiments.evidence import (
    RECIPE,
    Origin,
    collect,
    dataset_of,
    evidence,
    is_done,
    read_recipe,
    recipe_text,
    table,
    write,
)
from condmix.experiments.grid import hashed, plan, read_grid
from grid_project import Repository, changed, write_grid

SAMPLE = {"id": 0, "captions": [], "condition_captions": [], "seed": 0}


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path / "project")
    write_grid(repository.folder, seeds=[0])
    return repository


def planned(repository):
    return plan(repository.folder, read_grid(repository.folder, "small"))


def collected(repository, **how):
    return collect(repository.folder, read_grid(repository.folder, "small"), **how)


def leave(repository, run, date="2026-11-01 10:00 UTC"):
    """What a finished run leaves."""
    commit = repository.made.run("git", "rev-parse", "HEAD").stdout.strip()
    details = {"metrics": {"environment": {"date": date}}, "card": {}, "samples": [SAMPLE]}
    members = {"details.json": json.dumps(details).encode(), RECIPE: recipe_text(run, commit).encode()}
    write(evidence(repository.folder, run), members)
    return commit


def test_a_recipe_names_the_data_set(repository):
    assert {dataset_of(run.recipe) for run in planned(repository)} == {"demo"}


def test_evidence_stands_when_code_changes_and_says_so(repository):
    runs = planned(repository)
    commits = [leave(repository, run) for run in runs]
    assert [one.origin.current for one in collected(repository)] == [True, True]
    repository.append("src/condmix/fusions/mean.py", "# more\n")
    repository.append("README.md", "more\n")
    one, two = collected(repository)
    assert one.origin.current and not two.origin.current and two.origin.commit == commits[1]
    assert two.origin.changed == ("src/condmix/fusions/mean.py",) and not two.origin.unknown
    assert one.origin.agrees(two.origin)  # each fusion's code is its own
    assert len(collected(repository, strict=True)) == 1

    listed = table(repository.folder, read_grid(repository.folder, "small"))
    assert "by other code" in listed and "1 of 2 runs are missing, for 1 of which reports show" in listed
    strict = table(repository.folder, read_grid(repository.folder, "small"), strict=True)
    assert "other code" not in strict and "1 of 2 runs are missing;" in strict

    repository.append("src/condmix/diffusion/unet.py", "# more\n")
    assert [one.origin.current for one in collected(repository)] == [False, False]
    present = planned(repository)[0]
    leave(repository, present, date="2026-10-01 10:00 UTC")
    first, before, other = collected(repository)  # the present code's first, though its clock was slow
    assert first.origin.current and before.origin.commit == commits[0]
    assert not first.origin.agrees(before.origin) and before.origin.agrees(other.origin)


def test_evidence_is_lost_to_a_change_of_what_is_declared_or_of_the_data(repository):
    for run in planned(repository):
        leave(repository, run)
    for changes in (
        changed(perspectives=["caption_2", "caption_1"]),
        changed(fusion="additive"),
        changed(settings={"evaluate.steps": 1}),
        {"settings": {"train.images": 48}},
    ):
        write_grid(repository.folder, seeds=[0], **changes)
        assert "two" not in [one.experiment for one in collected(repository)], changes
    write_grid(repository.folder, seeds=[0])
    lock = (repository.folder / "dvc.lock").read_text()
    repository.write("dvc.lock", lock.replace("md5: archives", "md5: other"))
    assert not collected(repository)


def test_evidence_stands_wherever_the_same_data_came_from(repository):
    runs = planned(repository)
    for run in runs:
        recipe = json.loads(json.dumps(run.recipe))
        recipe["settings"]["conf/tiny.yaml:data"] |= {
            "folder": "/elsewhere",
            "files": [{"url": "https://example.org/a"}],
        }
        elsewhere = replace(run, name=f"{run.name.rpartition('-')[0]}-{hashed(recipe)}", recipe=recipe)
        assert elsewhere.name != run.name
        leave(repository, elsewhere)
    assert [one.origin.current for one in collected(repository, strict=True)] == [True, True]
    assert all(is_done(repository.folder, run, {}) for run in runs)
    assert table(repository.folder, read_grid(repository.folder, "small")).endswith("0 of 2 runs are missing")


def test_a_clone_without_the_data_reports_from_evidence(repository):
    runs = planned(repository)
    for run in runs:
        leave(repository, run)
    lock = (repository.folder / "dvc.lock").read_text()
    repository.write("dvc.lock", lock.replace("tiny", "demo"))  # the project goes on with another profile
    with pytest.raises(CondmixError, match="holds no data/tiny/archives of profile tiny"):
        planned(repository)
    found = collected(repository)
    assert [one.experiment for one in found] == [run.experiment for run in runs]
    assert all(one.origin.current for one in found)
    assert table(repository.folder, read_grid(repository.folder, "small")).endswith("0 of 2 runs are missing")
    for run in runs:
        evidence(repository.folder, run).unlink()
    with pytest.raises(CondmixError, match="holds no data/tiny/archives of profile tiny"):
        collected(repository)


def test_a_setting_that_only_new_code_knows_is_a_difference_of_code_unless_the_grid_sets_it(repository):
    """The other way round, so that nothing has to be added to the schema: the old version knew one setting more."""
    run = planned(repository)[1]
    recipe = json.loads(json.dumps(run.recipe))
    recipe["settings"]["conf/tiny.yaml:evaluate"]["older"] = 1
    recipe["code"] = recipe["code"].replace("src/condmix/stages/evaluate.py", "src/condmix/evaluate.py")

    def written(settings):
        name = f"{run.name.rpartition('-')[0]}-{hashed(recipe)}"
        leave(repository, replace(run, name=name, recipe=recipe, settings=settings))
        return collected(repository)

    (found,) = written(run.settings)
    assert found.origin.unknown == ("evaluate.older",)
    assert found.origin.changed == ("src/condmix/evaluate.py", "src/condmix/stages/evaluate.py")
    assert not written({**run.settings, "evaluate.older": 1})
    recipe["settings"]["conf/tiny.yaml:prior"] = {"steps": 1}  # null now, which is another value
    assert not written(run.settings)


def test_evidence_from_before_there_were_recipes_counts_under_its_own_name_only(repository):
    runs = planned(repository)
    for run in runs:
        leave(repository, run)
        with zipfile.ZipFile(evidence(repository.folder, run)) as file:
            details = json.loads(file.read("details.json"))
        details["metrics"]["commit"] = "0123456789ab+"
        write(evidence(repository.folder, run), {"details.json": json.dumps(details).encode()})
    assert [one.origin.commit for one in collected(repository)] == ["0123456789ab+"] * 2
    repository.append("src/condmix/fusions/mean.py", "# more\n")
    assert [one.experiment for one in collected(repository)] == ["one"]


def test_a_recipe_that_its_name_does_not_stand_for_is_refused(repository):
    run = planned(repository)[0]
    commit = leave(repository, run)
    path = evidence(repository.folder, run)
    made = read_recipe(repository.folder, path)
    assert made["commit"] == commit and made["recipe"] == json.loads(json.dumps(run.recipe))
    made["recipe"]["settings"]["params.yaml:seed"] = 7
    for text, says in ((json.dumps(made), "is not the recipe that its name stands for"), ("{}", "recipe.json in ")):
        write(path, {"details.json": b"{}", RECIPE: text.encode()})
        with pytest.raises(CondmixError, match=says) as error:
            collected(repository)
        assert "\n" not in str(error.value) and "git checkout metrics/experiments/small/runs/" in str(error.value)


def test_code_agrees_where_both_have_it():
    mine, other = Origin("a", {"x": "1", "mean": "2"}), Origin("b", {"x": "1", "film": "3"}, current=False)
    assert mine.agrees(other) and not mine.agrees(Origin("c", {"x": "2"}))
