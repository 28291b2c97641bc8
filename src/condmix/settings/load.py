"""params.yaml + conf/<profile>.yaml -> one frozen, checked `Params`; and the plug-ins, found by file name.

params.yaml holds the experiment, conf/<profile>.yaml everything that a profile fixes. Names and types are
checked here once; the stages trust them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from condmix import CondmixError
from condmix.settings.consistency import check_settings
from condmix.settings.paths import Paths
from condmix.settings.plugins import plugin, plugins, unknown
from condmix.settings.schema import EXPERIMENT, VARIANTS, Params, Prior, Train, key_of, sentence
from condmix.settings.yamlfile import read_yaml

__all__ = ["VARIANTS", "Params", "Paths", "Prior", "Train", "load", "plugin", "plugins", "unknown"]


def load(root: Path = Path("."), profile: str | None = None) -> Params:
    """The checked parameters of the project in `root`; CondmixError names the first thing that is wrong.

    `profile` stands in for that of params.yaml.
    """
    experiment, settings = read_settings(root, profile)
    profile = experiment["profile"]
    try:
        params = Params.model_validate({"root": root, **experiment, **settings})
    except ValidationError as error:
        raise CondmixError(_first_problem(error, profile)) from None
    check_settings(params)
    return params


def read_settings(root: Path, profile: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands in params.yaml and in the profile that it chooses, each key where it belongs."""
    experiment = read_yaml(root / "params.yaml", "params.yaml")
    if profile is not None:
        experiment["profile"] = profile
    profiles = sorted(path.stem for path in (root / "conf").glob("*.yaml"))
    if "profile" not in experiment:
        raise CondmixError(f"params.yaml: profile is missing; found: {', '.join(profiles) or 'none'}")
    profile = experiment["profile"]
    if profile not in profiles:
        raise CondmixError(unknown("profile", profile, profiles, where="params.yaml"))
    where = f"conf/{profile}.yaml"
    settings = read_yaml(root / where, where)
    sections = [name for name in Params.model_fields if name not in ("root", *EXPERIMENT)]
    for file, content, ours, theirs, other in (
        ("params.yaml", experiment, EXPERIMENT, sections, where),
        (where, settings, sections, EXPERIMENT, "params.yaml"),
    ):
        for key in content:
            if key in theirs:
                raise CondmixError(f"{file}: {key} belongs into {other}; move it there")
            if key not in ours:
                raise CondmixError(unknown("setting", key, sorted(ours), file))
    return experiment, settings


def missing_keys(problems: list[ErrorDetails]) -> list[str]:
    """The dotted keys that no file has, of `ValidationError.errors()`."""
    return [key_of(problem["loc"]) for problem in problems if problem["type"] == "missing"]


def _first_problem(error: ValidationError, profile: str) -> str:
    """One sentence: the first wrong value, since it may be a key with a typing error, or else all missing keys."""
    problems, conf = error.errors(), f"conf/{profile}.yaml"
    for problem in sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden"):
        if problem["type"] != "missing":
            return sentence(problem, Params, "params.yaml" if problem["loc"][0] in EXPERIMENT else conf)
    missing = missing_keys(problems)
    experiment = [key for key in missing if key in EXPERIMENT]
    if experiment:
        return f"params.yaml lacks {', '.join(experiment)}; write {'it' if len(experiment) == 1 else 'them'} there"
    return (
        f"{conf} lacks {', '.join(missing)}; `condmix check --fill` writes what conf/reference/settings.yaml has of "
        "them, and the others are yours to write"
    )
