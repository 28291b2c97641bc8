"""A picture -> captions from a small CoCa that is trained on the training split's own pictures and captions.

It errs as captioners do: of what it writes, nothing but the picture tells it. `generated.model` is its architecture as
open_clip configures a CoCa (embed_dim, vision_cfg, text_cfg, multimodal_cfg), `generated.training` says how long it
trains. Its vocabulary is that of the training captions, in CLIP's byte-pair encoding: all 49 thousand of CLIP's tokens
would be most of its weights and of its time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from condmix import CondmixError
from condmix.captioners import TrainedCaptioner
from condmix.captioners._coca import CocaCaptioner, load_coca, weights_sha256
from condmix.captioners._coca_training import new_coca, train_and_save
from condmix.files.artifacts import read_json

VOCABULARY = "vocabulary.json"


class TrainedCoca(CocaCaptioner, TrainedCaptioner):
    """A CoCa that the stage trains; it lies in open_clip's folder format with its vocabulary beside it."""

    @classmethod
    def check(cls, settings: Any) -> None:
        super().check(settings)
        with torch.device("meta"):  # takes no memory
            new_coca(settings.model, words=CaptionTokens.first)

    @classmethod
    def train(
        cls, settings: Any, pictures: np.ndarray, captions: Sequence[Sequence[str]], folder: Path, device: str
    ) -> None:
        bpe = CaptionTokens([]).bpe
        encoded = {text: bpe.encode(text) for text in {text for texts in captions for text in texts}}
        vocabulary = CaptionTokens(sorted({token for tokens in encoded.values() for token in tokens}))
        whole = {text: vocabulary.whole(tokens) for text, tokens in encoded.items()}
        tokens = [[whole[text] for text in texts] for texts in captions]
        train_and_save(settings, pictures, tokens, vocabulary.size, folder, device)
        (folder / VOCABULARY).write_text(json.dumps(vocabulary.clip_tokens))

    @classmethod
    def open(cls, settings: Any, folder: Path, device: str = "cpu") -> TrainedCoca:
        model, preprocess, _ = load_coca(folder, None, settings.precision, device)
        tokens = read_json(folder / VOCABULARY, list[int], f"dvc repro generate_captions, after deleting {folder}")
        captioner = cls(settings, model, preprocess, CaptionTokens(tokens))
        sha256 = weights_sha256(model)
        captioner.facts = {"model": "trained on the training split", "revision": None, "weights_sha256": sha256}
        return captioner


class CaptionTokens:
    """CLIP's tokens that occur, numbered anew: 0 pads, 1 begins, 2 ends, clip_tokens[i] is 3 + i."""

    sot_token_id, eot_token_id, first = 1, 2, 3

    def __init__(self, clip_tokens: Sequence[int]):
        from open_clip import SimpleTokenizer

        self.bpe, self.clip_tokens = SimpleTokenizer(), list(clip_tokens)
        self.number = {token: self.first + i for i, token in enumerate(self.clip_tokens)}
        self.size = self.first + len(self.clip_tokens)

    def encode(self, text: str) -> list[int]:
        """Our numbers; CondmixError where the training captions lack a word."""
        tokens = self.bpe.encode(text)
        lacking = [token for token in tokens if token not in self.number]
        if lacking:
            raise CondmixError(
                f'generated.prompts: "{text}" has "{self.bpe.decode(lacking).strip()}", which no training caption has'
            )
        return [self.number[token] for token in tokens]

    def whole(self, clip_tokens: Sequence[int]) -> list[int]:
        """Our numbers of a caption's tokens, between those that begin and end."""
        return [self.sot_token_id, *(self.number[token] for token in clip_tokens), self.eot_token_id]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of our numbers; what only begins or pads says nothing."""
        return self.bpe.decode([self.clip_tokens[i - self.first] for i in numbers if i >= self.first])
