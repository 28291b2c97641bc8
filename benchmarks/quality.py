"""Pictures and seconds until the demo world's pictures show what was asked: the profile's recipe beside an earlier one.

    PYTHONPATH=src python benchmarks/quality.py --n 300

Needs a reproduced pipeline (dvc repro). Each recipe trains once over its budget, by as many processes as
it asks for; after every eighth of it the averaged weights draw the same n held-out conditions. Seconds are
those of training alone.
"""

import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import click
import torch
from accelerate import PartialState

from condmix.data.captions import read_captions
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.diffusion.model import Architecture, ConditionalModel
from condmix.diffusion.schedule import Schedule
from condmix.evaluation.conditions import Condition
from condmix.evaluation.observers import Seen
from condmix.evaluation.reference import Reference
from condmix.evaluation.samples import picture_seed
from condmix.metrics import Pictures, computed
from condmix.runtime.processes import spawn
from condmix.sampling.sample import Sampling, sample_batches
from condmix.settings.load import Params, load
from condmix.stages.evaluate import conditions
from condmix.training.trainer import Trainer

# As the profile was before Muon, at the pictures of today; at twice this rate AdamW hardly learns captions.
ADAMW = {"optimizer": "adamw", "lr": 1.4e-3, "batch_size": 32, "ema": 0.995, "logit_normal_times": (0.6, 1.0)}
RECIPES = {"adamw": {"train": ADAMW}, "muon": {}}
PARTS = 8


def changed(params: Params, recipe: dict) -> Params:
    """The parameters with a recipe's settings."""
    sections = {name: getattr(params, name).model_copy(update=values) for name, values in recipe.items()}
    return params.model_copy(update=sections)


def train(params: Params, variant: str, folder: Path) -> None:
    """In each process: train over the whole budget; the first one leaves weights and seconds after every part."""
    trainer = Trainer(params, variant, PartialState(cpu=True))
    trainer.network.train()
    seconds = 0.0
    for part in range(PARTS):
        before = time.perf_counter()
        for step in range(trainer.steps * part // PARTS, trainer.steps * (part + 1) // PARTS):
            trainer.advance(step)
        seconds += time.perf_counter() - before
        if trainer.group.is_main_process:
            found = {
                "architecture": asdict(trainer.model.architecture),
                "weights": trainer.averaged(),
                "seconds": seconds,
                "images": trainer.step * params.train.batch_size,
            }
            torch.save(found, folder / f"{part}.pt")


@click.command()
@click.option("--variant", default="experiment", show_default=True)
@click.option("--n", default=200, show_default=True, help="Held-out conditions, one picture each.")
def main(variant: str, n: int) -> None:
    os.environ["CONDMIX_TRACKING"] = "off"
    params = load()
    split = Split.load(params.paths.dataset, "test")
    packed = Packed.load(params.paths.packed(variant), "test")
    headline = conditions(packed, split, read_captions(params.paths.captions, "test"))[0]
    if headline.condition is Condition.PROMPT:
        packed = packed.prompted()
    vectors, mask = packed.batch(torch.arange(n))
    reference = Reference(params, split)
    settings = params.evaluate
    print(f"{variant} of profile {params.profile}, n = {n}, guidance {params.guidance} at {settings.interval}, "
          f"{settings.sampler} in {settings.steps} steps, seed {params.seed}; torch {torch.__version__}, "
          f"load before {os.getloadavg()[0]:.2f}\n")  # fmt: skip
    headings = ("recipe", "pictures seen", "seconds", "scene", "named attributes", "the least", "residual", "fd_clip")
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    for name, recipe in RECIPES.items():
        at = changed(params, recipe)
        sampling = Sampling(
            Schedule(at.diffusion.schedule, at.diffusion.steps),
            at.diffusion.prediction,
            settings.sampler,
            settings.steps,
            at.guidance,
            interval=settings.interval,
            spacing=settings.spacing,
            last_time=settings.last_time,
        )
        with tempfile.TemporaryDirectory() as folder:
            spawn(at.train.processes, train, at, variant, Path(folder))
            for part in range(PARTS):
                saved = torch.load(Path(folder, f"{part}.pt"), weights_only=True)
                model = ConditionalModel(Architecture(**saved["architecture"])).eval()
                model.load_state_dict(saved["weights"])
                model.to(memory_format=torch.channels_last)
                seeds = [picture_seed(params.seed, i) for i in range(n)]
                batches = sample_batches(model, sampling, (vectors, mask), seeds, settings.batch_size)
                seen = Seen.join([reference.observer(batch) for batch in batches])
                found = computed(reference.observations(seen, headline.named), Pictures.EVERY)
                least = min(found["attribute_accuracy"].items(), key=lambda item: item[1])
                print(f"| {name} | {saved['images']:,} | {saved['seconds']:.0f} | "
                      f"{found['scene_accuracy']:.1%} | "
                      f"{found['attribute_accuracy_mean']:.1%} | {least[0]} {least[1]:.1%} | "
                      f"{found['residual']:.1f} | {found['fd_clip']:.1f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
