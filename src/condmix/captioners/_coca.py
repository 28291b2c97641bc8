"""Captions from a CoCa (Yu et al. 2022, arXiv:2205.01917): open_clip's model, decoded token by token.

open_clip's own `generate` asks for parts of transformers that version 5 took out, in all its ways of decoding. Its
beam search would also give every picture one caption, where several different ones are wanted. Axes: B pictures,
V words of the vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from condmix import CondmixError
from condmix.captioners import Captioner
from condmix.clip.folder import open_tokenizer
from condmix.clip.weights import check_finite, check_open_clip, check_text_tower
from condmix.runtime.messages import reason


class CocaCaptioner(Captioner):
    """Captions by nucleus sampling; a prompt is how the caption begins.

    `seen` is (image_latent, image_embs) of the model's `_encode_image`. `tokenizer` has sot_token_id, eot_token_id,
    encode(text) and decode(tokens), as open_clip's have.
    """

    def __init__(self, settings: Any, model: Any, preprocess: Callable, tokenizer: Any):
        self.settings, self.model, self.preprocess, self.tokenizer = settings, model, preprocess, tokenizer

    @torch.no_grad()
    def see(self, pictures: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([self.preprocess(Image.fromarray(picture)) for picture in pictures])
        return self.model._encode_image(pixels.to(self.model.logit_scale))

    def caption(self, seen: tuple[Tensor, Tensor], prompt: str, seed: int) -> list[str]:
        prefix = [self.tokenizer.sot_token_id, *self.tokenizer.encode(prompt)]
        return [self.tokenizer.decode([*prefix[1:], *row]).strip() for row in self.continued(seen, prefix, seed)]

    @torch.no_grad()
    def continued(self, seen: tuple[Tensor, Tensor], prefix: Sequence[int], seed: int) -> list[list[int]]:
        """The tokens that the model writes after `prefix`, which begins with the start token, for each of B pictures.

        Up to the end token, but at most `max_tokens`, and with the prefix no more than the model has room for.
        """
        latent, embeddings = seen
        end = self.tokenizer.eot_token_id
        length = min(len(prefix) + self.settings.max_tokens, self.model.context_length)
        generator = torch.Generator(latent.device).manual_seed(seed)
        tokens = torch.tensor(prefix, device=latent.device).expand(len(latent), -1)
        done = torch.zeros(len(latent), dtype=torch.bool, device=latent.device)
        while tokens.shape[1] < length and not done.all():
            output = self.model(None, tokens, image_latent=latent, image_embs=embeddings, output_labels=False)
            odds = nucleus(output["logits"][:, -1].float() / self.settings.temperature, self.settings.top_p)
            drawn = torch.multinomial(odds, 1, generator=generator)
            done |= drawn[:, 0] == end
            tokens = torch.cat([tokens, drawn.masked_fill(done[:, None], end)], dim=1)
        rows = tokens[:, len(prefix) :].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Probabilities (B, V) of the fewest tokens that together have `top_p` or more, all others 0.

    Holtzman et al. 2020 (arXiv:1904.09751), section 3.1. At 0 the likeliest token alone is left: greedy decoding.
    """
    ordered, index = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    beyond = ordered.cumsum(dim=-1) - ordered >= top_p
    beyond[:, 0] = False
    kept = ordered.masked_fill(beyond, 0)
    return torch.zeros_like(logits).scatter(1, index, kept / kept.sum(dim=-1, keepdim=True))


def check_weights(name: str, tag: str | None) -> None:
    """CondmixError where open_clip has no such CoCa."""
    import open_clip

    if tag not in open_clip.list_pretrained_tags_by_model(name):
        known = ", ".join(f"{model} {tag}" for model, tag in open_clip.list_pretrained() if model.startswith("coca"))
        raise CondmixError(f"generated.model: open_clip has no weights {tag} of {name}; of CoCa it has: {known}")


def load_coca(name: str | Path, tag: str | None, precision: str, device: str) -> tuple[nn.Module, Callable, Any]:
    """Model, preprocessing and tokenizer of a CoCa: from a folder, or by open_clip's name and tag of weights."""
    import open_clip

    if isinstance(name, str):
        check_weights(name, tag)
        where, model_cfg = name, open_clip.get_model_config(name)
        check_text_tower(model_cfg, f"generated.model {name}")
    else:
        check_open_clip(name)
        where = f"local-dir:{name}"
        model_cfg = open_clip.get_model_config(where)
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            where, tag, precision=precision, device=device, weights_only=True
        )
        tokenizer = open_tokenizer(where, model_cfg)
    except Exception as error:  # open_clip, the hub, safetensors and torch each raise their own kinds
        raise CondmixError(
            f"generated.model: open_clip cannot load {name} ({reason(error)}): without a network, "
            "give the folder of a CoCa that was fetched elsewhere"
        ) from error
    if not isinstance(model, open_clip.CoCa):
        raise CondmixError(f"generated.model: {name} is a {type(model).__name__} and no CoCa, so it writes no captions")
    check_finite(model, name)
    return model.eval(), preprocess, tokenizer


def weights_sha256(model: nn.Module) -> str:
    """Hash of all weights, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
