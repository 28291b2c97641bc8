"""Weights that others made: what must hold of their folder before a library opens it, and of the model after.

Files next to the weights can name Python code that transformers, or open_clip by way of it, would fetch and run: the
keys in RUNS_CODE, in any JSON file and at any depth. Such a folder is refused, whatever the value, since no model that
condmix needs has one. What is called with `trust_remote_code=False` as well is called so, but open_clip hands over
what its configuration says. Pickles are read with `weights_only=True` alone, which runs nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open
from torch import nn

from condmix import CondmixError
from condmix.runtime.messages import reason

RUNS_CODE = {"auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"}
VOCABULARIES = {"added_tokens.json", "tokenizer.json", "vocab.json"}  # whose keys are words, each with its number
TOKENIZER_KWARGS = {"additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token"}


class Preprocessing(BaseModel):
    """`preprocess_cfg` of open_clip_config.json, as open_clip.transform.PreprocessCfg reads it; all may be left out."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    size: PositiveInt | Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] | None = None
    mode: Literal["RGB"] | None = None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class TextTower(BaseModel):
    """`model_cfg.text_cfg`, as far as it says what else is loaded; the rest is open_clip's to know."""

    model_config = ConfigDict(strict=True)

    hf_model_name: str | None = None
    hf_tokenizer_name: str | None = None
    tokenizer_kwargs: dict[str, Any] | None = None


class OpenClip(BaseModel):
    """open_clip_config.json."""

    class ModelConfig(BaseModel):
        """`model_cfg`."""

        model_config = ConfigDict(strict=True)

        embed_dim: PositiveInt
        vision_cfg: dict[str, Any]
        text_cfg: TextTower

    model_config = ConfigDict(strict=True, protected_namespaces=())

    model_cfg: ModelConfig
    preprocess_cfg: Preprocessing = Preprocessing()


def refuse_code(folder: Path) -> None:
    """CondmixError where a JSON file of the folder asks for code that is not a library's own, or can't be read."""
    for path in sorted(folder.rglob("*.json")):  # a model may lie in a folder of its own
        for key, value in _pairs(_read_json(path)):
            if key in RUNS_CODE and not (path.name in VOCABULARIES and type(value) is int):
                raise _runs_code(path, key)
            if key.endswith("attn_implementation") and "/" in str(value):  # a repository of compiled kernels
                raise _runs_code(path, key)


def _runs_code(path: Path, key: str) -> CondmixError:
    return CondmixError(
        f'{path} has the key "{key}", by which loading the model would run Python code from elsewhere: '
        "take a model that needs none, or remove the key if it is of no use"
    )


def _read_json(path: Path) -> Any:
    """The content of a JSON file of somebody else's."""
    if path.exists() and not path.is_file():  # a pipe would keep the reader waiting, a device never end
        raise CondmixError(f"{path} is not a regular file: fetch the model again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON
        raise CondmixError(f"{path} is not JSON ({reason(error)}): fetch the model again") from error


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of JSON content, at any depth."""
    pending = [content]
    while pending:
        match pending.pop():
            case dict() as found:
                yield from found.items()
                pending += found.values()
            case list() as found:
                pending += found


def check_open_clip(folder: Path) -> None:
    """CondmixError where a folder in open_clip's format would run code or fetch more, or is no such folder.

    Its tokenizer is always read from the folder itself. A text tower of transformers must be one that open_clip's own
    configurations have, whose settings then come from the hub (without code), or lie in the folder.
    """
    refuse_code(folder)
    path = folder / "open_clip_config.json"
    content = _read_json(path)
    try:
        OpenClip.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CondmixError(
            f"{path} does not describe a CLIP ({where}: {first['msg']}): make it again (dvc repro encode), "
            "or fetch it again where it came from"
        ) from error
    model_cfg = content["model_cfg"]
    for key, value in _pairs(model_cfg):
        if key == "tokenizer_kwargs" and not set(value or ()) <= TOKENIZER_KWARGS:
            allowed = ", ".join(sorted(TOKENIZER_KWARGS))
            raise CondmixError(f"{path}: tokenizer_kwargs may hold {allowed} and nothing else, not {value}")
        if key == "timm_model_name" and ":" in str(value):
            raise CondmixError(f"{path}: timm_model_name {value} is fetched from elsewhere: take a name that timm has")
    _check_sizes(model_cfg, path)
    check_text_tower(model_cfg, str(path), folder)


def check_text_tower(model_cfg: dict[str, Any], where: str, folder: Path | None = None) -> None:
    """CondmixError where the text tower is one of transformers, but not in `folder` and not one that open_clip has.

    What open_clip has is looked up on the hub here, where it may bring no code: open_clip itself would ask about it.
    """
    text_cfg = model_cfg.get("text_cfg")
    name = text_cfg.get("hf_model_name") if isinstance(text_cfg, dict) else None
    if not name:
        return
    import open_clip

    if folder is not None and (place := named_in(folder, name)):
        refuse_code(place)
        return
    known = {open_clip.get_model_config(one)["text_cfg"].get("hf_model_name") for one in open_clip.list_models()}
    if name not in known:
        raise CondmixError(f"{where}: hf_model_name {name} is neither in the folder nor one that open_clip has")
    try:
        from transformers import AutoConfig

        AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # transformers and the hub each raise their own kinds
        raise CondmixError(f"{where}: the text tower {name} can't be had from the hub ({reason(error)})") from error


def named_in(folder: Path, name: str | None) -> Path | None:
    """The folder of a text tower that `hf_model_name` finds in the CLIP's own; None where it is a name on the hub."""
    if not name:
        return None
    place = (folder / name).resolve()
    return place if place.is_relative_to(folder.resolve()) and place.is_dir() else None


def _check_sizes(model_cfg: dict[str, Any], path: Path) -> None:
    """CondmixError where the architecture is larger than its weights, before it is built and memory ends."""
    files = [*path.parent.glob("*.safetensors")]
    try:
        counts = []
        for weights in files:
            with safe_open(weights, "pt") as file:
                counts += [math.prod(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118
    except (SafetensorError, OSError):
        return  # damaged, which loading them tells
    for key, value in _pairs(model_cfg):
        for number in value if isinstance(value, list) else [value]:
            largest = len(counts) if key == "layers" else max(counts, default=0)
            if files and type(number) in (int, float) and number > largest:
                raise CondmixError(f"{path}: {key} {number:g} does not fit the weights: fetch the model again")


def check_finite(model: nn.Module, where: object) -> None:
    """CondmixError where a weight is NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CondmixError(f"{where}: the weights {name} hold NaN or infinity: fetch the model again")
