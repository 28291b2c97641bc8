"""CLIPs as folders in the format that open_clip reads as `local-dir:<folder>`.

open_clip_config.json holds architecture and preprocessing, open_clip_model.safetensors the weights. Beside them
`save_clip` writes their checksum, which `load_clip` compares. Of a text tower of transformers, config.json and the
tokenizer's files lie there too, and its `hf_model_name` is the folder itself: "."."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.clip.weights import check_finite, check_open_clip, named_in
from condmix.files.artifacts import read_json
from condmix.files.atomic import replacing_folder, write_json
from condmix.pipeline import tree_sha256
from condmix.runtime.messages import reason

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CARD = "condmix.json"  # the checksum of the other files; folders that condmix did not write have none


class FolderCard(TypedDict):
    """condmix.json in a CLIP's folder."""

    sha256: str


class Clip(NamedTuple):
    """A CLIP ready for use: `preprocess` takes a PIL image to (3, S, S), `tokenizer` captions to (B, context)."""

    model: Any  # an nn.Module, of whose attributes torch's types know nothing
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[Sequence[str]], Tensor]
    dim: int  # of the space in which both towers end
    sha256: str  # of the folder: weights, architecture, preprocessing and tokenizer

    @property
    def id(self) -> str:
        """The name of both towers; which of them made a vector is told by the perspective."""
        return f"clip sha256:{self.sha256}"

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.model.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """In which arithmetic the towers compute."""
        return self.model.logit_scale.dtype


def load_clip(folder: Path, device: str = "cpu") -> Clip:
    """The CLIP in `folder`, in evaluation mode; CondmixError where it holds none, a damaged one or one with code."""
    import open_clip

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CondmixError(f"no {folder / name}: make the CLIP first (dvc repro encode)")
    check_open_clip(folder)
    sha256 = tree_sha256(folder, CARD)
    card = folder / CARD
    if card.exists() and read_json(card, FolderCard, "dvc repro encode")["sha256"] != sha256:
        raise CondmixError(
            f"{folder} is damaged (its content does not match the checksum in {CARD}): make it again (dvc repro "
            "encode), or fetch it again where it came from"
        )
    try:
        model, preprocess = open_clip.create_model_from_pretrained(
            f"local-dir:{folder}", device=device, weights_only=True, **text_tower_in(folder)
        )
        model_cfg = read_config(folder)
        tokenizer = open_tokenizer(f"local-dir:{folder}", model_cfg)
        dim = model_cfg["embed_dim"]
    except Exception as error:  # open_clip, safetensors and torch each raise their own kinds
        raise CondmixError(
            f"{folder} does not hold a CLIP that open_clip can load ({reason(error)}): make it again "
            "(dvc repro encode), or fetch it again where it came from"
        ) from error
    check_finite(model, folder)
    return Clip(model.eval(), preprocess, tokenizer, dim, sha256)


def open_tokenizer(name: str, model_cfg: dict[str, Any]) -> Callable[[Sequence[str]], Tensor]:
    """open_clip's tokenizer of a model that it knows, or of "local-dir:<folder>"; those of transformers run no code."""
    import open_clip

    by_transformers = bool(model_cfg["text_cfg"].get("hf_tokenizer_name"))
    return open_clip.get_tokenizer(name, **({"trust_remote_code": False} if by_transformers else {}))


def read_config(folder: Path) -> dict[str, Any]:
    """The architecture of the CLIP in `folder`, as open_clip's configurations give it."""
    return json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]


def text_tower_in(folder: Path) -> dict[str, Any]:
    """What overrides the configuration of a CLIP whose text tower's own configuration lies in its folder.

    open_clip would take the relative name as relative to where the process runs.
    """
    text_cfg = read_config(folder)["text_cfg"]
    place = named_in(folder, text_cfg.get("hf_model_name"))
    return {"text_cfg": text_cfg | {"hf_model_name": str(place), "hf_model_pretrained": False}} if place else {}


def save_clip(folder: Path, model: Any, model_cfg: dict[str, Any], tokenizer: Any) -> None:
    """Write a CLIP so that `load_clip` and `open_clip.create_model("local-dir:<folder>")` give it back.

    With a text tower of transformers open_clip does so where the folder is the current one.
    """
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing_folder(folder) as part:
        save_file(tensors, part / WEIGHTS)
        if hasattr(tokenizer, "save_pretrained"):  # Hugging Face tokenizers; CLIP's own is part of open_clip
            tokenizer.save_pretrained(part)
        if model_cfg["text_cfg"].get("hf_model_name"):
            model.text.config.save_pretrained(part)
            here = {"hf_model_name": ".", "hf_tokenizer_name": ".", "hf_model_pretrained": False}
            model_cfg = model_cfg | {"text_cfg": model_cfg["text_cfg"] | here}
        save_config_for_hf(model, part / CONFIG, model_cfg)
        write_json(part / CARD, {"sha256": tree_sha256(part, CARD)})
