"""Captioners write captions of pictures. One captioner is one file; its class is named like the file.

What a captioner writes is a guess: it errs, and the stage `generate_captions` keeps what agrees with the picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from condmix import CondmixError


class Captioner(ABC):
    """What writes captions."""

    trained: ClassVar[bool] = False
    prompts: tuple[str, ...] = ("",)  # where the settings name none; several make captions of several kinds
    facts: dict[str, Any]  # model, revision, weights_sha256: equal facts, prompt and seed mean equal captions

    @classmethod
    def check(cls, settings: Any) -> None:
        """CondmixError where the section `generated` can't describe this captioner. Loads no weights."""
        if cls.trained != (settings.training is not None) or cls.trained != isinstance(settings.model, dict):
            needs = (
                "is trained here: give its architecture as generated.model, and generated.training"
                if cls.trained
                else "is not trained here: give a folder or a name as generated.model, and `training: null`"
            )
            raise CondmixError(f"the captioner {settings.captioner} {needs}")

    @classmethod
    @abstractmethod
    def open(cls, settings: Any, folder: Path, device: str = "cpu") -> Captioner:
        """The captioner that the profile's section `generated` describes. CondmixError where it cannot be had."""

    @abstractmethod
    def see(self, pictures: Sequence[np.ndarray]) -> Any:
        """Pictures (H, W, 3) uint8 of any size, made ready to be captioned any number of times."""

    @abstractmethod
    def caption(self, seen: Any, prompt: str, seed: int) -> list[str]:
        """One caption of each picture; another seed draws other ones. They may be empty."""


class TrainedCaptioner(Captioner):
    """One that learns from the data at hand; `open` reads what `train` left in the folder."""

    trained = True

    @classmethod
    @abstractmethod
    def train(
        cls, settings: Any, pictures: np.ndarray, captions: Sequence[Sequence[str]], folder: Path, device: str
    ) -> None:
        """Learn from pictures (N, S, S, 3) uint8 with captions[i] of picture i, and leave the model in `folder`."""


def model_name(settings: Any) -> str:
    """What `generated.model` is called: a name, or the path of a local folder."""
    return settings.model if isinstance(settings.model, str) else settings.model.path
