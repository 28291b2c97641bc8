"""Our training recipe with every technique as a switch, for any network.

The step is that of `train.Trainer.advance`, and the settings those of conf/cifar10.yaml (tests hold both to it);
what a run adds around it (the data, the learning rate's rise and fall, logs, checkpoints) is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from condmix.bench.pictures import STEPS, Batch
from condmix.diffusion.schedule import Schedule

Call = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Contender(ABC):
    """A network in training: `step` is what is timed. All of them predict v on the cosine schedule."""

    network: nn.Module
    dtype = "fp32"
    repeats = 1  # how many times what is timed a whole is

    @property
    def parameters(self) -> int:
        return parameter_count(self.network)

    @abstractmethod
    def step(self, batch: Batch) -> Tensor:
        """One optimiser step; returns its loss, on the device."""

    @torch.no_grad()
    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """v (B, 3, H, W) of the weights as they stand (not their average), without dropout or gradients."""
        self.network.eval()
        output = self.output(x_t, t)
        self.network.train()
        return output.float()

    def output(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What the network says of noisy pictures (B, 3, H, W) at times (B,)."""
        result: Tensor = self.network(x_t, t)
        return result


@dataclass(frozen=True)
class TrainingRecipe:
    """The techniques, each of which a contender can be without, and the optimiser's settings."""

    bf16: bool
    compile: bool
    channels_last: bool = True
    foreach_optimiser: bool = True  # on a GPU the fused one; else one tensor after the other
    foreach_ema: bool = True
    fused_norm: bool = True  # ours only, on CPUs: `norm_silu.NormSilu`; else PyTorch's operations
    fused_upsample: bool = True  # ours only: `unet.Upsample`; else nearest neighbour, then the convolution

    lr: float = 4e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.9999

    def without(self, technique: str) -> TrainingRecipe:
        return replace(self, **{technique: False})  # type: ignore[arg-type]  # techniques are the bools

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def optimizer(self, network: nn.Module, device: str) -> torch.optim.AdamW:
        gpu, together = device == "cuda", self.foreach_optimiser
        return torch.optim.AdamW(
            network.parameters(),
            lr=self.lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            fused=gpu and together,
            foreach=(None if gpu else True) if together else False,
        )


class Learner(Contender):
    """A network under the recipe; call(network, x_t, t) -> v tells how it is called."""

    def __init__(self, network: nn.Module, call: Call, recipe: TrainingRecipe, device: str):
        self.recipe, self.device, self.call = recipe, device, call
        self.dtype = "bf16" if recipe.bf16 else "fp32"
        self.network = network.to(device).to(memory_format=recipe.layout).train()
        self.average = [parameter.detach().clone() for parameter in network.parameters()]
        self.optimizer = recipe.optimizer(network, device)
        self.schedule = Schedule("cosine", STEPS)
        self.run = _compiled(network) if recipe.compile else network
        self.steps = 0

    def step(self, batch: Batch) -> Tensor:
        value = self.backward(batch)
        self.update()
        return value

    def backward(self, batch: Batch) -> Tensor:
        """The batch's loss; its gradients are the parameters' now."""
        x_0, noise = (tensor.contiguous(memory_format=self.recipe.layout) for tensor in (batch.x_0, batch.noise))
        with self._autocast():
            output = self.call(self.run, self.schedule.add_noise(x_0, noise, batch.t), batch.t)
        value = self.schedule.loss("v", output.float(), x_0, noise, batch.t).mean()
        value.backward()
        return value.detach()

    def update(self) -> None:
        """Clip, move the weights, move their average."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        decay = min(self.recipe.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            if self.recipe.foreach_ema:
                torch._foreach_lerp_(self.average, list(self.network.parameters()), 1 - decay)
            else:
                for mean, parameter in zip(self.average, self.network.parameters(), strict=True):
                    mean.lerp_(parameter, 1 - decay)

    def output(self, x_t: Tensor, t: Tensor) -> Tensor:
        with self._autocast():
            return self.call(self.network, x_t.contiguous(memory_format=self.recipe.layout), t)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.recipe.bf16)


def _compiled(network: nn.Module) -> nn.Module:
    # Contenders share their code. Past its limit of compilations per function, dynamo would leave the rest uncompiled
    # and say nothing.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(network)  # type: ignore[return-value]  # a Module, though typed as a function


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
