"""The normalisation of feature maps: our C++ operation against PyTorch's operations in fp64, and its dropout."""

import pytest
import torch
from torch.autograd import gradcheck

from condmix.diffusion.norm_silu import NormSilu
from condmix.runtime import native

compiled = pytest.mark.skipif(not native.available(), reason="there is no C++ compiler here")


def a_map(*shape, dtype=torch.float32, seed=0, offset=3.0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator) * 2 + offset
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def given(kinds, channels, pictures=3):
    generator = torch.Generator().manual_seed(5)
    return {kind: torch.randn(pictures, channels, generator=generator) for kind in kinds}


def norm(groups, channels):
    module = NormSilu(groups, channels, 1e-6)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 1.5, channels))
        module.bias.copy_(torch.linspace(-1, 1, channels))
    return module


def result_and_gradients(run, x, module, conditioning):
    x = x.clone().requires_grad_()
    conditioning = {kind: value.clone().requires_grad_() for kind, value in conditioning.items()}
    y = run(x, conditioning)
    (y.double() * torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)).sum().backward()
    leaves = [x, *conditioning.values(), module.weight, module.bias]
    return [y.detach().double(), *(leaf.grad.double() for leaf in leaves)]


@compiled
@pytest.mark.parametrize("kinds", [(), ("before",), ("scale", "shift"), ("shift",)])
@pytest.mark.parametrize(
    "groups, shape",
    [(4, (3, 32, 16, 16)), (32, (3, 128, 8, 8)), (1, (3, 24, 5, 7)), (3, (3, 12, 1, 1)), (8, (3, 8, 4, 4))],
)
def test_agrees_with_pytorch_in_fp64(kinds, groups, shape):
    x, conditioning = a_map(*shape), given(kinds, shape[1])
    ours, theirs = norm(groups, shape[1]), norm(groups, shape[1]).double()
    found = result_and_gradients(lambda x, c: ours(x, **c), x, ours, conditioning)
    expected = result_and_gradients(
        lambda x, c: theirs.plain(x, c.get("before"), c.get("scale"), c.get("shift"), 0.0),
        x.double(), theirs, {kind: value.double() for kind, value in conditioning.items()},
    )  # fmt: skip
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * (1 + other.abs().max().item()))


@compiled
def test_in_bf16_only_inputs_and_results_are_rounded():
    x = a_map(3, 64, 8, 8, dtype=torch.bfloat16)
    conditioning = {kind: value.bfloat16() for kind, value in given(("scale", "shift"), 64).items()}
    ours, exact = norm(8, 64), norm(8, 64).double()
    found = result_and_gradients(lambda x, c: ours(x, **c), x, ours, conditioning)
    expected = result_and_gradients(
        lambda x, c: exact.plain(x, None, c["scale"], c["shift"], 0.0),
        x.double(), exact, {kind: value.double() for kind, value in conditioning.items()},
    )  # fmt: skip
    assert ours(x).dtype == torch.bfloat16
    assert torch.allclose(found[0], expected[0], rtol=2**-8, atol=1e-6)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert (one - other).norm() < 0.01 * other.norm()


@compiled
def test_a_large_mean_costs_no_precision():
    x = a_map(2, 16, 8, 8, offset=0.0) * 1e-2 + 100
    y = norm(2, 16)(x)
    assert torch.allclose(y.double(), norm(2, 16).double()(x.double()), atol=1e-3)


@compiled
def test_infinity_and_nan_are_not_hidden():
    for value in (float("nan"), float("inf")):
        for dtype in (torch.float32, torch.bfloat16):
            x = a_map(2, 8, 4, 4, dtype=dtype)
            x[1, 3, 2, 2] = value
            y = norm(1, 8)(x)
            assert y[0].isfinite().all() and y[1].isnan().any()


@compiled
def test_far_from_zero_silu_is_its_limit():
    x = torch.tensor([-1e4, -200.0, -90.0, 90.0, 200.0, 1e4])
    module = NormSilu(1, 1, 1e-6)
    y = module(torch.zeros(6, 1, 1, 1), shift=x[:, None]).flatten()
    assert torch.allclose(y, torch.nn.functional.silu(x), atol=1e-30)


@compiled
def test_any_layout_is_taken():
    x = a_map(2, 16, 6, 6)
    assert torch.allclose(norm(2, 16)(x), norm(2, 16)(x.contiguous()), atol=1e-5)


@compiled
def test_the_number_of_threads_changes_no_bit():
    x = a_map(5, 32, 8, 8)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        module = norm(4, 32)
        found.append(result_and_gradients(lambda x, c, module=module: module(x), x, module, {}))
    torch.set_num_threads(before)
    assert all(map(torch.equal, *found))


@pytest.fixture(params=[pytest.param(True, marks=compiled), False], ids=["condmix", "torch"])
def kernels(request, monkeypatch):
    """Our operation and PyTorch's."""
    if not request.param:
        monkeypatch.setattr(native, "available", lambda: False)
    return request.param


def dropped(p, seed=0, x=None):
    torch.manual_seed(seed)
    module = NormSilu(1, 64, 1e-6).train()
    return module(a_map(16, 64, 16, 16) if x is None else x, shift=torch.full((16, 64), 20.0), dropout=p)


def test_dropout_drops_its_share_everywhere(kernels):
    kept = (dropped(0.1) != 0).double()
    n = kept.numel()
    for axes in ((1, 2, 3), (0, 2, 3), (0, 1)):  # by picture, by channel, by place
        shares = kept.mean(axes).flatten()
        spread = (0.09 * len(shares) / n) ** 0.5
        assert (shares - 0.9).abs().max() < 5.5 * spread
        assert 0.6 < shares.std() / spread < 1.4


def test_dropout_is_independent_from_place_to_place_and_from_call_to_call(kernels):
    kept = (dropped(0.5) != 0).double() - 0.5
    n = kept.numel()
    neighbours = [kept.roll(1, axis) for axis in range(4)]
    for other in [*neighbours, (dropped(0.5, seed=1) != 0).double() - 0.5]:
        assert abs((kept * other).sum()) < 5 * 0.25 * n**0.5


def test_dropout_follows_from_the_seed_and_keeps_the_mean(kernels):
    assert torch.equal(dropped(0.3, seed=4), dropped(0.3, seed=4))
    assert torch.allclose(dropped(0.3).mean(), dropped(0.0).mean(), rtol=0.01)


def test_what_was_dropped_has_no_gradient(kernels):
    torch.manual_seed(3)
    module = NormSilu(1, 8, 1e-6).train()
    shift = torch.randn(2, 8, requires_grad=True)
    y = module(torch.zeros(2, 8, 1, 1), shift=shift, dropout=0.5)
    y.sum().backward()
    assert torch.equal(shift.grad == 0, y.flatten(1) == 0)
    kept = y.flatten(1) != 0
    x = shift.detach()[kept].double()
    slope = torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))
    assert torch.allclose(shift.grad[kept].double(), 2 * slope, rtol=1e-4)


def test_dropout_is_for_training_only(kernels):
    module = NormSilu(1, 8, 1e-6).eval()
    assert (module(a_map(2, 8, 4, 4), dropout=0.9) != 0).all()


def test_fp64_goes_through_pytorch_and_has_exact_gradients():
    module = NormSilu(2, 4, 1e-6).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: module(x, before=torch.ones(2, 4, dtype=torch.float64)), x)
