"""Samplers against diffusers' schedulers, step by step, and against distributions whose denoiser is known."""

from math import log2
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.diffusion.guidance import denoiser
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SampleNoise, path, timesteps
from condmix.samplers.ddim import ddim
from condmix.samplers.ddpm import ddpm
from condmix.samplers.dpmpp_2m import dpmpp_2m

SHAPE = (3, 4, 4)
SAMPLERS = (ddpm, ddim, dpmpp_2m)
THEIRS = {  # diffusers' class and its options
    ddpm: ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
    ddim: ("DDIMScheduler", {"clip_sample": False}),
    dpmpp_2m: ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_type": "midpoint"}),
}
DIFFUSERS_PREDICTION = {"epsilon": "epsilon", "v": "v_prediction"}


class Network:
    """A fixed nonlinear function of x_t and t in the place of a trained network; float64."""

    def __init__(self, schedule: Schedule, prediction_type: str):
        generator = torch.Generator().manual_seed(7)
        self.mix = torch.randn(48, 48, generator=generator, dtype=torch.float64) / 7
        self.schedule, self.prediction_type = schedule, prediction_type

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        # A bounded x_0, as of a trained network: at the end of the cosine schedule an error in epsilon is
        # 20,000 times as large in x_0.
        phase = t.double()[:, None] / 300
        x_0 = torch.tanh(x_t.flatten(1) @ self.mix + phase.sin()).view_as(x_t)
        a_bar = self.schedule.alpha_bar[t].view(-1, 1, 1, 1)
        noise = (x_t - a_bar.sqrt() * x_0) / (1 - a_bar).sqrt()
        return noise if self.prediction_type == "epsilon" else self.schedule.velocity(x_0, noise, t)


class Noise64:
    """Float64 noise from one generator, as diffusers draws it when it is given the same generator."""

    def __init__(self, batch: int):
        self.shape, self.generator = (batch, *SHAPE), torch.Generator().manual_seed(3)

    def __call__(self) -> Tensor:
        return torch.randn(self.shape, generator=self.generator, dtype=torch.float64)


def diffusers_samples(sampler, schedule: Schedule, network: Network, x_T: Tensor, steps: int):
    """What diffusers' scheduler makes of the same network; its tables are ours, as its own are float32.

    (That the tables agree is tested in test_schedule.py.)
    """
    diffusers = pytest.importorskip("diffusers")
    name, options = THEIRS[sampler]
    at_step = {"generator": Noise64(len(x_T)).generator} if sampler is ddpm else {}
    prediction = DIFFUSERS_PREDICTION[network.prediction_type]
    scheduler = getattr(diffusers, name)(prediction_type=prediction, timestep_spacing="trailing", **options)
    scheduler.alphas_cumprod = schedule.alpha_bar
    scheduler.set_timesteps(steps)
    if sampler is dpmpp_2m:
        ratio = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()[scheduler.timesteps]
        scheduler.sigmas = torch.cat([ratio, ratio.new_zeros(1)])
    x = x_T
    for t in scheduler.timesteps:
        step = scheduler.step(network(x, t.expand(len(x))), t, x, **at_step)
        x = step.prev_sample
    # "trailing" ends above time 0, where diffusers' DDPM adds noise of variance beta to its last, clean picture
    return step.pred_original_sample if sampler is ddpm else x


@pytest.fixture(params=["linear", "cosine"])
def schedule(request) -> Schedule:
    return Schedule(request.param)


@pytest.fixture(params=["epsilon", "v"])
def network(request, schedule) -> Network:
    return Network(schedule, request.param)


@pytest.fixture
def x_T() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def denoise_by(network: Network):
    return denoiser(network, network.schedule, network.prediction_type)


@pytest.mark.parametrize(
    ("sampler", "steps"),
    # diffusers' DDPM and DDIM step by 1000 // steps, so they end elsewhere unless that is exact
    [(ddpm, 25), (ddpm, 1000), (ddim, 1), (ddim, 20), *((dpmpp_2m, steps) for steps in (1, 2, 10, 25, 48))],
)
def test_samplers_equal_diffusers(schedule, network, x_T, sampler, steps):
    x_0 = sampler(denoise_by(network), x_T, schedule, steps, Noise64(len(x_T)))
    expected = diffusers_samples(sampler, schedule, network, x_T, steps)
    torch.testing.assert_close(x_0, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 7, 50, 999, 1000])
def test_timesteps_equal_diffusers(steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert timesteps(1000, steps) == scheduler.timesteps.tolist()


def gaussian_denoiser(schedule: Schedule, mean: float, deviation: float):
    """E[x_0 | x_t] for pictures x_0 ~ N(mean, deviation^2): what a perfect network would say."""

    def denoise(x_t, t):
        a_bar = schedule.alpha_bar[t].view(-1, *[1] * (x_t.dim() - 1))
        gain = a_bar.sqrt() * deviation**2 / (a_bar * deviation**2 + 1 - a_bar)
        return mean + gain * (x_t - a_bar.sqrt() * mean)

    return denoise


def ode_error(sampler, schedule, steps: int, mean=0.5, deviation=0.6) -> float:
    """Distance from the exact solution: the number of deviations from the mean stays what it is in x_T."""
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    a_bar = schedule.alpha_bar[-1]
    deviations = (x_T - a_bar.sqrt() * mean) / (a_bar * deviation**2 + 1 - a_bar).sqrt()
    x_0 = sampler(gaussian_denoiser(schedule, mean, deviation), x_T, schedule, steps, noise=None)
    return (x_0 - (mean + deviation * deviations)).abs().max().item()


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2)])
@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_deterministic_samplers_converge_at_their_order(sampler, order, deviation):
    # steps of equal length in log(signal / sigma), whose order it is, and a nearly clean last one
    even = SimpleNamespace(alpha_bar=torch.linspace(16, -6, 6400, dtype=torch.float64).sigmoid())
    errors = [ode_error(sampler, even, steps, deviation=deviation) for steps in (40, 80, 160)]
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)
    assert log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.05)


def test_dpmpp_2m_needs_fewer_steps_than_ddim(schedule):
    assert ode_error(dpmpp_2m, schedule, 20) < ode_error(ddim, schedule, 40)
    assert max(ode_error(dpmpp_2m, schedule, 1000), ode_error(ddim, schedule, 1000)) < 0.005


def ddpm_spread(schedule: Schedule, steps: int, deviation: float) -> tuple[Tensor, list[Tensor]]:
    """Exact standard deviation of DDPM's pictures, and of its x_t at every step, for N(0, deviation^2).

    A Gaussian's denoiser is linear, so a picture is a weighted sum of independent normal draws. Sample i of
    the batch gets 1 for draw i and 0 for all others: the batch then holds the weights, and their norm is
    the deviation.
    """
    basis = iter(torch.eye(steps + 1, dtype=torch.float64)[:, :, None])
    denoise, seen = gaussian_denoiser(schedule, 0.0, deviation), []

    def recorded(x_t, t):
        seen.append(x_t.norm())
        return denoise(x_t, t)

    x_0 = ddpm(recorded, next(basis), schedule, steps, lambda: next(basis))
    return x_0.norm(), seen


def test_ddpm_is_exact_for_standard_normal_pictures(schedule):
    deviation, seen = ddpm_spread(schedule, 100, 1.0)
    torch.testing.assert_close(torch.stack(seen), torch.ones(100, dtype=torch.float64))
    (_, a_bar, _) = path(schedule, 100)[-1]
    assert deviation.item() == pytest.approx(a_bar**0.5)  # the last step adds no noise


def test_ddpm_reaches_the_right_deviation_with_enough_steps(schedule):
    errors = [abs(ddpm_spread(schedule, n, 0.5)[0].item() - 0.5) for n in (20, 100, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.005


def test_dpmpp_2m_starts_with_a_step_of_ddim(schedule, network, x_T):
    one, other = (sampler(denoise_by(network), x_T, schedule, 2, None) for sampler in (dpmpp_2m, ddim))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_depends_on_its_seed_alone(sampler):
    """A batch of 8 is two of 4, and a batch in another order is the same pictures in that order."""
    schedule = Schedule("cosine")

    def sample(seeds):
        noise = SampleNoise(seeds, SHAPE)
        # elementwise, so that the batch size cannot change the order of a sum
        return sampler(lambda x, t: torch.tanh(x.sin() + t.view(-1, 1, 1, 1) / 999), noise(), schedule, 10, noise)

    seeds = [5, 0, 17, 2**31 + 5, 3, 11, 2, 8]
    pictures = sample(seeds)
    assert torch.equal(pictures, torch.cat([sample(seeds[:4]), sample(seeds[4:])]))
    assert torch.equal(pictures.flip(0), sample(seeds[::-1]))
    assert len(pictures.flatten(1).unique(dim=0)) == 8


def test_sample_noise_is_normal_and_fresh_at_every_call():
    noise = SampleNoise([0, 1], (10_000,))
    draws = torch.cat([noise(), noise()])
    torch.testing.assert_close(draws @ draws.T / 10_000, torch.eye(4), atol=0.05, rtol=0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_call_the_denoiser_once_per_step_and_keep_the_dtype(sampler, schedule):
    noise, calls = SampleNoise([0, 1], SHAPE), []

    def denoise(x_t, t):
        calls.append((x_t.dtype, t.tolist()))
        return x_t.clamp(-1, 1)

    x_0 = sampler(denoise, noise(), schedule, 7, noise)
    assert calls == [(torch.float32, [t, t]) for t in timesteps(1000, 7)]
    assert x_0.dtype == torch.float32 and x_0.abs().max() <= 1


def test_wrong_options_are_refused_in_words(x_T):
    schedule, denoise = Schedule("linear", steps=100), lambda x, t: x
    # torch's generator would take it for seed 0
    with pytest.raises(CondmixError, match="seed 4294967296 for a picture; it takes 0 to 4294967295"):
        SampleNoise([1, 2**32], SHAPE)
    with pytest.raises(CondmixError, match="101 sampling steps; this schedule allows 1 to 100"):
        ddim(denoise, x_T, schedule, 101, None)
    with pytest.raises(CondmixError, match="0 sampling steps"):
        ddpm(denoise, x_T, schedule, 0, None)
