"""What open_clip knows by name, and a CLIP that it builds from an architecture."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from condmix import CondmixError
from condmix.clip.weights import check_text_tower
from condmix.settings.load import unknown


def check_name(name: Any) -> None:
    """CondmixError, with the nearest of open_clip's 200 names, where it knows none such."""
    import open_clip

    known = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3) or ["ViT-B-32"]
        raise CondmixError(f'clip.model: open_clip has no model "{name}"; near to it are {", ".join(near)}')


def check_tag(name: str, tag: str) -> None:
    """CondmixError where open_clip has no such weights of the model."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise CondmixError(unknown(f"clip.pretrained of {name}", tag, tags))


def new_clip(model: str | dict[str, Any]) -> tuple[nn.Module, dict[str, Any], Any]:
    """An untrained CLIP from an open_clip configuration (embed_dim, vision_cfg, text_cfg) or the name of one.

    Returns the model, its configuration and CLIP's own tokenizer.
    """
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    if isinstance(model, str):
        check_name(model)
    model_cfg = open_clip.get_model_config(model) if isinstance(model, str) else model
    check_text_tower(model_cfg, "clip.model")
    try:
        context_length = model_cfg["text_cfg"]["context_length"]
        tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
        made = open_clip.CLIP(**model_cfg)
        preprocess_cfg = asdict(PreprocessCfg(size=made.visual.image_size))
    except Exception as error:  # whatever the wrong value leads to
        raise CondmixError(f"clip.model is not a configuration that open_clip can build: {error!r}") from error
    vocabulary = made.token_embedding.num_embeddings
    if vocabulary < tokenizer.vocab_size:
        raise CondmixError(
            f"clip.model.text_cfg.vocab_size is {vocabulary}, but CLIP's tokenizer has {tokenizer.vocab_size} tokens: "
            f"give {tokenizer.vocab_size}"
        )
    if context_length < 3:
        raise CondmixError(
            f"clip.model.text_cfg.context_length is {context_length}; a caption needs room between the tokens that "
            "begin and end it, so give 3 or more"
        )
    set_model_preprocess_cfg(made, preprocess_cfg)
    return made, model_cfg, tokenizer


def check_architecture(model: str | dict[str, Any]) -> None:
    """CondmixError where `new_clip` builds none, or one whose towers do not run. Takes no memory for weights."""
    with torch.device("meta"), torch.no_grad():
        made, model_cfg, _ = new_clip(model)
        size = made.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        try:
            made.encode_image(torch.empty(2, 3, height, width))
            made.encode_text(torch.zeros(2, model_cfg["text_cfg"]["context_length"], dtype=torch.long))
        except Exception as error:  # torch raises whatever does not fit
            reason = str(error).partition("\n")[0]
            raise CondmixError(f"clip.model is built by open_clip, but does not run: {reason}") from error
