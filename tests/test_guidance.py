"""Guidance is exact where it must be, and sources drop as often as they should."""

import pytest
import torch

from condmix.diffusion import Schedule
from condmix.guidance import denoiser, drop_sources, guided

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


@pytest.mark.parametrize("prediction_type", ["epsilon", "v", "x0"])
def test_denoiser_finds_the_picture_and_clips_it(prediction_type):
    schedule, t = Schedule("cosine"), torch.tensor([10, 500])
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator)
    x_t = schedule.add_noise(x_0, noise, t)
    output = {"epsilon": noise, "v": schedule.velocity(x_0, noise, t), "x0": x_0}[prediction_type]
    free = denoiser(lambda x, t: output, schedule, prediction_type, clip=False)
    clipped = denoiser(lambda x, t: output, schedule, prediction_type)
    assert x_0.abs().max() > 1
    torch.testing.assert_close(free(x_t, t), x_0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clipped(x_t, t), x_0.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sources_drop_as_often_as_they_should():
    n, p_uncond, p_source = 100_000, 0.15, 0.3
    kept = drop_sources(torch.ones(n, 2, dtype=torch.bool), p_uncond, p_source, generator())
    both, first, second = kept.all(1), kept[:, 0] & ~kept[:, 1], kept[:, 1] & ~kept[:, 0]
    shares = torch.stack([both, first, second, ~kept.any(1)]).double().mean(1)
    stay = 1 - p_uncond
    expected = [stay * 0.7**2, stay * 0.7 * 0.3, stay * 0.3 * 0.7, p_uncond + stay * 0.3**2]
    torch.testing.assert_close(shares, torch.tensor(expected).double(), atol=0.006, rtol=0)


def test_dropping_is_certain_at_0_and_1():
    mask = torch.rand(1000, P, generator=generator()) < 0.7
    assert torch.equal(drop_sources(mask, 0, 0, generator()), mask)
    assert not drop_sources(mask, 1, 0, generator()).any()
    assert not drop_sources(mask, 0, 1, generator()).any()


def test_what_is_absent_stays_absent_and_the_given_mask_is_kept():
    mask = torch.rand(1000, P, generator=generator()) < 0.5
    before = mask.clone()
    kept = drop_sources(mask, 0.1, 0.3, generator())
    assert not (kept & ~mask).any()
    assert torch.equal(mask, before)


def test_dropping_follows_the_generator_and_draws_by_shape_alone():
    mask = torch.ones(64, P, dtype=torch.bool)
    one, other = generator(1), generator(1)
    assert torch.equal(drop_sources(mask, 0.2, 0.2, one), drop_sources(mask, 0.2, 0.2, other))
    drop_sources(mask, 0.0, 0.0, one)
    drop_sources(~mask, 0.9, 0.9, other)
    assert torch.equal(one.get_state(), other.get_state())
