"""The contenders of the training step, by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from condmix import CondmixError
from condmix.bench import ours, peers, pictures
from condmix.bench.pictures import Batch
from condmix.bench.recipe import Contender, Learner, TrainingRecipe, parameter_count
from condmix.bench.report_network import ReportNetwork
from condmix.bench.setting import NetworkSize, Setting, chosen
from condmix.diffusion.unet import norm_groups
from condmix.runtime import native

BASELINE = "ours"
EXTRA = "pip install 'condmix[bench]'"
# What "ours" has and "ours-<technique>" lacks.
TECHNIQUES = {
    "channels_last": "feature maps and weights in NCHW instead",
    "foreach_optimiser": "AdamW one tensor after the other",
    "foreach_ema": "the moving average one tensor after the other",
    "fused_norm": "PyTorch's operations for norm, conditioning, SiLU and dropout instead of one of ours",
    "fused_upsample": "nearest neighbour and a 3x3 convolution instead of one transposed convolution",
    "bf16": "fp32 instead of bf16 autocast",
    "compile": "without torch.compile",
}
SHARE = 0.03  # by which parameter counts may differ from ours


@dataclass(frozen=True)
class Entry:
    """How a contender is made; `package` (its name on PyPI) must be installed for it."""

    about: str
    network: Callable[[NetworkSize], nn.Module]
    build: Callable[[Setting], Contender]
    package: str | None = None
    sized: bool = True  # whether its network is of the setting's size, so that its parameters must be as many as ours


def recipe_of(setting: Setting) -> TrainingRecipe:
    fused_norm = setting.device == "cpu" and not setting.compile and native.available()
    return TrainingRecipe(bf16=setting.bf16, compile=setting.compile, fused_norm=fused_norm)


def contenders(setting: Setting) -> dict[str, Entry]:
    """Every contender that this setting has: a technique that is off here cannot be switched off."""
    recipe = recipe_of(setting)
    entries = {
        "diffusers": Entry(
            "UNet2DModel as shipped: NCHW, fp32, AdamW, EMAModel",
            peers.diffusers_network,
            lambda setting: peers.Diffusers(setting.network, setting.device),
            "diffusers",
        ),
        "lucidrains": Entry(
            "denoising-diffusion-pytorch's Unet and GaussianDiffusion as shipped: NCHW, fp32, Adam, ema_pytorch",
            peers.lucidrains_network,
            lambda setting: peers.Lucidrains(setting.network, setting.device),
            "denoising-diffusion-pytorch",
        ),
        "diffusers+recipe": Entry(
            "UNet2DModel under our recipe, its groups of at least 8 channels as ours are",
            peers.diffusers_network,
            _diffusers_with_recipe,
            "diffusers",
        ),
        "lucidrains+recipe": Entry(
            "denoising-diffusion-pytorch's Unet under our recipe, with its flash attention",
            peers.lucidrains_network,
            _lucidrains_with_recipe,
            "denoising-diffusion-pytorch",
        ),
        "report": Entry(
            "the report's network and step, of one size: fp32, NCHW, AdamW",
            lambda size: ReportNetwork(),
            lambda setting: peers.Report(setting.device),
            sized=False,
        ),
        BASELINE: Entry(
            f"condmix: {', '.join(technique for technique in TECHNIQUES if getattr(recipe, technique))}",
            ours.network,
            lambda setting: ours.learner(setting.network, recipe_of(setting), setting.device),
        ),
    }
    for technique, about in TECHNIQUES.items():
        if getattr(recipe, technique):
            entries[f"{BASELINE}-{technique}"] = Entry(about, ours.network, _ours_without(technique))
    return entries


class TrainingBenchmark:
    """The benchmark of the training step."""

    baseline = BASELINE

    def __init__(self, setting: Setting):
        self.setting = setting
        self.entries = contenders(setting)
        self.about = {name: entry.about for name, entry in self.entries.items()}

    def choose(self, names: Sequence[str]) -> list[str]:
        """The names asked for, or all of them; CondmixError for one that does not exist or is not installed."""
        names = chosen(names, list(self.entries))
        missing = [name for name in names if not _installed(self.entries[name].package)]
        if missing:
            rest = [name for name in names if name not in missing] or [BASELINE]
            packages = sorted({str(self.entries[name].package) for name in missing})
            raise CondmixError(
                f"contenders {', '.join(missing)} need {' and '.join(packages)}, which this environment lacks: "
                f"{EXTRA}, or run without them: --contenders {','.join(rest)}"
            )
        return names

    def parameters(self, name: str) -> int:
        """How many the contender's network has, without making it."""
        with torch.device("meta"):
            return parameter_count(self.entries[name].network(self.setting.network))

    def check(self, names: Sequence[str]) -> None:
        """CondmixError unless all of the setting's size have as many parameters as ours, within SHARE."""
        ours_has = self.parameters(BASELINE)
        for name in names:
            count = self.parameters(name)
            if self.entries[name].sized and abs(count / ours_has - 1) > SHARE:
                raise CondmixError(
                    f"{name} has {count:,} parameters and ours {ours_has:,}: more than {SHARE:.0%} apart, so their "
                    f"times do not compare; adapt size {self.setting.size} in condmix/bench/setting.py"
                )

    def conditions(self) -> dict[str, Any]:
        """What the record says besides the setting."""
        return {"recipe": asdict(recipe_of(self.setting)), "schedule": "cosine", "prediction": "v"}

    def build(self, name: str) -> Contender:
        """The contender with the weights that the setting's seed draws."""
        torch.manual_seed(self.setting.seed)
        return self.entries[name].build(self.setting)

    def draw(self, number: int, count: int | None = None) -> Batch:
        """Batch `number`, of `count` pictures instead of the setting's if that is given."""
        return pictures.draw(count or self.setting.batch_size, number, self.setting.seed, self.setting.device)


def _ours_without(technique: str) -> Callable[[Setting], Contender]:
    return lambda setting: ours.learner(setting.network, recipe_of(setting).without(technique), setting.device)


def _diffusers_with_recipe(setting: Setting) -> Contender:
    groups = norm_groups(setting.network.channels)
    network = peers.diffusers_network(setting.network, groups)
    return Learner(network, lambda network, x_t, t: network(x_t, t).sample, recipe_of(setting), setting.device)


def _lucidrains_with_recipe(setting: Setting) -> Contender:
    # its flash attention knows no fp32 kernel on a GPU
    flash = setting.bf16 or setting.device == "cpu"
    network = peers.lucidrains_network(setting.network, flash)
    return Learner(network, lambda network, x_t, t: network(x_t, t), recipe_of(setting), setting.device)


def _installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package.replace("-", "_")) is not None
