"""Schedules against diffusers', conversions against each other, loss weights against their definition."""

import pytest
import torch

from condmix import CondmixError
from condmix.diffusion.schedule import PREDICTION_TYPES, Schedule, min_snr_weight

SCHEDULES = ("linear", "cosine")


@pytest.fixture(params=SCHEDULES)
def schedule(request) -> Schedule:
    return Schedule(request.param)


@pytest.fixture
def pictures():
    """x_0, noise, t, over the whole range of times, in float64."""
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 6, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x_0, noise, torch.tensor([0, 1, 100, 500, 900, 999])


@pytest.mark.parametrize(("name", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_schedule_equals_diffusers(name, theirs):
    diffusers = pytest.importorskip("diffusers")
    alpha_bar = Schedule(name).alpha_bar
    expected = diffusers.DDPMScheduler(beta_schedule=theirs).alphas_cumprod.double()
    torch.testing.assert_close(alpha_bar, expected, atol=1e-5, rtol=1e-5)
    assert alpha_bar.dtype == torch.float64


def test_schedule_only_ever_adds_noise(schedule):
    assert (schedule.alpha_bar.diff() < 0).all()
    assert schedule.alpha_bar[0] > 0.999 and 0 < schedule.alpha_bar[-1] < 1e-4


def test_noisy_pictures_and_velocities_agree_with_diffusers(schedule, pictures):
    diffusers = pytest.importorskip("diffusers")
    x_0, noise, t = pictures
    theirs = diffusers.DDPMScheduler()
    theirs.alphas_cumprod = schedule.alpha_bar
    torch.testing.assert_close(schedule.add_noise(x_0, noise, t), theirs.add_noise(x_0, noise, t))
    torch.testing.assert_close(schedule.velocity(x_0, noise, t), theirs.get_velocity(x_0, noise, t))


def test_adding_noise_keeps_unit_variance(schedule):
    generator = torch.Generator().manual_seed(0)
    x_0, noise = torch.randn(2, 3, 100_000, generator=generator)
    variance = schedule.add_noise(x_0, noise, torch.tensor([0, 400, 999])).var(dim=1)
    torch.testing.assert_close(variance, torch.ones(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_every_prediction_gives_back_the_picture(schedule, pictures, prediction_type):
    x_0, noise, t = pictures
    x_t = schedule.add_noise(x_0, noise, t)
    output = {"x0": x_0, "epsilon": noise, "v": schedule.velocity(x_0, noise, t)}[prediction_type]
    torch.testing.assert_close(schedule.x0_from(prediction_type, output, x_t, t), x_0)


def test_dtype_of_the_picture_is_kept(schedule, pictures):
    x_0, noise, t = (value.float() if value.is_floating_point() else value for value in pictures)
    x_t = schedule.add_noise(x_0, noise, t)
    assert x_t.dtype == schedule.x0_from("v", noise, x_t, t).dtype == torch.float32


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_loss_is_the_mean_squared_error_per_sample(schedule, pictures, prediction_type):
    x_0, noise, t = pictures
    target = {"x0": x_0, "epsilon": noise, "v": schedule.velocity(x_0, noise, t)}[prediction_type]
    offset = torch.arange(6.0)
    losses = schedule.loss(prediction_type, target + offset.view(6, 1, 1, 1), x_0, noise, t)
    torch.testing.assert_close(losses, offset.double().square())


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_min_snr_makes_all_prediction_types_weigh_the_same_in_x0(schedule, pictures, prediction_type):
    """One and the same error in x_0 costs min(SNR, gamma) times its square, however it is predicted."""
    x_0, noise, t = pictures
    wrong_x_0 = x_0 + 0.1
    alpha_bar = schedule.alpha_bar[t].view(-1, 1, 1, 1)
    wrong_noise = noise - 0.1 * (alpha_bar / (1 - alpha_bar)).sqrt()  # the same x_t
    wrong_v = schedule.velocity(wrong_x_0, wrong_noise, t)
    output = {"x0": wrong_x_0, "epsilon": wrong_noise, "v": wrong_v}[prediction_type]
    losses = schedule.loss(prediction_type, output, x_0, noise, t, min_snr_gamma=5.0)
    torch.testing.assert_close(losses, 0.01 * schedule.snr(t).clamp(max=5.0))


def test_min_snr_leaves_epsilon_alone_where_noise_prevails():
    snr = torch.tensor([0.01, 5.0, 500.0])
    torch.testing.assert_close(min_snr_weight("epsilon", snr, 5.0), torch.tensor([1.0, 1.0, 0.01]))


def test_snr_is_signal_power_over_noise_power(schedule):
    t = torch.tensor([0, 500, 999])
    ones, zeros = torch.ones(3, 1, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    signal, sigma = schedule.add_noise(ones, zeros, t), schedule.add_noise(zeros, ones, t)
    torch.testing.assert_close(schedule.snr(t), (signal / sigma).square()[:, 0])


def test_unknown_names_are_refused_in_words(pictures):
    x_0, noise, t = pictures
    with pytest.raises(CondmixError, match='no noise schedule "cosinus"; found: linear, cosine'):
        Schedule("cosinus")
    with pytest.raises(CondmixError, match='no prediction type "eps"; found: epsilon, v, x0'):
        Schedule("linear").loss("eps", noise, x_0, noise, t)
    with pytest.raises(CondmixError, match='no prediction type "sample"'):
        Schedule("linear").x0_from("sample", noise, x_0, t)
