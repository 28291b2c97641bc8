"""The one reader of YAML: params.yaml, conf/, and what git shows of them and of DVC's files.

Every file ends as a mapping with text as keys, or in one sentence. What settings never need is refused, since it only
occurs in damage: keys that are no text or stand twice, nesting beyond 32 levels, and aliases that together stand for
more than a file could hold.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from condmix import CondmixError

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # by libyaml, 10 times as fast
MOST_BYTES = 4_000_000
MOST_NODES = 200_000
DEEPEST = 32
MERGE = "tag:yaml.org,2002:merge"
OCTAL = re.compile(r"[-+]?0[0-9_]+")  # to YAML 1.1; a decimal number to YAML 1.2


def read_yaml(path: Path, where: str | None = None) -> dict[str, Any]:
    """The settings in a file; CondmixError names it as `where` (by default its path) and says what is wrong."""
    where = where or str(path)
    try:
        if not path.is_file() and path.exists():
            raise CondmixError(f"{where} is not a file; put the settings there as YAML")
        content = path.read_bytes()
    except FileNotFoundError:
        raise CondmixError(f"no {where}: run condmix in the root of a condmix project") from None
    except OSError as error:
        raise CondmixError(f"{where} can't be read ({error.strerror}); make it a readable file") from None
    return parse_yaml(content, where)


def parse_yaml(content: bytes | str, where: str) -> dict[str, Any]:
    """The settings in a file's content."""
    text = _text(content, where)
    try:
        _check_content(text, where)
        settings = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise CondmixError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, OverflowError) as error:  # such as a date of month 13, or a number of 5,000 digits
        raise CondmixError(f"{where} has a value that can't be read ({error})") from None
    if not isinstance(settings, dict):
        raise CondmixError(f"{where} must be a mapping of settings, not {type(settings).__name__}")
    return settings


def _text(content: bytes | str, where: str) -> str:
    if len(content) > MOST_BYTES:
        raise CondmixError(f"{where} has {len(content):,} bytes; settings have at most {MOST_BYTES:,}")
    if isinstance(content, str):
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CondmixError(f"{where} is not UTF-8 text (line {line}); save it with the encoding UTF-8") from None


def _check_content(text: str, where: str) -> None:
    """Refuses what is too deep or too much, with aliases counted as what they stand for, and values that are no text
    or that DVC reads otherwise, before anything is built."""
    anchors: dict[str, tuple[int, int]] = {}  # nodes and levels of what each one stands for
    open_: list[list[Any]] = [["", 0, 0]]  # anchor, nodes and levels of each collection that has not ended
    for event in yaml.parse(text, _SafeLoader):
        nodes, levels, anchor = 0, 0, getattr(event, "anchor", None) or ""
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append([anchor, 1, 0])
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, nodes, levels = open_.pop()
        elif isinstance(event, yaml.ScalarEvent):
            nodes = 1
            if event.implicit[0] and OCTAL.fullmatch(event.value):
                raise CondmixError(
                    f"{where}, line {line}: {event.value} is one number in YAML 1.1 and another in YAML 1.2, which DVC "
                    "reads: write a decimal number without the zeros before it, or text in quotes"
                )
            if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in event.value):
                raise CondmixError(f"{where}, line {line}: {event.value} is not valid text")
        elif isinstance(event, yaml.AliasEvent):
            if anchor in (collection[0] for collection in open_):
                raise CondmixError(f"{where}, line {line}: &{anchor} contains itself")
            nodes, levels = anchors.get(anchor, (0, 0))
        open_[-1][1:] = open_[-1][1] + nodes, max(open_[-1][2], levels + (nodes > 0))
        if anchor and nodes:
            anchors[anchor] = nodes, levels
        if open_[-1][1] > MOST_NODES or len(open_) + open_[-1][2] > DEEPEST:
            raise CondmixError(
                f"{where}, line {line}: more than {DEEPEST} levels deep, or more than {MOST_NODES:,} values; "
                "no settings are"
            )


class _Loader(_SafeLoader):
    """Keys are text and stand once. Values are what they are to DVC (YAML 1.2), which reads merge keys (<<) besides:
    1e-3 is a number, yes is text, and 16:9 too, not a number of base 60."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        merged: dict[Hashable, Any] | None = None
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE:
                if merged is not None:
                    raise yaml.YAMLError(f"line {line}: << stands twice; list both mappings in one")
                merged = self.merged(value_node, line)
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else "[...] or {...}"
                raise yaml.YAMLError(f"line {line}: the key {shown or 'null'} is not text; put it in quotes")
            if key in mapping:
                raise yaml.YAMLError(f"line {line}: {key} stands twice; leave one of them")
            mapping[key] = self.construct_object(value_node, deep=True)
        return {**merged, **mapping} if merged else mapping

    def merged(self, node: yaml.Node, line: int) -> dict[Hashable, Any]:
        """What `<<` merges in: one mapping, or several, of which an earlier one's keys count."""
        given = self.construct_object(node, deep=True)
        several = given if isinstance(given, list) else [given]
        if not all(isinstance(one, dict) for one in several):
            raise yaml.YAMLError(f"line {line}: << takes a mapping, as in `<<: *name`, or a list of mappings")
        return {key: value for one in reversed(several) for key, value in one.items()}

    def construct_truth(self, node: yaml.ScalarNode) -> bool | str:
        return node.value.lower() == "true" if node.value.lower() in ("true", "false") else str(node.value)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        if ":" in node.value:
            return str(node.value)
        return self.construct_yaml_int(node) if node.tag.endswith("int") else self.construct_yaml_float(node)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")
# Without an explicit constructor, SafeLoader's would build mappings in two steps, for the sake of aliases.
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:bool", _Loader.construct_truth)
for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)
