"""A picture -> captions from any CoCa of open_clip.

`generated.model` is open_clip's name (coca_ViT-L-14) and `generated.revision` its tag of weights
(mscoco_finetuned_laion2b_s13b_b90k); or a local folder in open_clip's format, without a revision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from condmix.captioners._coca import CocaCaptioner, load_coca, weights_sha256


class Coca(CocaCaptioner):
    """A CoCa that was trained elsewhere."""

    @classmethod
    def open(cls, settings: Any, folder: Path, device: str = "cpu") -> Coca:
        model, preprocess, tokenizer = load_coca(settings.model, settings.revision, settings.precision, device)
        captioner = cls(settings, model, preprocess, tokenizer)
        sha256 = weights_sha256(model)
        captioner.facts = {"model": settings.model, "revision": settings.revision, "weights_sha256": sha256}
        return captioner
