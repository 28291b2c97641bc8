"""What open_clip knows by name: its models, their pretrained weights, and a CLIP built from an architecture."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from condmix import CondmixError
from condmix.clip.folder import open_tokenizer
from condmix.clip.weights import check_finite, check_text_tower
from condmix.runtime.messages import reason
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
    made: Any
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


def load_pretrained(name: Any, tag: str | None, weights: Path | None) -> tuple[nn.Module, dict[str, Any], Any]:
    """A model that open_clip knows by name, with the weights of a tag (downloaded) or of a local file.

    With both, the file's weights are used as the tag's: its preprocessing and activation (OpenAI's weights were
    trained with QuickGELU, which "ViT-B-32" alone does not say). A file without a tag is preprocessed as all tags of
    the model agree, such as SigLIP's squashing. Returns model, its configuration, tokenizer.
    """
    import open_clip

    check_name(name)
    if tag is not None:
        check_tag(name, tag)
    tags = open_clip.list_pretrained_tags_by_model(name)
    model_cfg = open_clip.get_model_config(name)
    check_text_tower(model_cfg, f"clip.model {name}")
    tag_cfg = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if tag_cfg.get("quick_gelu"):
        model_cfg["quick_gelu"] = True
    try:
        model = open_clip.create_model(
            name,
            str(weights) if weights else tag,
            force_quick_gelu=model_cfg.get("quick_gelu", False),
            force_preprocess_cfg=preprocessing(name, [tag] if tag else tags),
            require_pretrained=True,
            weights_only=True,
        )
    except Exception as error:  # urllib, huggingface_hub, pickle, safetensors and torch each raise their own
        if weights is not None:
            raise CondmixError(
                f"clip.weights: {weights} does not hold the weights of {name} as safetensors or as a plain "
                f"PyTorch state dict ({reason(error)}); a TorchScript archive such as OpenAI's .pt must be "
                "converted first"
            ) from error
        raise CondmixError(
            f"the weights {name}/{tag} could not be downloaded ({reason(error)}): without network, give "
            "clip.weights: {path: <file>, sha256: ...}, the model's open_clip_model.safetensors fetched elsewhere"
        ) from error
    check_finite(model, weights or f"{name}/{tag}")
    try:
        return model, model_cfg, open_tokenizer(name, model_cfg)
    except (ImportError, OSError, ValueError) as error:  # SigLIP's and other tokenizers are transformers', on the hub
        raise CondmixError(
            f"the tokenizer of {name} could not be had ({reason(error)}): it needs "
            'pip install "condmix[t5]" and a network, or give clip.weights: {path: <folder>, sha256: ...} in place '
            "of clip.model, with the files of the model's repository on the Hugging Face hub"
        ) from error


def preprocessing(name: str, tags: Sequence[str]) -> dict[str, Any]:
    """The parts of a model's preprocessing (mean, std, resize mode, ...) in which all these tags agree."""
    import open_clip
    from open_clip.transform import PreprocessCfg

    settings = [
        {field.name: open_clip.get_pretrained_cfg(name, tag).get(field.name) for field in fields(PreprocessCfg)}
        for tag in tags
    ]
    first = settings[0] if settings else {}
    return {
        key: value
        for key, value in first.items()
        if value is not None and all(other[key] == value for other in settings)
    }


# Training
