"""Our network as the benchmark trains it and samples from it: conditioned on one constant perspective."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condmix.bench.recipe import Learner, TrainingRecipe
from condmix.bench.setting import NetworkSize
from condmix.diffusion.model import Architecture, ConditionalModel
from condmix.diffusion.norm_silu import NormSilu
from condmix.diffusion.unet import Upsample


class NearestThenConvolution(Upsample):
    """What `Upsample` computes in one transposed convolution, in the two steps of the paper."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), self.weight, self.bias, padding=1)


class PlainNormSilu(NormSilu):
    """What `NormSilu` computes in one operation, by PyTorch's."""

    def forward(
        self,
        x: Tensor,
        before: Tensor | None = None,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        dropout: float = 0.0,
    ) -> Tensor:
        return self.plain(x, before, scale, shift, dropout if self.training else 0.0)


def network(size: NetworkSize) -> ConditionalModel:
    """The conditional model whose one perspective is as wide as the time embedding: the U-Net and a null vector."""
    width = 4 * size.channels
    return ConditionalModel(
        Architecture(
            fusion="additive",
            perspectives={"caption_1": width},
            dim=width,
            image_size=size.image_size,
            channels=size.channels,
            multipliers=size.multipliers,
            blocks=size.blocks,
            attention=size.attention,
            dropout=size.dropout,
        )
    )


def condition(model: ConditionalModel, count: int, device: str | torch.device) -> tuple[dict[str, Tensor], Tensor]:
    """Vectors {"caption_1": (B, D)} and mask (B, 1): the same vector for every picture.

    So the fusion has its work, and the model learns no more from it than an unconditional peer does.
    """
    vector = torch.ones(1, model.architecture.dim, device=device)
    return {"caption_1": vector.expand(count, -1)}, torch.ones(count, 1, dtype=torch.bool, device=device)


def learner(size: NetworkSize, recipe: TrainingRecipe, device: str) -> Learner:
    """Our contender, with the techniques that the recipe has."""
    model = network(size)
    for module in model.modules():
        if type(module) is Upsample and not recipe.fused_upsample:
            module.__class__ = NearestThenConvolution
        elif type(module) is NormSilu and not recipe.fused_norm:
            module.__class__ = PlainNormSilu
    return Learner(model, _call, recipe, device)


def _call(model: Any, x_t: Tensor, t: Tensor) -> Tensor:
    return model(x_t, t, *condition(model, len(x_t), x_t.device))
