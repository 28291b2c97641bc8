"""A picture -> captions from any CoCa of open_clip.

`generated.model` is open_clip's name (coca_ViT-L-14) and `generated.revision` its tag of weights
(mscoco_finetuned_laion2b_s13b_b90k); or {path, sha256} of a local folder in open_clip's
format, without a revision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from condmix.captioners import model_name
from condmix.captioners._coca import CocaCaptioner, check_weights, load_coca, weights_sha256


class Coca(CocaCaptioner):
    """A CoCa that was trained elsewhere."""

    @classmethod
    def check(cls, settings: Any) -> None:
        super().check(settings)
        if isinstance(settings.model, str):
            check_weights(settings.model, settings.revision)

    @classmethod
    def open(cls, settings: Any, folder: Path, device: str = "cpu") -> Coca:
        named = isinstance(settings.model, str)
        source = settings.model if named else settings.model.verified("generated.model")
        model, preprocess, tokenizer = load_coca(source, settings.revision, settings.precision, device)
        captioner = cls(settings, model, preprocess, tokenizer)
        sha256 = weights_sha256(model)
        captioner.facts = {"model": model_name(settings), "revision": settings.revision, "weights_sha256": sha256}
        return captioner
