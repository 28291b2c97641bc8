"""One contract for every fusion that the folder holds, and what each reference design states."""

import pytest
import torch

from condmix.settings.load import plugin, plugins

B, P, D, T = 5, 3, 16, 24


class Outputs(torch.nn.Module):
    """A fusion whose conditioning and tokens, if it has any, are one row of numbers per sample."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion

    def forward(self, time, views, mask):
        conditioning, tokens = self.fusion(time, views, mask)
        assert (tokens is not None) == self.fusion.has_tokens
        return conditioning if tokens is None else torch.cat([conditioning, tokens.flatten(1)], dim=1)


def make(name: str, kinds=("caption",) * P):
    torch.manual_seed(0)
    cls = plugin("fusions", name)
    width = cls.time_width_for(D, T)
    module = cls(kinds, D, width)
    if module.shares_weights:
        torch.nn.init.normal_(module.kind)  # zeros at first
    return module, torch.randn(B, width)


@pytest.fixture(params=plugins("fusions"))
def fusion(request):
    module, time = make(request.param)
    return Outputs(module), time


@pytest.fixture
def views():
    return torch.randn(B, P, D, generator=torch.Generator().manual_seed(1))


EVERYTHING = torch.ones(B, P, dtype=torch.bool)


def test_conditioning_has_the_width_of_the_time_embedding(fusion, views):
    module, time = fusion
    conditioning, tokens = module.fusion(time, views, EVERYTHING)
    assert conditioning.shape == time.shape
    assert tokens is None or (tokens.shape[0], tokens.shape[2]) == (B, D)


def test_time_is_added(fusion, views):
    """Conditioning is time plus something that the views decide: the U-Net always knows t."""
    module, time = fusion
    difference = module.fusion(time + 1.5, views, EVERYTHING)[0] - module.fusion(time, views, EVERYTHING)[0]
    torch.testing.assert_close(difference, torch.full_like(time, 1.5))


def test_every_present_view_matters_and_no_absent_one(fusion, views):
    module, time = fusion
    for p in range(P):
        changed = views.clone()
        changed[:, p] = torch.randn(B, D)
        assert not torch.allclose(module(time, views, EVERYTHING), module(time, changed, EVERYTHING))
        mask = EVERYTHING.clone()
        mask[:, p] = False
        torch.testing.assert_close(module(time, views, mask), module(time, changed, mask))


def test_norms_do_not_matter(fusion, views):
    """Views enter at unit norm times sqrt(D): a source cannot drown another by being longer."""
    module, time = fusion
    scaled = views * torch.tensor([0.01, 1.0, 100.0])[:, None]
    torch.testing.assert_close(module(time, scaled, EVERYTHING), module(time, views, EVERYTHING), atol=1e-5, rtol=1e-4)


def test_without_views_all_rows_are_the_unconditional_model(fusion, views):
    module, time = fusion
    same_time = time[:1].expand_as(time)
    out = module(same_time, views, torch.zeros(B, P, dtype=torch.bool))
    torch.testing.assert_close(out, out[:1].expand_as(out))


def test_rows_do_not_mix(fusion, views):
    module, time = fusion
    mask = torch.rand(B, P, generator=torch.Generator().manual_seed(2)) < 0.5
    whole = module(time, views, mask)
    rows = [module(time[i : i + 1], views[i : i + 1], mask[i : i + 1]) for i in range(B)]
    torch.testing.assert_close(whole, torch.cat(rows))


def test_nulls_are_learned(fusion, views):
    module, time = fusion
    module(time, views, torch.zeros(B, P, dtype=torch.bool)).square().sum().backward()
    assert (module.fusion.null.grad.flatten(1).norm(dim=1) > 0).all()


def test_views_of_another_width_are_refused(fusion):
    module, time = fusion
    with pytest.raises(ValueError, match="built for"):
        module(time, torch.randn(B, P + 1, D), torch.ones(B, P + 1, dtype=torch.bool))


def test_concat_is_one_dense_layer_over_the_concatenation(views):
    module, time = make("concat")
    unit = views / views.norm(dim=-1, keepdim=True) * D**0.5
    by_hand = time + unit.reshape(B, P * D) @ module.dense.weight.T + module.dense.bias
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], by_hand)


def test_additive_has_no_weights_but_its_nulls_and_takes_the_encoders_width(views):
    module, time = make("additive")
    assert [name for name, _ in module.named_parameters()] == ["null"]
    assert module.time_width == D
    unit = views / views.norm(dim=-1, keepdim=True) * D**0.5
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], time + unit.sum(1))


def test_projected_begins_as_additive_and_can_turn_a_source_down(views):
    module, time = make("projected")
    unit = views / views.norm(dim=-1, keepdim=True) * D**0.5
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], time + unit.sum(1))
    with torch.no_grad():
        module.residual[0] = -torch.eye(D)  # the first source is silent, the second says 1 + 0.5 times what it says
        module.residual[1] = 0.5 * torch.eye(D)
    expected = time + 1.5 * unit[:, 1] + unit[:, 2]
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], expected)


def test_mean_averages_what_is_present_in_any_order(views):
    module, time = make("mean")
    mask = torch.tensor([[True, False, True]] * B)
    only_those = make("mean", kinds=("caption",) * 2)[0]
    only_those.load_state_dict(module.state_dict() | {"null": module.null[[0, 2]]})
    pair = views[:, [0, 2]]
    expected = only_those(time, pair, torch.ones(B, 2, dtype=torch.bool))[0]
    torch.testing.assert_close(module(time, views, mask)[0], expected)
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], module(time, views.flip(1), EVERYTHING)[0])


def test_gates_choose_between_sources(views):
    """With a gate of one source forced open and all others shut, that source's features are what is added."""
    module, time = make("gated")
    with torch.no_grad():
        module.gate.weight.zero_()
        bias = torch.full((P, module.time_width), -40.0)
        bias[1] = 40.0
        module.gate.bias.copy_(bias.flatten())
    unit = views[:, 1] / views[:, 1].norm(dim=-1, keepdim=True) * D**0.5
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], time + module.dense[1](unit).tanh())


def test_attention_pools_like_torchs_layer_in_any_order(views):
    module, time = make("attention")
    layer = torch.nn.MultiheadAttention(D, module.heads, batch_first=True)
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([torch.eye(D), module.key_value.weight]))
        layer.in_proj_bias.copy_(torch.cat([torch.zeros(D), module.key_value.bias]))
        layer.out_proj.weight.copy_(torch.eye(D))
        layer.out_proj.bias.zero_()
    unit = views / views.norm(dim=-1, keepdim=True) * D**0.5 + module.kind
    mask = torch.tensor([[True, False, True], [True, True, True]] * B)[:B]
    pooled = layer(module.query.expand(B, 1, D), unit, unit, key_padding_mask=~mask)[0][:, 0]
    torch.testing.assert_close(module(time, views, mask)[0], time + module.dense(pooled))
    swapped = [2, 1, 0]  # both rows of the mask read the same from behind
    torch.testing.assert_close(module(time, views[:, swapped], mask)[0], module(time, views, mask)[0])


def test_film_scales_the_normalised_time_and_shifts_it(views):
    module, time = make("film")
    unit = (views / views.norm(dim=-1, keepdim=True) * D**0.5).reshape(B, P * D)
    scale, shift = (unit @ module.dense.weight.T + module.dense.bias).chunk(2, dim=1)
    normal = (time - time.mean(1, keepdim=True)) / (time.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(time, views, EVERYTHING)[0], time + scale * normal + shift)


def test_cross_attention_hands_the_views_over_as_tokens(views):
    module, time = make("cross_attention")
    mask = torch.tensor([[True, False, True]] * B)
    conditioning, tokens = module(time, views, mask)
    assert torch.equal(conditioning, time)
    unit = views / views.norm(dim=-1, keepdim=True) * D**0.5
    torch.testing.assert_close(tokens[:, [0, 2]], (unit + module.kind)[:, [0, 2]])
    torch.testing.assert_close(tokens[:, 1], (module.null[1] + module.kind[0]).expand(B, D))


@pytest.mark.parametrize("name", ["attention", "cross_attention"])
def test_sources_of_another_kind_are_told_apart_where_weights_are_shared(name, views):
    module, time = make(name, kinds=("caption", "image", "caption"))
    assert len(module.kind) == 2 and module.kind_of.tolist() == [0, 1, 0]
    same = views[:, :1].expand(B, P, D)
    tokens = module.tokens(same + module.kind[module.kind_of])
    if tokens is not None:
        assert torch.equal(tokens[:, 0], tokens[:, 2]) and not torch.equal(tokens[:, 0], tokens[:, 1])
    swapped = views[:, [1, 0, 2]]
    outputs = Outputs(module)
    assert not torch.allclose(outputs(time, views, EVERYTHING), outputs(time, swapped, EVERYTHING))
