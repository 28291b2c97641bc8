"""Small models and trainers with everything that the profiles use, for tests on a GPU, real or pretended."""

import json
import shutil
from types import SimpleNamespace

import torch
from safetensors.torch import save_file
from torch import Tensor

from condmix.diffusion.model import Architecture, ConditionalModel
from condmix.settings.load import Params
from condmix.training.trainer import Trainer
from tiny_project import write_packed, write_packed_card

WIDTHS = {"image": 16, "caption_1": 16, "caption_2": 16, "class": 3}
B, SIZE = 4, 8


def on(device: str) -> SimpleNamespace:
    """A group of one process on this device."""
    return SimpleNamespace(device=torch.device(device), num_processes=1, process_index=0, is_main_process=True)


def network(fusion: str, multipliers: tuple[int, ...] = (1,)) -> ConditionalModel:
    """A small one with everything that the profiles use."""
    return ConditionalModel(
        Architecture(
            fusion=fusion, perspectives=WIDTHS, dim=16, match_parameters=100_000,
            image_size=SIZE, channels=8, multipliers=multipliers, blocks=1, attention=(SIZE,),
            dropout=0.1, position_map=True, scale_shift=True,
        )
    )  # fmt: skip


def conditions() -> tuple[dict[str, Tensor], Tensor]:
    """Vectors and a mask on the CPU, of which some are absent and no picture lacks all."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    return {name: torch.randn(B, width) for name, width in WIDTHS.items()}, mask


def make_trainer(project: Params, fusion: str, device: str, **train) -> Trainer:
    """A trainer on a device, with everything that draws random numbers in a batch."""
    folder = project.paths.packed("caption")
    shutil.rmtree(folder, ignore_errors=True)
    write_packed(folder, "caption", fusion, ["caption_any", "caption_any_2", "pseudo"])
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "caption_any": torch.randn(48, 5, 16, generator=generator).half(),
        "caption_any.present": torch.rand(48, 5, generator=generator) < 0.9,
        "pseudo": torch.randn(48, 16, generator=generator).half(), "pseudo.present": torch.ones(48, dtype=torch.bool),
    }  # fmt: skip
    save_file(tensors, folder / "train.safetensors")
    write_packed_card(folder, json.loads((folder / "variant.json").read_text()))
    changed = {
        "train": {"caption_noise": 0.1, "micro_batch": 5, "logit_normal_times": (0.0, 1.0), **train},
        "diffusion": {"min_snr_gamma": 5.0},
        "data": {"flip": True},
        "model": {"multipliers": (1,), "attention": (SIZE,)},
    }
    params = project.model_copy(
        update={name: getattr(project, name).model_copy(update=values) for name, values in changed.items()}
    )
    return Trainer(params, "caption", on(device))
