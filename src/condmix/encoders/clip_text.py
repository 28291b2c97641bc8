"""A caption -> its vector from CLIP's text tower (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from condmix.clip.folder import Clip, load_clip
from condmix.clip.huggingface import without_padding
from condmix.encoders import Encoder


class ClipText(Encoder):
    """Captions longer than the tower's context are cut, as open_clip's tokenizer does."""

    perspective = "caption_{k}"
    reads = "captions"

    def __init__(self, clip: Clip):
        self.clip = clip
        self.id = clip.id
        tokenizer: Any = clip.tokenizer
        self.limit = tokenizer.context_length
        self.preprocessing = f"{type(clip.tokenizer).__name__}, {self.limit} tokens"
        self.dim = clip.dim

    @classmethod
    def open(cls, clip: Path, class_names: Sequence[str], device: str = "cpu") -> ClipText:
        return cls(load_clip(clip, device))

    def tokens(self, texts: Sequence[str]) -> list[int]:
        tokenizer: Any = self.clip.tokenizer
        if hasattr(tokenizer, "encode"):  # CLIP's own, which adds the first and the last token later
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        cleaned = [tokenizer.clean_fn(text) for text in texts]
        return [len(tokens) for tokens in tokenizer.tokenizer(cleaned, verbose=False).input_ids]

    def use_bf16(self) -> None:
        self.clip.model.bfloat16()
        self.preprocessing += ", bf16"

    @torch.no_grad()
    def features(self, batch: Sequence[str]) -> Tensor:
        return encode_short(self.clip.model, self.clip.tokenizer(list(batch))).float()


def encode_short(model: Any, tokens: Tensor) -> Tensor:
    """model.encode_text(tokens) without the places that no caption of the batch reaches, most of CLIP's 77.

    Exact where a causal tower reads its result at the end-of-text token, which has the highest number: what comes
    after it is never seen. A tower of transformers masks
    what fills up a text, so the columns that are all of it go. Other towers (SigLIP's) get the tokens as they are.
    The tokens had best lie on the CPU: their length is read, and then they are moved to where the model lies.
    """
    device = next(model.parameters()).device
    if hasattr(getattr(model, "text", None), "pooler"):  # of transformers
        tokens = without_padding(tokens, model.text.config.pad_token_id)
    if getattr(model, "attn_mask", None) is None or getattr(model, "text_pool_type", None) != "argmax":
        return model.encode_text(tokens.to(device, non_blocking=True))
    length = int(tokens.argmax(dim=1).max()) + 1
    shorter = {
        "model.positional_embedding": model.positional_embedding[:length],
        "model.attn_mask": model.attn_mask[:length, :length],
    }
    return functional_call(_TextTower(model), shorter, (tokens[:, :length].to(device, non_blocking=True),))


class _TextTower(nn.Module):
    """`encode_text` as a module's forward, which is what functional_call calls."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)
