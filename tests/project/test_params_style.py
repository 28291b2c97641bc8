"""`dvc exp run -S` writes a changed value into our settings and leaves everything else in the file as it is."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def overridden(path, change):
    """The lines of a copy of `path` in which DVC has changed a value."""
    from dvc.utils.hydra import apply_overrides

    apply_overrides(path, [change])
    return path.read_text().splitlines()


@pytest.mark.parametrize("change", ["fusion=additive", "guidance=2.5", "seed=3", "profile=cifar10"])
def test_a_value_of_params_changes_one_line(tmp_path, change):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    before = (ROOT / "params.yaml").read_text().splitlines()
    after = overridden(tmp_path / "params.yaml", change)
    assert after == [
        change.replace("=", ": ") if line.startswith(change.split("=")[0] + ":") else line for line in before
    ]


@pytest.mark.parametrize(
    "change", ["perspectives=[caption_1]", "perspectives=[image,class,caption_1]", "variants=[caption]"]
)
def test_a_list_of_params_changes_its_own_lines(tmp_path, change):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    name, values = change.split("=")
    text = (ROOT / "params.yaml").read_text()
    old = "".join(f"- {value}\n" for value in yaml.safe_load(text)[name])
    new = "".join(f"- {value}\n" for value in values.strip("[]").split(","))
    assert (
        overridden(tmp_path / "params.yaml", change) == text.replace(f"{name}:\n{old}", f"{name}:\n{new}").splitlines()
    )


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "conf").glob("*.yaml")))
def test_a_value_of_a_profile_changes_one_line(tmp_path, profile):
    path, text = tmp_path / f"{profile}.yaml", (ROOT / "conf" / f"{profile}.yaml").read_text()
    path.write_text(text)
    assert overridden(path, "train.images=7") == re.sub(r"^  images: .*$", "  images: 7", text, flags=re.M).splitlines()
