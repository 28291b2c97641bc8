"""Samplers against diffusers' schedulers, step by step, and against distributions whose denoiser is known."""

from math import log2
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.diffusion.guidance import denoiser
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SPACINGS, SampleNoise, path, times
from condmix.samplers.ddim import ddim
from condmix.samplers.ddpm import ddpm
from condmix.samplers.dpmpp_2m import dpmpp_2m
from condmix.samplers.dpmpp_2m_sde import dpmpp_2m_sde
from condmix.samplers.euler import euler
from condmix.samplers.heun import heun
from condmix.settings.plugins import plugin, plugins

SHAPE = (3, 4, 4)
SAMPLERS = [plugin("samplers", name) for name in plugins("samplers")]
MULTISTEP = {"solver_type": "midpoint", "final_sigmas_type": "zero"}
THEIRS = {  # diffusers' class and its options
    "ddpm": ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", **MULTISTEP}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **MULTISTEP}),
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


def diffusers_samples(name: str, network: Network, x_T: Tensor, visited: list[int]) -> Tensor:
    """What diffusers' scheduler makes of the same network at these times; its tables are ours, as its own are float32.

    (That the tables agree is tested in test_schedule.py.)
    """
    diffusers = pytest.importorskip("diffusers")
    schedule, (theirs, options) = network.schedule, THEIRS[name]
    noise = Noise64(len(x_T))
    prediction = DIFFUSERS_PREDICTION[network.prediction_type]
    scheduler = getattr(diffusers, theirs)(prediction_type=prediction, timestep_spacing="trailing", **options)
    scheduler.alphas_cumprod = schedule.alpha_bar
    scheduler.set_timesteps(len(visited))
    ratio = ((1 - schedule.alpha_bar) / schedule.alpha_bar).sqrt()[visited]
    twice = 2 if name == "heun" else 1
    if name not in ("ddpm", "ddim"):  # which always step by 1000 // steps
        visited = [visited[0], *[t for t in visited[1:] for _ in range(twice)]]
        # EulerDiscreteScheduler takes a whole number for an index
        scheduler.timesteps = torch.tensor(visited, dtype=torch.float if name == "euler" else torch.long)
        scheduler.sigmas = torch.cat([ratio[:1], ratio[1:].repeat_interleave(twice), ratio.new_zeros(1)])
    x = x_T
    if name in ("euler", "heun"):  # their x is x_t / sqrt(a_bar)
        x = x_T * (1 + ratio[0] ** 2).sqrt()
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        at_step = {"generator": noise.generator} if name == "ddpm" else {}
        if name == "dpmpp_2m_sde":
            at_step = {"variance_noise": noise()}
        step = scheduler.step(network(scaled, t.long().expand(len(x))), t, x, **at_step)
        x = step.prev_sample
    # "trailing" ends above time 0, where diffusers' DDPM adds noise of variance beta to its last, clean picture
    return step.pred_original_sample if name == "ddpm" else x


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
    ("name", "steps"),
    # diffusers' DDPM and DDIM step by 1000 // steps, so they end elsewhere unless that is exact
    [("ddpm", 25), ("ddpm", 1000), ("ddim", 1), ("ddim", 20)]
    + [(name, steps) for name in ("dpmpp_2m", "dpmpp_2m_sde") for steps in (1, 2, 10, 25, 48)],
)
def test_samplers_equal_diffusers(network, x_T, name, steps):
    visited = times(network.schedule, steps, "uniform")
    x_0 = plugin("samplers", name)(denoise_by(network), x_T, path(network.schedule, visited), Noise64(len(x_T)))
    torch.testing.assert_close(x_0, diffusers_samples(name, network, x_T, visited), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["heun", "euler", "dpmpp_2m", "dpmpp_2m_sde"])
@pytest.mark.parametrize(("steps", "last"), [(1, None), (2, None), (10, 0.01), (25, None)])
def test_samplers_equal_diffusers_at_karras_times(network, x_T, name, steps, last):
    visited = times(network.schedule, steps, "karras", last)
    x_0 = plugin("samplers", name)(denoise_by(network), x_T, path(network.schedule, visited), Noise64(len(x_T)))
    torch.testing.assert_close(x_0, diffusers_samples(name, network, x_T, visited), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_euler_equals_diffusers_at_uniform_times(network, x_T, steps):
    visited = times(network.schedule, steps, "uniform")
    taken = path(network.schedule, visited)
    x_0 = euler(denoise_by(network), x_T, taken, None)
    # diffusers computes in float32, which takes x_0 from y = x_0 + sigma epsilon, and the schedules begin at 157 and
    # 20,000
    rounding = 2 * torch.finfo(torch.float32).eps * taken[0].sigma
    torch.testing.assert_close(x_0, diffusers_samples("euler", network, x_T, visited), atol=rounding, rtol=0)


@pytest.mark.parametrize(("steps", "last"), [(2, 0.5), (10, None), (25, 0.01)])
def test_heun_equals_diffusers_at_uniform_times(network, x_T, monkeypatch, steps, last):
    # diffusers takes its second-order step from any noise level: so does ours, without this bound
    monkeypatch.setattr("condmix.samplers.heun.NOISIEST", float("inf"))
    visited = times(network.schedule, steps, "uniform", last)
    x_0 = heun(denoise_by(network), x_T, path(network.schedule, visited), None)
    torch.testing.assert_close(x_0, diffusers_samples("heun", network, x_T, visited), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 7, 50, 999, 1000])
def test_uniform_times_equal_diffusers_trailing_ones(schedule, steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert times(schedule, steps, "uniform") == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 5, 10, 20])
def test_karras_times_are_the_nearest_to_diffusers_sigmas(schedule, steps):
    diffusers = pytest.importorskip("diffusers")
    visited = times(schedule, steps, "karras", 0.05)
    sigmas = (1 / schedule.alpha_bar - 1).sqrt().numpy()
    ends = sigmas[[visited[0], 49]]
    scheduler = diffusers.HeunDiscreteScheduler()
    theirs = scheduler._convert_to_karras(torch.tensor(ends), num_inference_steps=steps)
    t = [scheduler._sigma_to_t(sigma, np.log(sigmas)) for sigma in theirs]
    assert visited[0] == 999 or sigmas[visited[0]] == pytest.approx(80, rel=0.1)
    assert np.abs(np.array(visited) - t).max() <= 1


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("steps", "last"), [(1, 0.1), (2, 0.1), (30, 0.1), (1000, None), (1000, 0.5), (999, 0.0)])
def test_times_decrease_to_the_last_one(schedule, spacing, steps, last):
    visited = times(schedule, steps, spacing, last)
    assert len(visited) == steps and visited == sorted(set(visited), reverse=True)
    assert 0 <= visited[-1] and visited[0] < 1000
    if 1 < steps < 100:
        assert visited[-1] == 1000 * last - 1


def gaussian_denoiser(schedule: Schedule, mean: float, deviation: float):
    """E[x_0 | x_t] for pictures x_0 ~ N(mean, deviation^2): what a perfect network would say."""

    def denoise(x_t, t):
        a_bar = schedule.alpha_bar[t].view(-1, *[1] * (x_t.dim() - 1))
        gain = a_bar.sqrt() * deviation**2 / (a_bar * deviation**2 + 1 - a_bar)
        return mean + gain * (x_t - a_bar.sqrt() * mean)

    return denoise


def ode_error(sampler, schedule, steps: int, deviation=0.6, spacing="uniform") -> float:
    """Distance from the exact solution: the number of deviations from the mean stays what it is in x_T."""
    mean, x_T = 0.5, torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    a_bar = schedule.alpha_bar[-1]
    deviations = (x_T - a_bar.sqrt() * mean) / (a_bar * deviation**2 + 1 - a_bar).sqrt()
    taken = path(schedule, times(schedule, steps, spacing))
    x_0 = sampler(gaussian_denoiser(schedule, mean, deviation), x_T, taken, noise=None)
    return (x_0 - (mean + deviation * deviations)).abs().max().item()


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpmpp_2m, 2), (heun, 2)])
@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_deterministic_samplers_converge_at_their_order(sampler, order, deviation):
    # steps of equal length in log(signal / sigma), whose order it is, and a nearly clean last one
    even = SimpleNamespace(alpha_bar=torch.linspace(16, -6, 6400, dtype=torch.float64).sigmoid())
    errors = [ode_error(sampler, even, steps, deviation=deviation) for steps in (40, 80, 160)]
    assert log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.06)
    assert log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.06)


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

    x_0 = ddpm(recorded, next(basis), path(schedule, times(schedule, steps, "uniform")), lambda: next(basis))
    return x_0.norm(), seen


def test_ddpm_is_exact_for_standard_normal_pictures(schedule):
    deviation, seen = ddpm_spread(schedule, 100, 1.0)
    torch.testing.assert_close(torch.stack(seen), torch.ones(100, dtype=torch.float64))
    a_bar = schedule.alpha_bar[9].item()
    assert deviation.item() == pytest.approx(a_bar**0.5)  # the last step adds no noise


def test_ddpm_reaches_the_right_deviation_with_enough_steps(schedule):
    errors = [abs(ddpm_spread(schedule, n, 0.5)[0].item() - 0.5) for n in (20, 100, 1000)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.005


@pytest.mark.parametrize("spacing", SPACINGS)
def test_eulers_pictures_are_those_of_ddim(schedule, network, x_T, spacing):
    taken = path(schedule, times(schedule, 10, spacing))
    one, other = (sampler(denoise_by(network), x_T, taken, None) for sampler in (euler, ddim))
    torch.testing.assert_close(one, other)


def test_dpmpp_2m_starts_with_a_step_of_ddim(schedule, network, x_T):
    taken = path(schedule, times(schedule, 2, "uniform"))
    one, other = (sampler(denoise_by(network), x_T, taken, None) for sampler in (dpmpp_2m, ddim))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_picture_depends_on_its_seed_alone(sampler):
    """A batch of 8 is two of 4, and a batch in another order is the same pictures in that order."""
    schedule = Schedule("cosine")
    taken = path(schedule, times(schedule, 10, "uniform"))

    def sample(seeds):
        noise = SampleNoise(seeds, SHAPE)
        # elementwise, so that the batch size cannot change the order of a sum
        return sampler(lambda x, t: torch.tanh(x.sin() + t.view(-1, 1, 1, 1) / 999), noise(), taken, noise)

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
def test_samplers_call_the_denoiser_at_every_time_and_keep_the_dtype(sampler, schedule):
    noise, calls, visited = SampleNoise([0, 1], SHAPE), [], times(schedule, 7, "karras")

    def denoise(x_t, t):
        calls.append((x_t.dtype, t.tolist()))
        return x_t.clamp(-1, 1)

    x_0 = sampler(denoise, noise(), path(schedule, visited), noise)
    twice = visited[1:] if sampler is heun else []
    assert calls == [(torch.float32, [t, t]) for t in sorted([*visited, *twice], reverse=True)]
    assert x_0.dtype == torch.float32 and x_0.abs().max() <= 1


def test_heun_stays_in_range_where_the_cosine_schedule_falls_from_20000(network, x_T):
    """A slope at sigma = 6 says nothing about a step from 20,000."""
    taken = path(network.schedule, times(network.schedule, 10, "uniform"))
    seen = []

    def denoise(x_t, t):
        seen.append(x_t.abs().max().item())
        return denoise_by(network)(x_t, t)

    heun(denoise, x_T, taken, None)
    assert max(seen) < 6  # x_t is about standard normal at every time


def test_sde_steps_keep_the_deviation_of_standard_normal_pictures(schedule):
    """As DDPM's do: for N(0, 1), x_t has variance 1 at every time."""
    x_T = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    taken = path(schedule, times(schedule, 20, "uniform"))[:-1]  # the last step adds none

    def denoise(x_t, t):
        assert x_t.std().item() == pytest.approx(1, abs=0.03)
        return gaussian_denoiser(schedule, 0.0, 1.0)(x_t, t)

    dpmpp_2m_sde(denoise, x_T, taken, lambda: torch.randn(x_T.shape, generator=generator, dtype=torch.float64))


def test_wrong_options_are_refused_in_words():
    schedule = Schedule("linear", steps=100)
    # torch's generator would take it for seed 0
    with pytest.raises(CondmixError, match="seed 4294967296 for a picture; it takes 0 to 4294967295"):
        SampleNoise([1, 2**32], SHAPE)
    with pytest.raises(CondmixError, match="101 sampling steps; this schedule allows 1 to 100"):
        times(schedule, 101, "uniform")
    with pytest.raises(CondmixError, match="0 sampling steps"):
        times(schedule, 0, "karras")
    with pytest.raises(
        CondmixError, match='no spacing of times "karas"; found: uniform, karras; did you mean "karras"'
    ):
        times(schedule, 5, "karas")
