"""The fixed reference variants, and what each variant of the pipeline stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from condmix import CondmixError


@dataclass(frozen=True)
class Variant:
    """One trained model: the perspectives it sees, in the order of its views, and what merges them."""

    name: str
    perspectives: tuple[str, ...]
    fusion: str


REFERENCES = {
    variant.name: variant
    for variant in (
        Variant("class_v1", ("image", "class"), "concat"),
        Variant("class_v2", ("image", "class"), "additive"),
        Variant("caption", ("caption_1",), "additive"),
    )
}


def resolve(name: str, fusion: str, perspectives: Sequence[str]) -> Variant:
    """A reference variant by its name; "experiment" is the caller's own fusion and perspectives."""
    if name == "experiment":
        return Variant(name, tuple(perspectives), fusion)
    if name not in REFERENCES:
        raise CondmixError(f'no variant "{name}"; found: {", ".join([*REFERENCES, "experiment"])}')
    return REFERENCES[name]
