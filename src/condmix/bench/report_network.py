"""The U-Net of the report that condmix grew out of, from its description: the peer `report` of the benchmarks.

Three levels of max-pooling (64, 128, 256, 256 channels), a bottleneck of 512, pairs of convolutions with GroupNorm(1)
and GELU, one of them residual, bilinear upsampling, and after each level four-head attention with layer norms: 23.3 M
parameters, 11.1 GFLOP forward and backward for a picture of 32x32. Time enters after each level, by SiLU and a dense
layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TIME_WIDTH = 256
DOWN = ((64, 128), (128, 256), (256, 256))
BOTTLENECK = ((256, 512), (512, 512), (512, 256))
UP = ((512, 128), (256, 64), (128, 64))


class ConvolutionPair(nn.Module):
    """Two 3x3 convolutions with GroupNorm(1) and GELU between, and GELU of the sum with x where it is residual."""

    def __init__(self, channels: int, out: int, middle: int | None = None, residual: bool = False):
        super().__init__()
        middle = middle or out
        self.residual = residual
        self.layers = nn.Sequential(
            nn.Conv2d(channels, middle, 3, padding=1, bias=False),
            nn.GroupNorm(1, middle),
            nn.GELU(),
            nn.Conv2d(middle, out, 3, padding=1, bias=False),
            nn.GroupNorm(1, out),
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, out, H, W)
        return F.gelu(x + self.layers(x)) if self.residual else self.layers(x)


class ReportAttention(nn.Module):
    """Four-head self-attention over places, then a two-layer network, each after a layer norm and with its residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.layers = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        places = x.flatten(2).transpose(1, 2)
        normed = self.norm(places)
        places = places + self.attention(normed, normed, normed, need_weights=False)[0]
        return (places + self.layers(places)).transpose(1, 2).unflatten(2, x.shape[2:])


class Level(nn.Module):
    """A residual pair of convolutions, a pair that changes the width, the time added, attention."""

    def __init__(self, channels: int, out: int, middle: int | None = None):
        super().__init__()
        self.same = ConvolutionPair(channels, channels, residual=True)
        self.change = ConvolutionPair(channels, out, middle)
        self.time = nn.Linear(TIME_WIDTH, out)
        self.attention = ReportAttention(out)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.change(self.same(x))
        return self.attention(h + self.time(F.silu(time))[:, :, None, None])


class ReportNetwork(nn.Module):
    """(B, 3, H, W) and times (B,) in steps -> (B, 3, H, W); H and W are divisible by 8."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        frequencies = 10_000 ** (-torch.arange(0, TIME_WIDTH, 2) / TIME_WIDTH)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.conv_in = ConvolutionPair(3, 64)
        self.down = nn.ModuleList(Level(*widths) for widths in DOWN)
        self.bottleneck = nn.Sequential(*(ConvolutionPair(*widths) for widths in BOTTLENECK))
        self.up = nn.ModuleList(Level(channels, out, channels // 2) for channels, out in UP)
        self.conv_out = nn.Conv2d(64, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        time = torch.cat([angles.sin(), angles.cos()], dim=1)
        h = self.conv_in(x)
        skips = []
        for level in self.down:
            skips.append(h)
            h = level(F.max_pool2d(h, 2), time)
        h = self.bottleneck(h)
        for level in self.up:
            larger = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            h = level(torch.cat([skips.pop(), larger], dim=1), time)
        return self.conv_out(h)
