"""`condmix check --fill`: keys that a profile lacks, out of conf/reference/settings.yaml, with their comments.

The profile is changed by whole lines that come in between, so that everything else of it stays to the byte.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from condmix import CondmixError
from condmix.files.atomic import write_text
from condmix.settings.load import missing_keys, read_settings
from condmix.settings.schema import EXPERIMENT, Params, fields_at, nullable, sentence
from condmix.settings.yamlfile import read_yaml

REFERENCE = "conf/reference/settings.yaml"


def fill(root: Path, profile: str | None = None) -> list[str]:
    """Add what the profile lacks and the reference has; the lines that were added, as "key: value".

    CondmixError for a key that does not exist: it may be a lacking one with a typing error.
    """
    experiment, settings = read_settings(root, profile)
    path = root / "conf" / f"{experiment['profile']}.yaml"
    read_yaml(root / REFERENCE, REFERENCE)
    reference = (root / REFERENCE).read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8-sig")
    added: list[str] = []
    while True:
        entries = [(key, lines) for key in _missing(root, experiment, settings) if (lines := _entry(reference, key))]
        if not entries:
            return added
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            keys = ", ".join(key for key, _ in entries)
            raise CondmixError(
                f"conf/{experiment['profile']}.yaml lacks {keys}, and has aliases (*name), among which --fill can't "
                f"tell where a key belongs: write them there yourself, as in {REFERENCE}"
            )
        for key, lines in entries:
            text = _inserted(text, key, lines)
            added.append(f"{key}: {_flow(lines).partition(': ')[2]}")
        write_text(path, text)
        _, settings = read_settings(root, profile)  # a section that was added may lack keys in its turn


def _missing(root: Path, experiment: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    try:
        Params.model_validate({"root": root, **experiment, **settings})
    except ValidationError as error:
        for problem in error.errors():
            if problem["type"] == "extra_forbidden":
                raise CondmixError(sentence(problem, Params, f"conf/{experiment['profile']}.yaml")) from None
        return [key for key in missing_keys(error.errors()) if key not in EXPERIMENT]
    return []


def _entry(reference: str, key: str) -> list[str]:
    """The lines of a key in the reference, from column 0; of a section that may be null, that it is."""
    *sections, last = key.split(".")
    node = _node(yaml.compose(reference), sections)
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value == last:
            if isinstance(value, yaml.MappingNode) and nullable(fields_at(Params, tuple(sections))[last]):
                return [f"{last}: null"]
            lines = reference.splitlines()[name.start_mark.line : _last_line(value) + 1]
            return textwrap.dedent("\n".join(lines)).splitlines()
    return []


def _inserted(text: str, key: str, lines: list[str]) -> str:
    """The text with the lines at the end of their section."""
    *sections, _ = key.split(".")
    section = _node(yaml.compose(text), sections)
    if section.flow_style:  # {a: 1}
        at = section.value[-1][1].end_mark.index if section.value else section.start_mark.index + 1
        return f"{text[:at]}{', ' if section.value else ''}{_flow(lines)}{text[at:]}"
    first, last = section.value[0][0], section.value[-1][1]
    whole = text.splitlines()
    at = _last_line(last) + 1
    indent = " " * first.start_mark.column
    if not sections:
        lines = ["", *lines]
    whole[at:at] = [f"{indent}{line}".rstrip() for line in lines]
    return "\n".join(whole) + "\n"


def _node(node: yaml.Node | None, sections: list[str]) -> Any:
    """The mapping under these keys."""
    for part in sections:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for name, value in pairs if name.value == part), None)
    return node


def _last_line(node: yaml.Node) -> int:
    """The number of the last line that a value stands on: the end mark of a block lies behind what follows it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.line - (node.end_mark.column == 0)


def _flow(lines: list[str]) -> str:
    """The entry as it stands within braces: "key: value"."""
    entry = yaml.safe_load("\n".join(lines))
    return yaml.safe_dump(entry, default_flow_style=True, width=10**6).strip().removeprefix("{").removesuffix("}")
