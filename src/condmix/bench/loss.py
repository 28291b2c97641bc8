"""What contenders have learnt from the same pictures: speed must not be bought by learning less."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from condmix.bench import pictures
from condmix.bench.pictures import STEPS
from condmix.bench.recipe import Contender
from condmix.bench.setting import Setting
from condmix.diffusion.schedule import Schedule

HELD_OUT = 128  # pictures


def train_on(
    contenders: Mapping[str, Contender],
    draw: Callable[[int], pictures.Batch],
    seen: int,
    batches: int,
    say: Callable[[str], None],
) -> None:
    """Give every contender that has seen `seen` batches the following ones, up to `batches`."""
    for number in range(seen, batches):
        batch = draw(number)
        for contender in contenders.values():
            contender.step(batch)
        say(f"batch {number + 1} of {batches}")


@torch.no_grad()
def held_out_loss(contender: Contender, setting: Setting) -> float:
    """Mean squared error of v on held-out pictures, all times alike: 1 is about what predicting zero would give.

    The same for every contender, whatever it trains on: unweighted, on our schedule.
    """
    schedule = Schedule("cosine", STEPS)
    batch = pictures.held_out(HELD_OUT, setting.seed, setting.device)
    x_t = schedule.add_noise(batch.x_0, batch.noise, batch.t)
    losses = []
    for rows in torch.arange(HELD_OUT).split(setting.batch_size):
        output = contender.predict(x_t[rows], batch.t[rows])
        losses.append(schedule.loss("v", output, batch.x_0[rows], batch.noise[rows], batch.t[rows]))
    return torch.cat(losses).mean().item()
