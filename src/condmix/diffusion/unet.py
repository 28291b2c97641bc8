"""A noisy picture and a conditioning vector to a prediction of the same shape: the U-Net of DDPM.

Ho et al. 2020 (arXiv:2006.11239), appendix B. Its CIFAR-10 configuration, 35,746,307 parameters, is
`UNet(3, config, time_width=512)` with `UNetConfig(image_size=32, channels=128, multipliers=(1, 2, 2, 2), blocks=2,
attention=(16,), dropout=0.1)` and `TimeEmbedding(128, 512)`. The two are separate modules so that a fusion can stand
between them:

    conditioning, tokens = fusion(time_embedding(t), views, mask)
    output = unet(x, conditioning, tokens)

Where it departs from the paper and its code:

- Query, key and value are one dense layer, and so are all blocks' conditioning layers. Xavier's bound counts the
  outputs of the whole layer, so their first weights are smaller: 0.71 times for query, key and value, 0.34 to 0.37
  times for the conditioning of the network above.
- Convolutions of stride 2 pad by one on every side; TensorFlow's "SAME" pads below and on the right only.
- A norm's groups have at least 8 channels (`norm_groups`); upsampling and its convolution are one operation.
- scale_shift, position_map and cross-attention are additions, all off in the configuration above.
- The moving average's memory grows with the run up to `train.ema`: at 0.9999 it holds the last 10,000 steps, which a
  short run does not have. The demo's 0.995 holds 200.

Axes: B batch, C channels, H height, W width, T time width, N = H * W places, M tokens, D their width.

The network runs fastest in `channels_last` (`model.to(memory_format=torch.channels_last)`): every operation
here keeps that layout, and attention's (B, N, C) is then a view.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condmix import CondmixError
from condmix.diffusion.norm_silu import NormSilu

EPS = 1e-6  # of the norms, as in the paper's code


class TimeEmbedding(nn.Module):
    """Diffusion time to a vector: sines and cosines, then a two-layer network."""

    frequencies: Tensor

    def __init__(self, channels: int, width: int):
        super().__init__()
        if channels % 2 or channels < 4:
            raise CondmixError(f"a time embedding of {channels} channels; it takes an even number from 4 on")
        half = channels // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64) / (half - 1))
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.hidden = nn.Linear(channels, width)
        self.out = nn.Linear(width, width)
        _initialise(self)

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,), in steps 0 .. schedule.steps - 1, to (B, width)."""
        angles = t.float()[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        return self.out(F.silu(self.hidden(waves)))


class SelfAttention(nn.Module):
    """Single-head attention over all places of a feature map, with its residual."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(norm_groups(channels), channels, EPS)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H, W)
        places = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C), a view of a channels_last map
        attended = self.out(_attention(*self.query_key_value(places).chunk(3, dim=-1)))
        return x + attended.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(C)) v of (B, N, C) each: Vaswani et al. 2017 (arXiv:1706.03762), equation 1, one head.

    PyTorch's kernel for CPUs has a backward pass that in bf16 takes two to four times as long as matrix products do.
    Those hold the (B, N, N) weights, so large maps are left to the kernel.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[1] <= 256:
        weights = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2)).softmax(dim=-1)
        return torch.bmm(weights.to(v.dtype), v)
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


class CrossAttentionLayer(nn.Module):
    """Attention from all places of a feature map to a set of tokens, with its residual (Rombach et al. 2022)."""

    def __init__(self, channels: int, token_width: int):
        super().__init__()
        self.heads = next(heads for heads in range(8, 0, -1) if channels % heads == 0)
        self.norm = nn.GroupNorm(norm_groups(channels), channels, EPS)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(token_width, 2 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:  # (B, C, H, W), (B, M, D) -> (B, C, H, W)
        def split(rows: Tensor) -> Tensor:  # (B, N, C) -> (B, heads, N, C / heads)
            return rows.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        places = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
        key, value = self.key_value(tokens).chunk(2, dim=-1)
        attended = F.scaled_dot_product_attention(split(self.query(places)), split(key), split(value))
        return x + self.out(attended.transpose(1, 2).flatten(2)).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Residual block with the conditioning between its convolutions; attention follows if asked for.

    With attention and a `token_width` D, cross-attention to tokens of that width follows too.

    The conditioning shifts the feature map, as in DDPM, or with `scale_shift` scales and shifts the normalised map
    (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.3), so that it can also choose what passes.
    """

    def __init__(
        self, in_channels: int, channels: int, dropout: float, attention: bool, scale_shift: bool,
        token_width: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.scale_shift = scale_shift
        self.conditioning_width = 2 * channels if scale_shift else channels
        self.norm1 = NormSilu(norm_groups(in_channels), in_channels, EPS)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.norm2 = NormSilu(norm_groups(channels), channels, EPS)
        self.dropout = dropout
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else nn.Identity()
        self.attention = SelfAttention(channels) if attention else nn.Identity()
        self.cross_attention = CrossAttentionLayer(channels, token_width) if attention and token_width else None

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, C' or 2C'), maybe (B, M, D) -> (B, C', H, W)."""
        h = self.conv1(self.norm1(x))
        if self.scale_shift:
            scale, shift = conditioning.chunk(2, dim=1)
            h = self.norm2(h, scale=scale, shift=shift, dropout=self.dropout)
        else:
            h = self.norm2(h, before=conditioning, dropout=self.dropout)
        h = self.attention(self.shortcut(x) + self.conv2(h))
        return h if self.cross_attention is None else self.cross_attention(h, tokens)


class Downsample(nn.Conv2d):
    """Half the height and width, by a convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2, padding=1)


class Upsample(nn.Conv2d):
    """Twice the height and width: nearest neighbour, then a 3x3 convolution.

    Both in one transposed convolution of stride 2, whose 4x4 kernel is the 3x3 one summed over the 2x2 places
    that the nearest neighbour would copy a value to: 4 products per output instead of 9.
    """

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, 2H, 2W)
        kernel = F.pad(self.weight, (1, 1, 1, 1))
        kernel = kernel[:, :, 1:] + kernel[:, :, :-1]
        kernel = kernel[:, :, :, 1:] + kernel[:, :, :, :-1]
        return F.conv_transpose2d(x, kernel.transpose(0, 1).flip(2, 3), self.bias, stride=2, padding=1)


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """What decides the U-Net's layers.

    image_size     height and width, divisible by 2 ** (levels - 1)
    channels       of the first feature map; level i has channels * multipliers[i]
    multipliers    one per level; each level after the first halves height and width
    blocks         residual blocks per level on the way down (one more on the way up)
    attention      heights at which every block is followed by self-attention (the middle always is)
    dropout        within residual blocks
    position_map   add a learned map to the first feature map: a small network has too little depth to find
                   out from its zero padding where in the picture it is
    scale_shift    condition by scale and shift after the normalisation, not by a shift before it (see Block)
    """

    image_size: int
    channels: int
    multipliers: Sequence[int]
    blocks: int
    attention: Sequence[int]
    dropout: float = 0.0
    position_map: bool = False
    scale_shift: bool = False


class UNet(nn.Module):
    """DDPM's U-Net, whose conditioning vector comes from outside.

    channels       of the picture, which are also the output's
    time_width     of the conditioning
    token_width    D of the tokens that each attention is followed by cross-attention to; None: there are none
    """

    def __init__(self, channels: int, config: UNetConfig, time_width: int, token_width: int | None = None):
        super().__init__()
        sizes = [config.image_size >> level for level in range(len(config.multipliers))]
        _check_sizes(config.image_size, sizes, config.attention)
        widths = [config.channels * multiplier for multiplier in config.multipliers]

        self.conv_in = nn.Conv2d(channels, config.channels, 3, padding=1)
        # 4-D, so that .to(memory_format=torch.channels_last) lays it out like the feature map
        place_map = torch.zeros(1, config.channels, config.image_size, config.image_size)
        self.position = nn.Parameter(place_map) if config.position_map else None

        def block(width: int, out: int, attended: bool) -> Block:
            return Block(width, out, config.dropout, attended, config.scale_shift, token_width)

        levels = [(width, size in config.attention) for width, size in zip(widths, sizes, strict=True)]
        self.down, skips = _way_down(block, config.channels, levels, config.blocks)
        self.middle = nn.ModuleList(block(widths[-1], widths[-1], attended) for attended in (True, False))
        self.up = _way_up(block, skips, levels, config.blocks)

        self.norm_out = NormSilu(norm_groups(widths[0]), widths[0], EPS)
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)

        # One matrix product serves all blocks, in the order in which forward meets them.
        self._widths = [module.conditioning_width for module in self.modules() if isinstance(module, Block)]
        self.conditioning = nn.Linear(time_width, sum(self._widths))
        _initialise(self)

    def forward(self, x: Tensor, conditioning: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, time_width), maybe (B, M, token_width) -> (B, C, H, W)."""
        parts = iter(self.conditioning(F.silu(conditioning)).split(self._widths, dim=1))
        h = self.conv_in(x)
        if self.position is not None:
            h = h + self.position.to(h.dtype)

        skips = [h]
        for layer in self.down:
            h = layer(h, next(parts), tokens) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, next(parts), tokens)
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], dim=1), next(parts), tokens)
            else:
                h = layer(h)
        return self.conv_out(self.norm_out(h))


MakeBlock = Callable[[int, int, bool], Block]  # channels in, channels out, followed by attention?
Levels = Sequence[tuple[int, bool]]  # each level's channels, and whether its blocks are followed by attention


def _way_down(block: MakeBlock, width: int, levels: Levels, blocks: int) -> tuple[nn.ModuleList, list[int]]:
    """The layers, and the channels of each feature map that is kept for the way up."""
    layers, skips = nn.ModuleList(), [width]
    for level, (out, attended) in enumerate(levels):
        for _ in range(blocks):
            layers.append(block(skips[-1], out, attended))
            skips.append(out)
        if level < len(levels) - 1:
            layers.append(Downsample(out))
            skips.append(out)
    return layers, skips


def _way_up(block: MakeBlock, skips: list[int], levels: Levels, blocks: int) -> nn.ModuleList:
    """The layers, each block of which also reads the last of `skips` that is left."""
    layers, width = nn.ModuleList(), skips[-1]
    for level, (out, attended) in reversed(list(enumerate(levels))):
        for _ in range(blocks + 1):
            layers.append(block(width + skips.pop(), out, attended))
            width = out
        if level > 0:
            layers.append(Upsample(out))
    return layers


def norm_groups(channels: int) -> int:
    """How many groups a GroupNorm has: 32 as in the paper; below 128 channels, such that each has at least 8 channels.

    Smaller groups would take away what sets channels apart, the conditioning among it (with one channel per
    group, all of it); and on a CPU in channels_last a group of 4 takes 2.5 times as long as one of 8.
    """
    most = 32 if channels >= 128 else max(1, channels // 8)
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _initialise(module: nn.Module) -> None:
    """As in Ho et al.: Xavier-uniform weights, zero biases, and zero where a residual or the output ends."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in module.modules():
        last = {Block: "conv2", SelfAttention: "out", CrossAttentionLayer: "out", UNet: "conv_out"}.get(type(layer))
        if last:
            nn.init.zeros_(getattr(layer, last).weight)


def _check_sizes(image_size: int, sizes: list[int], attention: Sequence[int]) -> None:
    if image_size % 2 ** (len(sizes) - 1):
        raise CondmixError(
            f"image size {image_size} cannot be halved {len(sizes) - 1} times; "
            f"give fewer multipliers or a size divisible by {2 ** (len(sizes) - 1)}"
        )
    unknown = [size for size in attention if size not in sizes]
    if unknown:
        raise CondmixError(f"attention at size {unknown[0]}, but the levels have sizes {sizes}")
