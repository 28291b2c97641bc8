"""Two other libraries' U-Nets and the report's, each trained as it was meant (the recipe's turn is in `training`).

As shipped means the library's layout, precision, optimiser and moving average, as its own training script has
them; pictures, times, noise, schedule (cosine) and target (v) are everyone's. Dropout is our size's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condmix.bench.pictures import STEPS, Batch
from condmix.bench.recipe import Contender
from condmix.bench.report_network import ReportNetwork
from condmix.bench.setting import NetworkSize
from condmix.diffusion.schedule import Schedule


def diffusers_network(size: NetworkSize, groups: int = 32) -> nn.Module:
    """UNet2DModel as google/ddpm-cifar10-32 configures it: our architecture, parameter for parameter."""
    from diffusers import UNet2DModel

    heights = [size.image_size >> level for level in range(len(size.multipliers))]
    kinds = ["Attn" if height in size.attention else "" for height in heights]
    network: Any = UNet2DModel(
        sample_size=size.image_size,
        block_out_channels=[size.channels * multiplier for multiplier in size.multipliers],
        layers_per_block=size.blocks,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        attention_head_dim=None,
        norm_num_groups=groups,
        dropout=size.dropout,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    return network


def lucidrains_network(size: NetworkSize, flash: bool = False) -> nn.Module:
    """denoising-diffusion-pytorch's Unet: two blocks per level, linear attention at all but the smallest size."""
    from denoising_diffusion_pytorch import Unet

    return Unet(
        size.peer_dim, init_dim=size.channels, dim_mults=size.multipliers, dropout=size.dropout, flash_attn=flash
    )


class Diffusers(Contender):
    """The step of examples/unconditional_image_generation/train_unconditional.py with its defaults."""

    def __init__(self, size: NetworkSize, device: str):
        from diffusers import DDPMScheduler
        from diffusers.training_utils import EMAModel

        self.network = diffusers_network(size).to(device).train()
        self.noise: Any = DDPMScheduler(STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        self.ema = EMAModel(self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)

    def step(self, batch: Batch) -> Tensor:
        noisy = self.noise.add_noise(batch.x_0, batch.noise, batch.t)
        output = self.network(noisy, batch.t).sample
        loss = F.mse_loss(output.float(), self.noise.get_velocity(batch.x_0, batch.noise, batch.t))
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        return loss.detach()

    def output(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, t).sample


class Lucidrains(Contender):
    """The step of denoising_diffusion_pytorch.Trainer with its defaults; v is GaussianDiffusion's default too.

    Its loss is weighted by SNR / (SNR + 1), as shipped, and its average moves at every tenth step.
    """

    def __init__(self, size: NetworkSize, device: str):
        from denoising_diffusion_pytorch import GaussianDiffusion
        from ema_pytorch import EMA

        self.network = lucidrains_network(size)
        diffusion = GaussianDiffusion(
            self.network, image_size=size.image_size, timesteps=STEPS, beta_schedule="cosine", objective="pred_v"
        )
        self.diffusion = diffusion.to(device).train()
        self.optimizer = torch.optim.Adam(self.diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
        self.ema = EMA(self.diffusion, beta=0.995, update_every=10).to(device)

    def step(self, batch: Batch) -> Tensor:
        pictures = (batch.x_0 + 1) / 2  # it takes them in [0, 1]
        loss = self.diffusion(pictures, times=batch.t, noise=batch.noise)
        loss.backward()
        nn.utils.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return loss.detach()


class Report(Contender):
    """The report's step: fp32, NCHW, AdamW, an average whose decay is 0.995 from the first step on."""

    def __init__(self, device: str):
        self.network = ReportNetwork().to(device).train()
        self.schedule = Schedule("cosine", STEPS)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=3e-4)
        self.average = [parameter.detach().clone() for parameter in self.network.parameters()]

    def step(self, batch: Batch) -> Tensor:
        output = self.network(self.schedule.add_noise(batch.x_0, batch.noise, batch.t), batch.t)
        value = self.schedule.loss("v", output, batch.x_0, batch.noise, batch.t).mean()
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.network.parameters(), strict=True):
                mean.lerp_(parameter, 0.005)
        return value.detach()
