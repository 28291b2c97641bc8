"""The optimisers of a diffusion model: AdamW for all weights, or Muon for matrices and AdamW for the others."""

from __future__ import annotations

import torch
from torch import nn

from condmix.settings.load import Train
from condmix.training.muon import Muon, takes

# What each keeps for a weight: Muon always, AdamW once a gradient has reached it.
STATE = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), Muon: ("momentum",)}


def optimizers(model: nn.Module, train: Train, device: torch.device) -> list[torch.optim.Optimizer]:
    """Those of `train.optimizer`; every weight belongs to one of them."""
    weights = list(model.parameters())
    matrices = [weight for weight in weights if train.optimizer == "muon" and takes(weight)]
    chosen = set(map(id, matrices))
    adamw = torch.optim.AdamW(
        [weight for weight in weights if id(weight) not in chosen],
        lr=train.lr,
        betas=(0.9, 0.99),
        weight_decay=train.weight_decay,
        # fused gives silently wrong updates on CPU when a gradient's strides differ from its parameter's
        fused=device.type == "cuda",
        foreach=None if device.type == "cuda" else True,
    )
    return [adamw, Muon(matrices, lr=train.lr, weight_decay=train.weight_decay)] if matrices else [adamw]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Its weights, in the order in which its state counts them."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]
