"""What a sampler's steps cost and bring: time and distances of the same conditions and seeds, sampler by sampler.

    PYTHONPATH=src python benchmarks/samplers.py --variant experiment --n 200 --rounds 1

Needs a trained variant (dvc repro). The first row, 1,000 steps of DDPM's ancestral sampling, is what the others are
compared with; it takes nearly all the time. `evaluate.processes` draw together, as in the evaluate stage. Beside a
distance stands what it is above the first row's, as a 95% bootstrap interval over the conditions, the same of both.
"""

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import torch

from condmix.data.captions import read_captions
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.evaluation.distances import bootstrap_interval
from condmix.evaluation.frechet import Statistics, frechet_distance
from condmix.evaluation.observers import Seen
from condmix.evaluation.reference import Reference, reference_features
from condmix.evaluation.samples import Drawn, Job, draw
from condmix.metrics import Pictures, computed
from condmix.metrics._spaces import frechet_name
from condmix.runtime.processes import together
from condmix.settings.load import load
from condmix.stages.evaluate import conditions

CONTENDERS = [("ddpm", 1000), ("ddim", 50), ("ddim", 20), ("dpmpp_2m", 20), ("dpmpp_2m", 10)]


def difference(name: str, one: Seen, other: Seen, reference: Statistics) -> str:
    """The interval of the distance of `one` less that of `other`, pictures of the same conditions and seeds."""

    def statistic(chosen: torch.Tensor) -> float:
        first, second = (
            frechet_distance(Statistics.of(seen.features[name][chosen]), reference) for seen in (one, other)
        )
        return first - second

    low, high = bootstrap_interval(statistic, len(one.features[name]), seed=0, centred=True)
    return f"{low:+.2f} to {high:+.2f}"


@click.command()
@click.option("--variant", default="experiment", show_default=True)
@click.option("--n", default=200, show_default=True, help="Held-out conditions, one picture each.")
@click.option("--rounds", default=1, show_default=True)
def main(variant: str, n: int, rounds: int) -> None:
    params = load()
    split = Split.load(params.paths.dataset, "test")
    packed = Packed.load(params.paths.packed(variant), "test")
    headline = conditions(packed, split, read_captions(params.paths.captions, "test"))[0]
    job = Job(headline.condition, params.guidance, n)
    held_out = Reference(params, split)
    networks = held_out.observer.networks
    references = {one.name: Statistics.of(reference_features(one, split, params)) for one in networks}
    seconds, seen, found = {one: [] for one in CONTENDERS}, {}, {}
    load_before = os.getloadavg()[0]
    for _ in range(rounds):
        for sampler, steps in CONTENDERS:
            settings = params.evaluate.model_copy(update={"sampler": sampler, "steps": steps})
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                world = together(
                    settings.processes,
                    draw,
                    params.model_copy(update={"evaluate": settings}),
                    variant,
                    [job],
                    Path(folder),
                )
                seconds[sampler, steps].append(time.perf_counter() - started)
                seen[sampler, steps] = Drawn(Path(folder), world).seen(job)
                observed = held_out.observations(seen[sampler, steps], headline.named)
                found[sampler, steps] = computed(observed, Pictures.EVERY)
    print(
        f"{variant} of profile {params.profile}, n = {n}, guidance {params.guidance}, seed {params.seed}; distances to "
        f"{len(split.images):,} test pictures; {params.evaluate.processes} processes, {rounds} rounds; seconds include "
        f"the start of the networks, and looking at the pictures; "
        f"torch {torch.__version__}, load before {load_before:.2f}\n"
    )
    headings = " | ".join(f"{frechet_name(name)} | less ddpm's" for name in references)
    print(f"| sampler | steps | seconds | speed-up | {headings} | attributes right |")
    print("|---" * (5 + 2 * len(references)) + "|")
    first = CONTENDERS[0]
    for one in CONTENDERS:
        ratio = median(a / b for a, b in zip(seconds[first], seconds[one], strict=True))
        values = " | ".join(
            f"{found[one][frechet_name(name)]:.2f} | "
            + ("" if one == first else difference(name, seen[one], seen[first], reference))
            for name, reference in references.items()
        )
        right = found[one].get("attribute_accuracy_mean")
        shown = "" if right is None else f"{100 * right:.1f}%"
        print(f"| {one[0]} | {one[1]:,} | {median(seconds[one]):.1f} | {ratio:.1f} | {values} | {shown} |")


if __name__ == "__main__":
    main()
