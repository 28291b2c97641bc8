"""ConditionalModel: (x_t, t, views, mask) -> the U-Net's prediction, with a fusion between time and U-Net.

Axes: B batch, P perspectives, D embedding width (the encoder's), d_p width of perspective p's vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, with_config
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.diffusion.unet import TimeEmbedding, UNet, UNetConfig
from condmix.files.artifacts import digest_of_file, read_checked_json, read_tensors, rebuilt, write_checked_json
from condmix.files.atomic import replacing
from condmix.settings.load import plugin
from condmix.settings.perspectives import parse


@dataclass(frozen=True, kw_only=True)
class Architecture(UNetConfig):
    """Everything that the constructor needs: saved in the model's card, so a model rebuilds itself."""

    fusion: str
    perspectives: dict[str, int]  # name -> d_p, in the order of the views
    dim: int
    match_parameters: int | None = None
    centres: dict[str, int] = field(default_factory=dict)  # cache -> d, where its mean was subtracted


Size = Annotated[int, Field(ge=1, le=2**16)]  # no network is larger, and a damaged card must not ask for one


def _perspective(name: str) -> str:
    return parse(name).name  # ValueError where there is no such perspective


@with_config(extra="forbid")
class SavedArchitecture(TypedDict):
    """`Architecture` in JSON."""

    fusion: str
    perspectives: dict[Annotated[str, AfterValidator(_perspective)], Size]
    dim: Size
    image_size: Size
    channels: Size
    multipliers: Annotated[list[Size], Field(min_length=1, max_length=16)]
    blocks: Annotated[int, Field(ge=1, le=64)]
    attention: list[Size]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    position_map: bool
    scale_shift: bool
    match_parameters: Annotated[int, Field(ge=1, le=2**40)] | None
    centres: NotRequired[dict[str, Size]]


Card = TypedDict(
    "Card",  # what is read of model.json; some of its keys have dots
    {
        "variant": str,
        "fusion": str,
        "perspectives": str,
        "architecture": SavedArchitecture,
        "encoder": str,
        "class_names": list[str],
        "diffusion.schedule": str,
        "diffusion.steps": Size,
        "diffusion.prediction": str,
        "train.ema": float,
        "sha256": str,
    },
)


class ConditionalModel(nn.Module):
    """A DDPM U-Net conditioned on time and on any subset of its perspectives.

    A perspective whose vectors have the encoder's width D enters as it is. Others pass a learned linear
    map without bias; for `class`, whose vectors are one-hot, that map is the learned class table.

    With `match_parameters` a residual network between fusion and U-Net is as wide as it takes to reach that many
    parameters (less than one of its hidden units may lack), so that fusions compare at equal size.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = a = architecture
        fusion = plugin("fusions", a.fusion)
        width = fusion.time_width_for(a.dim, 4 * a.channels)
        self.maps = nn.ModuleDict(
            {
                name: nn.Identity() if name != "class" and dim == a.dim else nn.Linear(dim, a.dim, bias=False)
                for name, dim in a.perspectives.items()
            }
        )
        # No part of the network: what those who make vectors for it must subtract, kept with its weights.
        self.centres = nn.Module()
        for source, dim in a.centres.items():
            self.centres.register_buffer(source, torch.zeros(dim))
        self.time = TimeEmbedding(a.channels, width)
        self.fusion = fusion([parse(name).kind for name in a.perspectives], a.dim, width)
        self.unet = UNet(3, a, width, token_width=a.dim if fusion.has_tokens else None)
        self.widening = nn.Identity() if a.match_parameters is None else self._widening(width, a.match_parameters)

    def _widening(self, width: int, parameters: int) -> Widening:
        own = sum(parameter.numel() for parameter in self.parameters())
        hidden = (parameters - own) // Widening.parameters_per_unit(width)
        if hidden < 1:
            raise CondmixError(
                f"model.match_parameters is {parameters:,}, but with fusion {self.architecture.fusion} of "
                f"{' + '.join(self.architecture.perspectives)} the model has {own:,} already; ask for at least "
                f"{own + Widening.parameters_per_unit(width):,}"
            )
        return Widening(width, hidden)

    def embed(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Vectors {perspective: (B, d_p)} -> views (B, P, D), in the model's order."""
        return torch.stack([layer(vectors[name]) for name, layer in self.maps.items()], dim=1)

    def forward(self, x_t: Tensor, t: Tensor, views: Tensor | Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """x_t (B, 3, S, S), t (B,), views (B, P, D), mask (B, P) bool -> prediction (B, 3, S, S).

        Training hands over the vectors themselves, since the maps' gradients must be part of this call
        (DistributedDataParallel averages only those); sampling embeds once and reuses the views.
        """
        if not isinstance(views, Tensor):
            views = self.embed(views)
        conditioning, tokens = self.fusion(self.time(t), views, mask)
        return self.unet(x_t, self.widening(conditioning), tokens)


class Widening(nn.Module):
    """c + W_2 silu(W_1 c + b), at first the identity: parameters for a comparison at equal size, and nothing else."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.out.weight)

    @staticmethod
    def parameters_per_unit(width: int) -> int:
        """Parameters of one hidden unit: `width` weights in, as many out, and a bias."""
        return 2 * width + 1

    def forward(self, conditioning: Tensor) -> Tensor:  # (B, T) -> (B, T)
        return conditioning + self.out(F.silu(self.hidden(conditioning)))


def save_model(folder: Path, weights: Mapping[str, Tensor], card: dict) -> str:
    """Write model.safetensors and the card model.json; returns the weights' sha256, which the card holds too."""
    with replacing(folder / "model.safetensors") as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, part)
        sha256 = digest_of_file(part)
    write_checked_json(folder / "model.json", {**card, "sha256": sha256})
    return sha256


def load_model(folder: Path) -> tuple[ConditionalModel, dict]:
    """The model that `save_model` wrote, in evaluation mode, and its card; CondmixError where it is damaged."""
    card = read_card(folder)
    path, remedy = folder / "model.safetensors", _remedy(folder)
    weights, _ = read_tensors(path, remedy, card["sha256"])
    architecture = architecture_from(card["architecture"])
    model = rebuilt(lambda: ConditionalModel(architecture), weights, path, folder / "model.json", remedy)
    return model.eval().to(memory_format=torch.channels_last), card


def read_card(folder: Path) -> dict:
    """The card (model.json) of a trained variant."""
    return read_checked_json(folder / "model.json", Card, _remedy(folder))


def _remedy(folder: Path) -> str:
    return f"dvc repro train@{folder.name}"


def architecture_from(saved: dict) -> Architecture:
    """Back from JSON, where tuples became lists."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
    return Architecture(**values)
