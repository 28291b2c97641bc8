"""What a guidance scale does to pictures, with and without dynamic thresholding, at all times and inside an interval.

    PYTHONPATH=src python benchmarks/guidance.py --variant experiment --n 200

Needs a trained variant (dvc repro). The same conditions and seeds in every row. "Chroma" is the greatest less the least
of a pixel's three channels, in grey levels of 0 to 255, mean over pixels and pictures. More of it than in the real
pictures, which are the last row, is oversaturation.
"""

from dataclasses import replace

import click
import numpy as np
import torch
from samplers import Trial, head, row

from condmix.settings.load import load

SCALES = (1.0, 2.0, 4.0, 8.0)
SHARES = (0.0, 0.995)  # of dynamic thresholding; Imagen takes the latter (Saharia et al. 2022, arXiv:2205.11487)
MEASURES = ("scene_accuracy", "scene_accuracy_probe", "fd_clip", "fd_judge", "residual")


def chroma(pictures: np.ndarray) -> float:
    """Of pictures (n, S, S, 3) uint8."""
    return float(np.ptp(pictures.astype(np.int16), axis=-1).mean())


@click.command()
@click.option("--variant", default="experiment", show_default=True)
@click.option("--n", default=200, show_default=True, help="Held-out conditions, one picture each.")
def main(variant: str, n: int) -> None:
    trial = Trial(load(), variant, n)
    interval = trial.sampling.interval
    print(f"{trial.sampling.sampler} in {trial.sampling.steps} steps; {trial.heading()}")
    shown = False
    for scale in SCALES:
        for times in (None, interval) if scale > 1 and interval else (None,):
            for share in SHARES:
                pictures, _ = trial.drawn(replace(trial.sampling, guidance=scale, interval=times, threshold=share))
                found = trial.measured(pictures)
                measures = [key for key in MEASURES if key in found]
                if not shown:
                    print(head(("s", "guided at", "threshold", "chroma", *measures)), flush=True)
                    shown = True
                cells = (scale, times or "all times", share or "clipped", f"{chroma(pictures.numpy()):.1f}")
                print(row(cells, found, measures), flush=True)
    real = torch.from_numpy(np.array(trial.split.images[:n]))
    print(row(("real", "", "", f"{chroma(real.numpy()):.1f}"), trial.measured(real), measures), flush=True)


if __name__ == "__main__":
    main()
