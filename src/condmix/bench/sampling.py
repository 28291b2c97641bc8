"""The contenders of guided sampling: DPM-Solver++(2M), 12 steps, s = 3, on a network that has learnt nothing.

What pictures come out does not change how long they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from condmix.bench import ours
from condmix.bench.pictures import STEPS as SCHEDULE_STEPS
from condmix.bench.recipe import parameter_count
from condmix.bench.report_network import ReportNetwork
from condmix.bench.setting import Setting, chosen
from condmix.diffusion.guidance import Model, Predict, denoiser, guided
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SampleNoise, path, times
from condmix.samplers.ddpm import ddpm
from condmix.samplers.dpmpp_2m import dpmpp_2m

STEPS = 12
SCALE = 3.0
BASELINE = "one_pass"
REPORT_STEPS = 10
CONTENDERS = {
    BASELINE: "condmix: with and without the condition in one pass over 2B pictures",
    "two_passes": "with and without the condition in a pass over B pictures each",
    "report": f"the report's network, {SCHEDULE_STEPS:,} steps of DDPM in two passes each; {REPORT_STEPS} are timed",
    "unguided": "the conditional model alone: what guidance costs is the rest",
}


def two_passes(model: Model, views: Tensor, mask: Tensor, scale: float) -> Predict:
    """What `guidance.guided` predicts, by two calls of the model."""
    nothing = torch.zeros_like(mask)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        t = t.to(x_t.device, non_blocking=True)
        return torch.lerp(model(x_t, t, views, nothing), model(x_t, t, views, mask), scale)

    return predict


class Sampler:
    """The steps of `sample.sample`, with a choice of how guidance is computed."""

    dtype = "fp32"  # sampling knows no autocast
    repeats = 1

    def __init__(self, setting: Setting, name: str):
        self.name, self.device = name, setting.device
        self.model = ours.network(setting.network).eval()
        self.model.to(setting.device).to(memory_format=torch.channels_last)
        self.schedule = Schedule("cosine", SCHEDULE_STEPS)

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @torch.no_grad()
    def step(self, seeds: Sequence[int]) -> Tensor:
        """Pictures (B, 32, 32, 3) uint8, one per seed."""
        size = self.model.architecture.image_size
        vectors, mask = ours.condition(self.model, len(seeds), self.device)
        noise = SampleNoise(seeds, (3, size, size), device=self.device)
        combine = two_passes if self.name == "two_passes" else guided
        predict = combine(self.model, self.model.embed(vectors), mask, 1.0 if self.name == "unguided" else SCALE)
        x_T = noise().contiguous(memory_format=torch.channels_last)
        steps = path(self.schedule, times(self.schedule, STEPS, "uniform"))
        x_0 = dpmpp_2m(denoiser(predict, self.schedule, "v"), x_T, steps, noise)
        return ((x_0 + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


class ReportSampler:
    """The report's sampling: ancestral, with a pass for the pictures with their condition and one for those without.

    Its network is unconditional here; a condition would cost next to nothing. All steps do the same work.
    """

    dtype = "fp32"
    repeats = SCHEDULE_STEPS // REPORT_STEPS

    def __init__(self, setting: Setting):
        self.model, self.device = ReportNetwork().to(setting.device).eval(), setting.device
        self.size, self.schedule = setting.network.image_size, Schedule("cosine", SCHEDULE_STEPS)

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @torch.no_grad()
    def step(self, seeds: Sequence[int]) -> Tensor:
        """The share 1 / `repeats` of all steps; (B, 3, H, W)."""

        def predict(x_t: Tensor, t: Tensor) -> Tensor:
            return torch.lerp(self.model(x_t, t), self.model(x_t, t), SCALE)

        noise = SampleNoise(seeds, (3, self.size, self.size), device=self.device)
        steps = path(self.schedule, times(self.schedule, REPORT_STEPS, "uniform"))
        return ddpm(denoiser(predict, self.schedule, "v"), noise(), steps, noise)


class SamplingBenchmark:
    """The benchmark of guided sampling."""

    baseline = BASELINE

    def __init__(self, setting: Setting):
        self.setting, self.about = setting, CONTENDERS

    def choose(self, names: Sequence[str]) -> list[str]:
        """The names asked for, or all of them; CondmixError for one that does not exist."""
        return chosen(names, list(CONTENDERS))

    def check(self, names: Sequence[str]) -> None:
        """All but the report's are one network."""

    def conditions(self) -> dict[str, Any]:
        """What the record says besides the setting."""
        return {"sampler": "dpmpp_2m", "steps": STEPS, "guidance": SCALE}

    def build(self, name: str) -> Sampler | ReportSampler:
        """The contender with the weights that the setting's seed draws."""
        torch.manual_seed(self.setting.seed)
        return ReportSampler(self.setting) if name == "report" else Sampler(self.setting, name)

    def draw(self, number: int, count: int | None = None) -> Sequence[int]:
        """Seeds of round `number`, `count` instead of the setting's batch size if that is given."""
        count = count or self.setting.batch_size
        return range(number * count, (number + 1) * count)
