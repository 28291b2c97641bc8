"""The U-Net is DDPM's: same parameters and same output as diffusers' implementation of it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from condmix import CondmixError
from condmix.diffusion.unet import (
    Block,
    CrossAttentionLayer,
    Downsample,
    TimeEmbedding,
    UNet,
    UNetConfig,
    Upsample,
    _attention,
)

CIFAR10 = {"channels": 128, "multipliers": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "image_size": 32}
SMALL = {"channels": 16, "multipliers": (1, 2, 2), "blocks": 1, "attention": (8,), "image_size": 16}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def ours(config: dict, time_width: int, token_width: int | None = None, **options) -> tuple[TimeEmbedding, UNet]:
    unet = UNet(3, UNetConfig(**config, **options), time_width, token_width)
    return TimeEmbedding(config["channels"], time_width), unet


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter, the zero-initialised ones too, a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.normal_(std=max(parameter[0].numel(), 10) ** -0.5, generator=generator)


def parameter_count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def diffusers_unet(config: dict, scale_shift: bool = False):
    """diffusers' UNet2DModel with the configuration of google/ddpm-cifar10-32.

    But for the padding of its stride-2 convolutions: both sides by one, not the far side only.
    """
    diffusers = pytest.importorskip("diffusers")
    sizes = [config["image_size"] >> level for level in range(len(config["multipliers"]))]
    kinds = ["Attn" if size in config["attention"] else "" for size in sizes]
    return diffusers.UNet2DModel(
        sample_size=config["image_size"],
        block_out_channels=[config["channels"] * multiplier for multiplier in config["multipliers"]],
        layers_per_block=config["blocks"],
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        norm_num_groups=32,
        attn_norm_num_groups=32,
        attention_head_dim=None,
        downsample_padding=1,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
    ).eval()


def copy_weights(theirs, embedding: TimeEmbedding, unet: UNet) -> None:
    """Load diffusers' weights into ours; a wrong shape or a parameter left over is an error."""

    def layer(prefix, module):
        return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}

    def block(prefix, resnet, attention):
        pairs = {name: getattr(resnet, name) for name in ("norm1", "conv1", "norm2", "conv2")}
        if resnet.conv_shortcut is not None:
            pairs["shortcut"] = resnet.conv_shortcut
        conditionings.append(resnet.time_emb_proj)
        if attention is not None:
            pairs |= {"attention.norm": attention.group_norm, "attention.out": attention.to_out[0]}
            for name in ("weight", "bias"):
                parts = [getattr(part, name) for part in (attention.to_q, attention.to_k, attention.to_v)]
                state[f"{prefix}.attention.query_key_value.{name}"] = torch.cat(parts)
        for name, module in pairs.items():
            state.update(layer(f"{prefix}.{name}", module))

    def blocks(prefix, resnets, attentions, samplers):
        for resnet, attention in zip(resnets, attentions or [None] * len(resnets), strict=True):
            block(f"{prefix}.{next(index)}", resnet, attention)
        for sampler in samplers or []:
            state.update(layer(f"{prefix}.{next(index)}", sampler.conv))

    state, conditionings = {}, []
    for prefix, parts in (
        ("down", theirs.down_blocks),
        ("middle", [theirs.mid_block]),
        ("up", theirs.up_blocks),
    ):
        index = iter(range(1000))
        for part in parts:
            attentions = getattr(part, "attentions", None)
            if prefix == "middle":
                attentions = [*attentions, None]
            samplers = getattr(part, "downsamplers", None) or getattr(part, "upsamplers", None)
            blocks(prefix, part.resnets, attentions, samplers)
    for name, module in (("conv_in", theirs.conv_in), ("norm_out", theirs.conv_norm_out)):
        state.update(layer(name, module))
    state.update(layer("conv_out", theirs.conv_out))
    for name in ("weight", "bias"):
        state[f"conditioning.{name}"] = torch.cat([getattr(linear, name) for linear in conditionings])
    unet.load_state_dict(state, strict=True)
    embedding.hidden.load_state_dict(theirs.time_embedding.linear_1.state_dict())
    embedding.out.load_state_dict(theirs.time_embedding.linear_2.state_dict())


def test_cifar10_configuration_has_the_parameters_of_ddpm():
    with torch.device("meta"):
        embedding, unet = ours(CIFAR10, 512, dropout=0.1)
        theirs = diffusers_unet(CIFAR10)
    assert parameter_count(embedding, unet) == parameter_count(theirs) == 35_746_307


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("config", [CIFAR10, {**CIFAR10, "multipliers": (1, 2), "blocks": 1}])
def test_output_equals_diffusers(config, scale_shift):
    theirs = diffusers_unet(config, scale_shift)
    randomise(theirs)
    embedding, unet = ours(config, 4 * config["channels"], scale_shift=scale_shift)
    copy_weights(theirs, embedding, unet)
    x, t = torch.randn(2, 3, 32, 32), torch.tensor([3, 870])
    with torch.no_grad():
        expected = theirs(x, t).sample
        torch.testing.assert_close(unet(x, embedding(t)), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_time_embedding_starts_from_the_sinusoid_of_ddpm():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    t = torch.tensor([0, 1, 500, 999])
    embedding = TimeEmbedding(32, 32)
    for linear in (embedding.hidden, embedding.out):
        linear.load_state_dict({"weight": torch.eye(32), "bias": torch.zeros(32)})
    waves = embeddings.get_timestep_embedding(t, 32, flip_sin_to_cos=False, downscale_freq_shift=1)
    torch.testing.assert_close(embedding(t), F.silu(waves), atol=1e-4, rtol=0)


def test_a_fresh_network_predicts_zero():
    _, unet = ours(SMALL, 64, position_map=True)
    output = unet(torch.randn(2, 3, 16, 16), torch.randn(2, 64))
    assert output.shape == (2, 3, 16, 16)
    assert output.eq(0).all()


def test_every_parameter_takes_part():
    _, unet = ours(SMALL, 64, position_map=True, dropout=0.1)
    randomise(unet)
    unet(torch.randn(2, 3, 16, 16), torch.randn(2, 64)).square().sum().backward()
    assert [name for name, p in unet.named_parameters() if not p.grad.any()] == []


def test_position_map_starts_as_no_map():
    _, plain = ours(SMALL, 64)
    _, mapped = ours(SMALL, 64, position_map=True)
    randomise(plain)
    missing = mapped.load_state_dict(plain.state_dict(), strict=False).missing_keys
    x, conditioning = torch.randn(2, 3, 16, 16), torch.randn(2, 64)
    assert missing == ["position"] and mapped.position.shape == (1, 16, 16, 16)
    assert torch.equal(mapped(x, conditioning), plain(x, conditioning))


def test_channels_last_changes_the_layout_only():
    _, unet = ours(SMALL, 64, position_map=True)
    randomise(unet)
    x, conditioning = torch.randn(2, 3, 16, 16), torch.randn(2, 64)
    expected = unet(x, conditioning)
    unet.to(memory_format=torch.channels_last)
    layouts = []
    for module in unet.modules():
        if isinstance(module, Block | Downsample | Upsample):
            module.register_forward_hook(lambda m, args, out: layouts.append(out))
    output = unet(x.to(memory_format=torch.channels_last), conditioning)
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)
    assert all(h.is_contiguous(memory_format=torch.channels_last) for h in [*layouts, output])


def test_upsample_is_nearest_neighbour_then_convolution():
    upsample = Upsample(6)
    randomise(upsample)
    x = torch.randn(2, 6, 5, 7)
    doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = F.conv2d(doubled, upsample.weight, upsample.bias, padding=1)
    torch.testing.assert_close(upsample(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [3, 8, 20, 28, 36, 96, 128, 144, 192, 256, 384])
def test_group_norm_never_isolates_a_channel(channels):
    norm = Block(channels, channels, dropout=0.0, attention=False, scale_shift=False).norm1
    assert channels % norm.num_groups == 0 and norm.num_groups <= 32
    assert norm.num_groups == 1 or channels // norm.num_groups >= 4


@pytest.mark.parametrize("places", [16, 256, 400])  # on both sides of the choice that is made
def test_attention_in_bf16_is_that_of_fp32_but_for_rounding(places):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, places, 32).bfloat16()
    found = [tensor.clone().requires_grad_() for tensor in (q, k, v)]
    exact = [tensor.double().requires_grad_() for tensor in (q, k, v)]
    y = _attention(*found)
    expected = F.scaled_dot_product_attention(*exact)
    y.sum().backward()
    expected.sum().backward()
    assert y.dtype == torch.bfloat16
    assert (y.double() - expected).norm() < 0.01 * expected.norm()
    for one, other in zip(found, exact, strict=True):
        assert (one.grad.double() - other.grad).norm() < 0.03 * other.grad.norm()


def test_cross_attention_is_torchs_multihead_attention_from_places_to_tokens():
    layer = CrossAttentionLayer(16, token_width=6)
    randomise(layer)
    theirs = nn.MultiheadAttention(16, layer.heads, kdim=6, vdim=6, batch_first=True)
    key, value = layer.key_value.weight.chunk(2)
    with torch.no_grad():
        for mine, yours in ((layer.query.weight, "q"), (key, "k"), (value, "v")):
            getattr(theirs, f"{yours}_proj_weight").copy_(mine)
        theirs.in_proj_bias.copy_(torch.cat([layer.query.bias, layer.key_value.bias]))
        theirs.out_proj.load_state_dict(layer.out.state_dict())
    x, tokens = torch.randn(2, 16, 4, 4), torch.randn(2, 3, 6)
    places = layer.norm(x).flatten(2).transpose(1, 2)
    attended = theirs(places, tokens, tokens)[0].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(layer(x, tokens), x + attended, atol=1e-5, rtol=1e-5)


def test_tokens_reach_every_attention_and_have_no_order():
    _, unet = ours(SMALL, 64, token_width=6)
    assert sum(isinstance(module, CrossAttentionLayer) for module in unet.modules()) == 1 + 2 + 1  # down, up, middle
    x, conditioning, tokens = torch.randn(2, 3, 16, 16), torch.randn(2, 64), torch.randn(2, 3, 6)
    assert unet(x, conditioning, tokens).eq(0).all()  # like any fresh network
    randomise(unet)
    output = unet(x, conditioning, tokens)
    assert not torch.allclose(output, unet(x, conditioning, tokens + 1))
    torch.testing.assert_close(output, unet(x, conditioning, tokens.flip(1)), atol=1e-5, rtol=1e-4)


def test_dropout_is_for_training_only():
    _, unet = ours(SMALL, 64, dropout=0.5)
    randomise(unet)
    x, conditioning = torch.randn(2, 3, 16, 16), torch.randn(2, 64)
    assert not torch.equal(unet(x, conditioning), unet(x, conditioning))
    unet.eval()
    assert torch.equal(unet(x, conditioning), unet(x, conditioning))


def test_impossible_sizes_are_refused_in_words():
    with pytest.raises(CondmixError, match="image size 18 cannot be halved 2 times"):
        ours({**SMALL, "image_size": 18}, 64)
    with pytest.raises(CondmixError, match=r"attention at size 7, but the levels have sizes \[16, 8, 4\]"):
        ours({**SMALL, "attention": (7,)}, 64)
    with pytest.raises(CondmixError, match="time embedding of 7 channels"):
        TimeEmbedding(7, 64)
