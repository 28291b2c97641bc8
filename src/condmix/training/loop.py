"""The training loop of the networks beside the diffusion model: CLIP, captioner, judge and prior.

They train in minutes and start again after a kill; the diffusion model's own loop (trainer.py) resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from condmix.training.learning_rate import share
from condmix.training.losses import Losses


@dataclass(frozen=True)
class Plan:
    """How long and how fast: the learning rate rises over `warmup`, a share of the steps, then falls to zero."""

    what: str  # is trained, in progress bars and messages
    setting: str  # the key of `lr` in the profile
    steps: int
    lr: float
    warmup: float
    clip_norm: float | None = None


def fit(
    plan: Plan,
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[], Tensor],
    noted: Callable[[Tensor], Tensor] = Tensor.detach,
    after: Callable[[], None] = lambda: None,
    quiet: bool = False,
) -> list[float]:
    """Take `plan.steps` steps on what `loss_of` returns, the loss () of a new batch; the loss of every step.

    `noted` turns a process's loss into the one to read, `after` runs after each step, without gradients. CondmixError
    where a loss is not finite.
    """
    losses = Losses(f"the {plan.what}", plan.setting, plan.lr)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    weights = [weight for group in groups for weight in group["params"]]
    with tqdm(total=plan.steps, desc=f"train {plan.what}", unit="step", mininterval=1.0, disable=quiet) as progress:
        for step in range(plan.steps):
            for group in groups:
                group["lr"] = plan.lr * share(step, plan.steps, plan.warmup)
            loss = loss_of()
            if losses.add(noted(loss)):
                progress.set_postfix_str(f"loss {losses.values[-1]:.3f}")
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            if plan.clip_norm:
                dense = [weight for weight in weights if weight.grad is not None and not weight.grad.is_sparse]
                nn.utils.clip_grad_norm_(dense, plan.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
            with torch.no_grad():
                after()
            progress.update()
    losses.read()
    return losses.values
