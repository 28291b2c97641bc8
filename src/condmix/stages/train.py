"""Stage train@<variant>: prepared pictures + packed perspectives -> models/<variant>/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from condmix.data.packed import Packed
from condmix.diffusion.model import ConditionalModel
from condmix.runtime.processes import join_group, together
from condmix.sampling.sample import Sampling, sample_grid
from condmix.settings.load import Params
from condmix.tracking.runs import Run, track
from condmix.training.trainer import Trainer


def main(params: Params, variant: str) -> None:
    """Train `variant` and write its model, card and loss curve; resumes where a killed run stopped."""
    together(params.train.processes, run, params, variant)


def run(params: Params, variant: str) -> None:
    """The training itself, in each process."""
    trainer = Trainer(params, variant, join_group())
    if not trainer.group.is_main_process:
        trainer.group.wait_for_everyone()
        trainer.resume()
        trainer.fit(Run())
        return
    with trainer.checkpoint.lock():  # the others wait, or they could read a state that is about to change
        trainer.group.wait_for_everyone()
        trainer.checkpoint.remove_finished_others()
        trainer.resume()
        described = {**trainer.described(), "guidance": params.guidance}
        with track(variant, described, {"kind": "training"}, trainer.run_id) as tracked:
            trainer.run_id = tracked.id
            tracked.tag({f"environment.{name}": value for name, value in trainer.environment.items()})
            tracked.inputs(f"{params.profile}/train", trainer.data_sha256, "training", params.paths.dataset)
            trainer.fit(tracked, preview)
            trainer.write(tracked)
            tracked.model(*registration(params, variant))
        trainer.checkpoint.mark_finished()


def registration(params: Params, variant: str) -> tuple[str, str, Path, list[Path]]:
    """The name of the registered model, the variant, and the project that draws with it: of all variants, only this."""
    paths = params.paths
    settings = [paths.root / "params.yaml", paths.root / "conf" / f"{params.profile}.yaml"]
    return (
        f"condmix-{params.profile}-{variant}",
        variant,
        paths.root,
        [*settings, paths.model(variant), paths.clip, paths.prior],
    )


def preview(trainer: Trainer) -> np.ndarray:
    """A picture grid (H, W, 3) of the averaged model on the first 16 held-out conditions."""
    params, schedule = trainer.params, trainer.schedule
    model = ConditionalModel(trainer.model.architecture).to(trainer.device)
    model.to(memory_format=torch.channels_last).load_state_dict(trainer.averaged())
    held_out = Packed.load(params.paths.packed(trainer.variant), "test")
    vectors, mask = held_out.batch(torch.arange(min(16, len(held_out))), trainer.device)
    sampling = Sampling(schedule, params.diffusion.prediction, "dpmpp_2m", min(10, schedule.steps), params.guidance)
    with torch.random.fork_rng():
        return sample_grid(model.eval(), sampling, (vectors, mask))
