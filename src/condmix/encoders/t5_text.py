"""A caption -> its vector from any text encoder of transformers: T5 (Raffel et al. 2020), or a BERT, ...

The vector is the mean of the last layer over the caption's tokens, as in Sentence-T5 (Ni et al. 2022).
The model lies in a local folder or is downloaded from the Hugging Face hub: config.json, weights as safetensors
only, and the tokenizer's files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condmix import CondmixError
from condmix.clip.huggingface import explained, folder_sha256, load_text_encoder, locate
from condmix.encoders import Encoder


class T5Text(Encoder):
    """Captions longer than `max_tokens`, or than the model takes, are cut."""

    perspective = "t5_{k}"
    reads = "captions"
    section = "t5"  # of the profile's `embed`

    def __init__(self, folder: Path, revision: str | None, settings: Any, device: str):
        self.tokenizer, self.model = load_text_encoder(folder, settings.precision)
        self.model.eval().to(device)
        longest = self.tokenizer.model_max_length
        if not isinstance(longest, int | float) or not longest >= 1:
            raise CondmixError(
                f"{folder}/tokenizer_config.json: model_max_length is {longest!r}; it must be a number of at least 1"
            )
        if self.tokenizer.pad_token_id is None:  # any choice of ours could be a word, or shift a model's places
            raise CondmixError(
                f"{folder}/tokenizer_config.json: the tokenizer has no pad_token, with which the texts of a batch are "
                "made equally long; name the one that the model was trained with"
            )
        self.limit = int(min(settings.max_tokens, longest))
        commit = f" revision:{revision}" if revision else ""
        self.id = f"{self.model.config.model_type}{commit} sha256:{folder_sha256(folder)}"
        self.preprocessing = f"{type(self.tokenizer).__name__}, {self.limit} tokens, their mean, {settings.precision}"
        self.dim = self.model.config.hidden_size
        self.folder = folder
        found = self.features(["a red ring", "a ring"])  # so that a model that can't run fails before the work
        if found.shape != (2, self.dim) or not found.isfinite().all():
            raise CondmixError(
                f"{folder} holds a text encoder that makes of captions what is not finite or not of {self.dim} numbers"
            )

    @classmethod
    def open(  # type: ignore[override]  # one with a section of its own in the profile takes it
        cls, clip: Path, class_names: Sequence[str], device: str = "cpu", *, settings: Any
    ) -> T5Text:
        """`settings` are the profile's embed.t5: model, revision, max_tokens, precision."""
        return cls(*locate(settings.model, settings.revision, "embed.t5"), settings, device)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(tokens) for tokens in self.tokenizer(list(texts), verbose=False).input_ids]

    @torch.no_grad()
    def features(self, batch: Sequence[str]) -> Tensor:
        with explained(self.folder, "holds a text encoder that fails on captions"):
            tokens = self.tokenizer(
                list(batch), padding=True, truncation=True, max_length=self.limit, return_tensors="pt"
            ).to(self.model.device)
            hidden = self.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        mask = tokens.attention_mask[..., None]
        return (hidden.float() * mask).sum(dim=1) / mask.sum(dim=1)
