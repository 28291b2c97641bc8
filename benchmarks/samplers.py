"""Which sampler, spacing of times and last time draw best in few steps: the same conditions and seeds for each.

    PYTHONPATH=src python benchmarks/samplers.py --variant experiment --n 200

Needs a trained variant (dvc repro). A call is one pass of the guided network over the pictures; Heun makes two in each
step but the last.
"""

import os
import time

import click
import torch

from condmix.data.captions import read_captions
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.diffusion.model import load_model
from condmix.diffusion.schedule import Schedule
from condmix.evaluation.observers import Seen
from condmix.evaluation.reference import Reference
from condmix.evaluation.samples import picture_seed
from condmix.metrics import Pictures, computed
from condmix.metrics.grain import grain
from condmix.sampling.sample import Sampling, sample_batches
from condmix.settings.load import load
from condmix.stages.evaluate import conditions

FEW = (5, 10, 20)  # steps
CONTENDERS = [  # sampler, spacing, last time, steps
    *(("dpmpp_2m", "uniform", last, steps) for steps in FEW for last in (None, 0.05, 0.1, 0.15) if last != 1 / steps),
    *(("dpmpp_2m", "karras", 0.1, steps) for steps in FEW),
    *(("ddim", "uniform", 0.1, steps) for steps in FEW),
    *(("dpmpp_2m_sde", spacing, 0.1, steps) for steps in FEW for spacing in ("uniform", "karras")),
    *(("heun", "karras", 0.1, steps) for steps in (3, 5, 10)),  # 5, 9 and 19 calls
    ("ddpm", "uniform", None, 100),
]
MEASURES = ("scene_accuracy", "residual", "grain", "fd_clip", "fd_judge")


@click.command()
@click.option("--variant", default="experiment", show_default=True)
@click.option("--n", default=200, show_default=True, help="Held-out conditions, one picture each.")
@click.option("--only", help="Only this sampler.")
@torch.no_grad()
def main(variant: str, n: int, only: str | None) -> None:
    params = load()
    settings, split = params.evaluate, Split.load(params.paths.dataset, "test")
    packed = Packed.load(params.paths.packed(variant), "test")
    headline = conditions(packed, split, read_captions(params.paths.captions, "test"))[0]
    condition, reference = packed.batch(torch.arange(n)), Reference(params, split)
    model, card = load_model(params.paths.model(variant))
    model.eval().to(memory_format=torch.channels_last)
    schedule = Schedule(card["diffusion.schedule"], card["diffusion.steps"])
    seeds = [picture_seed(params.seed, i) for i in range(n)]
    print(
        f"{variant} of profile {params.profile}, n = {n}, guidance {params.guidance} at {settings.interval}, seed "
        f"{params.seed}; grain of the real pictures {grain(split.images[:n]):.2f}; {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load before {os.getloadavg()[0]:.2f}\n"
    )
    headings = ("sampler", "spacing", "last time", "steps", "calls", "seconds", *MEASURES)
    print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|", flush=True)
    for sampler, spacing, last, steps in CONTENDERS:
        if only not in (None, sampler):
            continue
        sampling = Sampling(
            schedule, card["diffusion.prediction"], sampler, steps, params.guidance,
            interval=settings.interval, threshold=settings.threshold, spacing=spacing, last_time=last,
        )  # fmt: skip
        started = time.process_time()
        pictures = list(sample_batches(model, sampling, condition, seeds, settings.batch_size))
        seconds = time.process_time() - started
        seen = Seen.join([reference.observer(batch) for batch in pictures])
        found = computed(reference.observations(seen, headline.named), Pictures.EVERY)
        found["grain"] = grain(torch.cat(pictures).numpy())
        calls = 2 * steps - 1 if sampler == "heun" else steps
        row = [sampler, spacing, last or "1 / steps", steps, calls, f"{seconds:.1f}"]
        row += [f"{found[key]:.1%}" if "accuracy" in key else f"{found[key]:.2f}" for key in MEASURES if key in found]
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
