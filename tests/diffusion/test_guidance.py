"""Guidance is exact where it must be, and sources drop as often as they should."""

import pytest
import torch

from condmix import CondmixError
from condmix.diffusion.guidance import composed, denoiser, equal_weights, guided, within
from condmix.diffusion.schedule import Schedule

B, P, D = 4, 3, 5


class Model:
    """A nonlinear model whose prediction depends on every input; counts its passes."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, views, mask):
        self.batches.append(len(x))
        told = (views * mask[..., None]).sum((1, 2)) + mask.sum(1)
        return torch.sin(3 * x + told.view(-1, 1, 1, 1)) + t.view(-1, 1, 1, 1) / 1000


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, 3, 4, 4, generator=generator)
    views = torch.randn(B, P, D, generator=generator)
    mask = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]]).bool()
    return x, torch.tensor([0, 10, 500, 999]), views, mask


def predictions(model, inputs, scale):
    x, t, views, mask = inputs
    return guided(model, views, mask, scale)(x, t)


@pytest.mark.parametrize("scale", [0, 0.0, 1, 1.0])
def test_scales_0_and_1_are_the_models_own_predictions_in_one_pass(inputs, scale):
    x, t, views, mask = inputs
    model = Model()
    output = predictions(model, inputs, scale)
    assert model.batches == [B]
    assert torch.equal(output, model(x, t, views, mask if scale == 1 else torch.zeros_like(mask)))


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.5, 3.0, 7.5])
def test_guidance_is_a_straight_line_through_both_predictions_in_one_pass(inputs, scale):
    model = Model()
    output = predictions(model, inputs, scale)
    assert model.batches == [2 * B]
    uncond, cond = predictions(model, inputs, 0), predictions(model, inputs, 1)
    torch.testing.assert_close(output, uncond + scale * (cond - uncond), atol=1e-5, rtol=1e-5)


def test_guidance_in_ho_and_salimans_words(inputs):
    """s = 3 is their w = 2."""
    uncond, cond, output = (predictions(Model(), inputs, scale) for scale in (0, 1, 3))
    torch.testing.assert_close(output, (1 + 2) * cond - 2 * uncond, atol=1e-5, rtol=1e-5)


def test_each_sample_may_have_its_own_scale(inputs):
    scales = [0.0, 1.0, 3.0, -1.0]
    output = predictions(Model(), inputs, torch.tensor(scales))
    for i, scale in enumerate(scales):
        torch.testing.assert_close(output[i], predictions(Model(), inputs, scale)[i], atol=1e-5, rtol=1e-5)
    # the ends are exact here too, as the model predicts each sample by itself
    assert torch.equal(output[0], predictions(Model(), inputs, 0)[0])
    assert torch.equal(output[1], predictions(Model(), inputs, 1)[1])


def test_without_a_condition_guidance_changes_nothing(inputs):
    output, uncond = predictions(Model(), inputs, 5.0), predictions(Model(), inputs, 0)
    assert torch.equal(output[3], uncond[3])  # the sample whose mask is empty


def test_a_half_precision_model_is_guided_in_the_pictures_precision(inputs):
    model = Model()

    def half(x, t, views, mask):
        return model(x, t, views, mask).bfloat16()

    uncond, cond = predictions(half, inputs, 0).float(), predictions(half, inputs, 1).float()
    output = predictions(half, inputs, 3.0)
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, uncond + 3 * (cond - uncond), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", [torch.tensor([2.0, -0.5, 1.5]), torch.linspace(-1, 4, B * P).view(B, P)])
@pytest.mark.parametrize("away", [False, True])
def test_composed_guidance_is_that_of_separate_calls_in_one_pass(inputs, weights, away):
    x, t, views, mask = (part[:3] for part in inputs)  # the samples that have a source
    weights = weights if weights.dim() == 1 else weights[:3]
    negative = (views.flip(2), mask.flip(1)) if away else None
    model = Model()
    output = composed(model, views, mask, weights, negative)(x, t)
    assert model.batches == [3 * (P + 1)]
    for b in range(3):
        here = slice(b, b + 1)
        nobody = (views[here], torch.zeros(1, P, dtype=torch.bool))
        start = model(x[here], t[here], *((part[here] for part in negative) if away else nobody))
        expected = start.clone()
        for source in range(P):
            if mask[b, source]:
                only = torch.arange(P)[None] == source
                weight = weights.expand(3, P)[b, source]
                expected += weight * (model(x[here], t[here], views[here], only) - start)
        torch.testing.assert_close(output[here], expected, atol=1e-5, rtol=1e-5)


def test_composed_guidance_predicts_the_noise_of_a_product_of_experts():
    """Pictures are N(0, 1), which source i multiplies by exp(m_i x): with weights the product is N(sum w_i m_i, 1)."""
    schedule = Schedule("cosine")

    def noise_of(mean, x, t):
        signal = schedule.alpha_bar[t].sqrt().float()[:, None]
        return (1 - signal**2).sqrt() * (x - signal * mean)

    def model(x, t, views, mask):
        return noise_of((views * mask[..., None]).sum((1, 2))[:, None], x, t)

    x, t = torch.randn(3, 7, generator=torch.Generator().manual_seed(1)), torch.tensor([100, 500, 900])
    means, both = torch.tensor([[1.0, -2.0], [0.5, 3.0], [4.0, 1.0]]), torch.ones(3, 2, dtype=torch.bool)
    weights = torch.tensor([2.0, 0.25])
    output = composed(model, means[..., None], both, weights)(x, t)
    torch.testing.assert_close(output, noise_of((weights * means).sum(1, keepdim=True), x, t), atol=1e-5, rtol=1e-5)
    # sources that are independent: to ask for both at once is to ask for each with all of s
    joint = guided(model, means[..., None], both, 3.0)(x, t)
    each = composed(model, means[..., None], both, torch.tensor([3.0, 3.0]))(x, t)
    torch.testing.assert_close(joint, each, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [0, 1, 3.0, -0.5])
def test_composed_guidance_of_one_source_is_joint_guidance(inputs, scale):
    x, t, views, mask = inputs
    # in a batch with other samples, the third has one source
    output = composed(Model(), views, mask, equal_weights(mask, scale))(x, t)
    torch.testing.assert_close(output[2], predictions(Model(), inputs, scale)[2], atol=1e-6, rtol=1e-6)
    # in a batch where nobody has another, to the bit and without passes for those that nobody has
    model, only = Model(), mask & torch.tensor([False, False, True])
    output = composed(model, views, only, equal_weights(only, scale))(x, t)
    assert model.batches == [2 * B]
    assert torch.equal(output, guided(Model(), views, only, scale)(x, t))


def test_sources_share_the_scale_among_those_that_are_there(inputs):
    *_, mask = inputs
    third = [[1.0, 1.0, 1.0], [1.5, 0.0, 1.5], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(equal_weights(mask, 3.0), torch.tensor(third))


def test_composed_guidance_without_any_source_is_unconditional(inputs):
    x, t, views, mask = inputs
    model, nothing = Model(), torch.zeros_like(mask)
    uncond = predictions(Model(), inputs, 0)
    assert torch.equal(composed(model, views, nothing, torch.ones(P))(x, t), uncond)
    assert model.batches == [B]
    assert torch.equal(composed(model, views, mask, torch.ones(P))(x, t)[3], uncond[3])
    with pytest.raises(CondmixError, match="some pictures have no source"):
        composed(model, views, mask, torch.ones(P), (views, mask))


def test_a_negative_condition_takes_the_unconditional_ones_place(inputs):
    x, t, views, mask = inputs
    negative = views.flip(0), mask.flip(0)
    model = Model()
    away, cond = model(x, t, *negative), model(x, t, views, mask)
    for scale, expected in ((0, away), (1, cond), (3.0, away + 3 * (cond - away))):
        output = guided(model, views, mask, scale, negative)(x, t)
        torch.testing.assert_close(output, expected, atol=1e-5 if scale == 3 else 0, rtol=0)
    # a negative condition that says nothing is the unconditional one
    silent = guided(model, views, mask, 3.0, (views.flip(0), torch.zeros_like(mask)))(x, t)
    assert torch.equal(silent, predictions(Model(), inputs, 3.0))


def test_guidance_outside_its_interval_is_the_conditional_model_in_one_pass(inputs):
    x, _, views, mask = inputs
    model = Model()
    predict = within((0.2, 0.8), 1000, guided(model, views, mask, 3.0), guided(model, views, mask, 1))
    for time, scale in ((0, 1), (199, 1), (200, 3.0), (799, 3.0), (800, 1), (999, 1)):
        model.batches.clear()
        t = torch.full((B,), time)
        output = predict(x, t)
        assert model.batches == [B if scale == 1 else 2 * B]
        assert torch.equal(output, guided(Model(), views, mask, scale)(x, t))
    with pytest.raises(ValueError):
        predict(x, torch.tensor([0, 0, 0, 500]))


def test_an_interval_of_noise_levels_is_one_of_times():
    """The mapping that `within` states for the cosine schedule, at an interval of noise levels."""
    schedule = Schedule("cosine")
    sigma = schedule.snr(torch.arange(schedule.steps)).rsqrt()
    assert (sigma.diff() > 0).all()
    levels = torch.tensor([0.2, 0.5, 1.0, 3.0], dtype=torch.float64)
    shares = torch.searchsorted(sigma, levels) / schedule.steps
    torch.testing.assert_close(shares, (levels.atan() * 2 / torch.pi).float(), atol=0.01, rtol=0)


@pytest.mark.parametrize("interval", [(-0.1, 0.5), (0.5, 0.5), (0.8, 0.2), (0.2, 1.1), (float("nan"), 1.0)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(CondmixError, match="0 <= low < high <= 1"):
        within(interval, 1000, None, None)


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_dynamic_thresholding_divides_by_a_quantile(share):
    schedule, t = Schedule("cosine"), torch.tensor([10, 500, 900])
    deviations = torch.tensor([0.1, 1.0, 5.0])[:, None, None, None]
    x_0 = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(1)) * deviations
    found = denoiser(lambda x, t: x_0, schedule, "x0", share)(x_0, t)
    quantile = torch.quantile(x_0.abs().flatten(1), share, dim=1, interpolation="higher").clamp(min=1)
    for picture, given, s in zip(found, x_0, quantile, strict=True):
        torch.testing.assert_close(picture, (given / s).clamp(-1, 1))
    assert torch.equal(found[0], x_0[0])  # what lies within the range stays
    assert found.abs().max() <= 1


@pytest.mark.parametrize("prediction_type", ["epsilon", "v", "x0"])
def test_denoiser_finds_the_picture_and_clips_it(prediction_type):
    schedule, t = Schedule("cosine"), torch.tensor([10, 500])
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator)
    x_t = schedule.add_noise(x_0, noise, t)
    output = {"epsilon": noise, "v": schedule.velocity(x_0, noise, t), "x0": x_0}[prediction_type]
    assert x_0.abs().max() > 1
    clipped = denoiser(lambda x, t: output, schedule, prediction_type)(x_t, t)
    torch.testing.assert_close(clipped, x_0.clamp(-1, 1), atol=1e-4, rtol=1e-4)
