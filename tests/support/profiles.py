"""Settings for tests: those of conf/demo.yaml, with changes, so that no test writes all of them."""

from pathlib import Path
from typing import Any

import yaml

from condmix.settings import schema
from condmix.settings.content import content_sha256

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "captions": schema.CaptionsSettings,
    "data": schema.Data,
    "embed": schema.Embed,
    "generated": schema.GeneratedSettings,
    "judge": schema.JudgeSettings,
    "prior": schema.Prior,
    "train": schema.Train,
}


def profile(**changes: Any) -> dict[str, Any]:
    """The content of a conf/<profile>.yaml: changed keys of a section, or another value in the section's place."""
    found, reference = (
        yaml.safe_load((ROOT / "conf" / file).read_text()) for file in ("demo.yaml", "reference/settings.yaml")
    )
    training = reference["generated"].pop("training")
    found["embed"]["processes"] = 1  # further ones would not see what a test has replaced in its own
    for name, change in changes.items():
        if isinstance(change, dict):
            change = (found[name] or reference[name]) | change
        if name == "generated" and change is not None:
            given = change.get("training")
            change["training"] = given and training | given
        found[name] = change
    return found


def section(name: str, **changes: Any) -> Any:
    """A checked section."""
    return SECTIONS[name].model_validate(profile(**{name: changes})[name])


def content(path: str | Path) -> schema.Content:
    """A file or folder, named by its checksum."""
    return schema.Content(path=str(path), sha256=content_sha256(Path(path)))
