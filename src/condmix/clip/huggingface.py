"""Models in the folder format of transformers: where they lie, and the hash of what is read of them.

A model of the hub is downloaded first, without the Python files that its repository may have. Then its folder is
checked and opened like any other, by nothing that goes back to the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condmix import CondmixError
from condmix.clip.weights import check_finite, refuse_code
from condmix.runtime.messages import reason

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")  # whole, or in shards
READ = (*WEIGHTS, "*.json", "*.model", "*.txt")  # with the configuration and the tokenizer's files


def locate(model: Any, revision: str | None, section: str) -> tuple[Path, str | None]:
    """The folder that holds the model, and the hub's commit if it was downloaded from there.

    `model` is a name on the hub, or a local folder as the settings name it (a `Content`), which is verified.
    `section` of the profile is for the errors. Weights that are not safetensors are refused, and a folder that would
    have code run.
    """
    folder, commit = _locate(model, revision, section)
    refuse_code(folder)
    require_safetensors(folder)
    return folder, commit


def require_safetensors(folder: Path) -> None:
    """CondmixError where a model's folder has no weights as safetensors."""
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise CondmixError(
            f"{folder} has no model.safetensors: weights are read as safetensors only, "
            "so save the model with transformers' save_pretrained first"
        )


@contextmanager
def explained(folder: Path, problem: str) -> Iterator[None]:
    """Around a library's code that opens or runs a model: what it raises becomes a CondmixError about the folder.

    transformers, safetensors and torch each raise their own kinds, and a model that loads may still fail when it runs,
    as where two of its settings contradict each other.
    """
    try:
        yield
    except CondmixError:
        raise
    except Exception as error:
        raise CondmixError(f"{folder} {problem} ({reason(error)})") from error


def load_text_encoder(folder: Path, precision: str = "fp32") -> tuple[Any, Any]:
    """Tokenizer and encoder, the weights from safetensors; CondmixError where they are not all there."""
    try:
        from transformers import AutoModelForTextEncoding, AutoTokenizer
    except ImportError as error:
        raise CondmixError('the text encoder needs transformers: pip install "condmix[t5]"') from error

    own = {"local_files_only": True, "trust_remote_code": False}
    with explained(folder, "does not hold a text encoder that transformers can load"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **own)
        model, info = AutoModelForTextEncoding.from_pretrained(
            folder,
            **own,
            use_safetensors=True,
            dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision],
            output_loading_info=True,
        )
    # transformers draws missing weights at random; a BERT's pooler is not used here.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise CondmixError(f"{folder} lacks {len(missing)} weights of its text encoder, such as {missing[0]}")
    check_finite(model, folder)
    return tokenizer, model


def without_padding(tokens: Tensor, padding: int) -> Tensor:
    """Tokens (B, L) without the last columns, in which no text of the batch has any."""
    used = (tokens != padding).any(dim=0).nonzero()
    return tokens[:, : int(used.max()) + 1 if len(used) else 1]


def _locate(model: Any, revision: str | None, section: str) -> tuple[Path, str | None]:
    if not isinstance(model, str):
        return model.verified(f"{section}.model"), None
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(READ)))
    except Exception as error:  # the hub, its validators and the network each raise their own kinds
        raise CondmixError(
            f"{section}: {model} could not be had from the Hugging Face hub ({reason(error)}): without a network, give "
            "{path: <folder>, sha256: ...} of a model that was fetched elsewhere"
        ) from error
    return folder, folder.name  # the hub's cache names the folder by the commit


def folder_sha256(folder: Path) -> str:
    """Hash of all files that the model is read from: weights, configuration, tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
