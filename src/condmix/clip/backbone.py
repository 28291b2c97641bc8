"""Image networks of timm, with weights that lie in a file."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from condmix import CondmixError
from condmix.clip.weights import check_finite
from condmix.runtime.messages import reason


class Pixels(NamedTuple):
    """How an image tower was taught to see pixels in 0..1: (pixel - mean) / std, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def open_backbone(model: str, path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """timm's network of this name, without its classifier: normalised pixels (B, 3, S, S) -> features (B, F)."""
    check_backbone(model)
    import timm

    backbone: nn.Module = timm.create_model(model, num_classes=0)
    load_backbone(backbone, path)
    check_finite(backbone, path)
    return backbone.eval().to(torch.device(device)).to(memory_format=torch.channels_last)  # a third less time on CPUs


def check_backbone(model: str) -> None:
    """CondmixError, with the nearest names, where timm has no such network."""
    import timm

    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3) or ["tf_efficientnet_lite0"]
        raise CondmixError(f'timm has no model "{model}"; near to it are {", ".join(near)}')


def load_backbone(backbone: Any, path: Path) -> None:
    """Load a file's weights, safetensors or a plain PyTorch state dict, into timm's network.

    The file may name them as timm does, or as EfficientNet-PyTorch does. A classifier in it that the network lacks is
    passed over.
    """
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(path), weights_only=True)
        state = timm_names(state, backbone)
        own = backbone.state_dict()
        backbone.load_state_dict({name: tensor for name, tensor in state.items() if name in own})
        surplus = [name for name in state if name not in own and not name.startswith(_classifier(backbone))]
        if surplus:
            raise ValueError(f"it also has {surplus[0]}")
    except Exception as error:  # safetensors, pickle and torch each raise their own kinds
        raise CondmixError(
            f"{path} does not hold the weights of {type(backbone).__name__} ({reason(error)})"
        ) from error


def _classifier(backbone: Any) -> tuple[str, ...]:
    """The names of timm's classifier, whether the network has it or not."""
    names = backbone.default_cfg.get("classifier", ())
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def timm_names(state: Mapping[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """Weights named as in EfficientNet-PyTorch, by timm's names; others as they are.

    There a network is a row of blocks, in timm a row of stages of blocks. The layers of a block come in the same
    order, and a first block that does not widen its input lacks the first convolution in both.
    """
    if "_conv_stem.weight" not in state:
        return dict(state)
    layers = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    places = [f"blocks.{i}.{j}" for i, stage in enumerate(backbone.blocks) for j in range(len(stage))]
    for number, place in enumerate(places):
        widens = f"_blocks.{number}._expand_conv.weight" in state
        theirs = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"][0 if widens else 2 :]
        ours = (
            ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"] if widens else ["conv_dw", "bn1", "conv_pw", "bn2"]
        )
        layers |= {f"_blocks.{number}.{a}": f"{place}.{b}" for a, b in zip(theirs, ours, strict=True)}
    renamed = {}
    for name, tensor in state.items():
        layer, _, weight = name.rpartition(".")
        renamed[f"{layers[layer]}.{weight}"] = tensor
    return renamed
