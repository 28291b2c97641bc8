"""Stage judge: the training split's real pictures -> models/judge, a network that tells what a picture shows.

It judges the data set's attributes where these are known, else its classes, else nothing. A profile may ask for a
second judge, a linear probe over a pretrained network's features. metrics/judge.json holds the accuracy of both on the
test split's real pictures: no judgement of generated pictures is better than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from condmix import CondmixError
from condmix.data.prepared import Split
from condmix.evaluation.judges import CIFAR10_CLASSES, Judge, accuracy, load_resnet56, save_no_judge
from condmix.evaluation.probes import Probe, features_of, forget
from condmix.files.artifacts import write_checked_json
from condmix.settings.schema import Backbone, Params
from condmix.tracking.runs import environment
from condmix.training.loop import Plan, fit

FEWEST = 2  # training pictures: batch normalisation needs as many in a batch
WARMUP = 0.1  # of the steps

Augment = Callable[[Tensor], Tensor]  # of images (B, S, S, 3) uint8


def main(params: Params) -> None:
    """Train or take over the judge, measure it on the test split, write models/judge and metrics/judge.json."""
    started = time.monotonic()
    train, test = (Split.load(params.paths.dataset, name) for name in ("train", "test"))
    heads, targets = heads_of(train), targets_of(train)
    usable, settings = (targets >= 0).any(dim=1), params.judge
    reason = None
    if not heads:
        reason = f"the data of profile {params.profile} has neither attributes nor classes to judge by"
    elif usable.sum() < FEWEST and not settings.weights:
        reason = f"the data of profile {params.profile} has a single training picture that a judge could learn from"
    if reason:
        print(reason)
        save_no_judge(params.paths.judge, reason)
        forget(params.paths.judge)
        write_checked_json(params.paths.metrics / "judge.json", {"accuracy": {}, "reason": reason})
        return

    if settings.weights:
        judge = pretrained(settings.weights.verified("judge.weights"), heads, size_of(train)).to(device())
    else:
        torch.manual_seed(params.judge.seed)  # the new network's weights; the data's order has its own generator
        judge = Judge("small_cnn", heads, size_of(train)).to(device())
        generator = torch.Generator().manual_seed(params.judge.seed)
        order = shuffled(usable, settings.batch_size, generator)
        augment: Callable[[Tensor], Tensor] = partial(moved, flip=params.data.flip, generator=generator)
        if train.attribute_names:  # positions would not survive it
            augment = torch.Tensor.contiguous
        plan = Plan("judge", "judge.lr", settings.steps, settings.lr, WARMUP)
        train_judge(judge, plan, drawn(train.images, targets, order, augment))

    facts: dict[str, Any] = {
        **measured(judge, test),
        "n": len(test.images),
        "split": "test",
        "seed": params.judge.seed,
        "network": judge.network_name,
        "steps": 0 if settings.weights else settings.steps,
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment("fp32"),
    }
    judge.save(params.paths.judge, facts)
    print(f"the judge's accuracy on real test pictures: {shares(facts['accuracy'])}")
    forget(params.paths.judge)
    if settings.probe:
        facts["probe"] = probe = train_probe(params.paths.judge, settings.probe, heads, train, test)
        print(f"the probe's: {shares(probe['accuracy'])}")
    write_checked_json(params.paths.metrics / "judge.json", facts)


def shares(accuracy: Mapping[str, float]) -> str:
    """As in "shape 99.2%, colour 100.0%"."""
    return ", ".join(f"{name} {share:.1%}" for name, share in accuracy.items())


def train_probe(
    folder: Path, settings: Backbone, heads: Mapping[str, Sequence[str]], train: Split, test: Split
) -> dict[str, Any]:
    """Fit the second judge, measure it on the test split and save it; returns what metrics/judge.json says of it."""
    network, targets, seen = features_of(settings, device()), targets_of(train), []
    with tqdm(total=len(train.images), desc="probe", unit="img") as bar:
        for images, _ in batches(train.images, targets, 100):
            seen.append(network(images).cpu())
            bar.update(len(images))
    probe = Probe(heads, seen[0].shape[1])
    probe.fit(torch.cat(seen), targets)
    probe.network = network
    probe.to(device())
    facts: dict[str, Any] = {"network": settings.model, **measured(probe, test)}
    probe.save(folder, settings, {"accuracy": facts["accuracy"]})
    return facts


def measured(judge: Judge | Probe, test: Split) -> dict[str, Any]:
    """Its accuracy on the test split, and on combinations that no judge has seen either."""
    targets = targets_of(test)
    found = {"accuracy": accuracy(judge, batches(test.images, targets))}
    if test.held_out is not None and test.held_out.any():
        rows = np.flatnonzero(test.held_out)
        found["accuracy_held_out"] = accuracy(judge, batches(test.images[rows], targets[rows]))
    return found


def heads_of(train: Split) -> dict[str, list[str]]:
    """What a judge trained on this split can judge: name -> values; empty where it shows nothing known."""
    if train.attribute_names:
        return train.attribute_names
    known = train.labels is not None and (train.labels >= 0).any()
    return {"class": train.class_names} if known else {}


def targets_of(split: Split) -> Tensor:
    """The right answers (N, heads) int64, -1 where unknown."""
    if split.attributes is not None:
        return torch.from_numpy(np.array(split.attributes))
    if split.labels is not None:
        return torch.from_numpy(np.array(split.labels))[:, None]
    return torch.full((len(split.images), 1), -1)


def size_of(split: Split) -> int:
    """Height and width of the split's pictures."""
    return int(split.images.shape[1])


def pretrained(weights: Path, heads: dict[str, list[str]], size: int) -> Judge:
    """The CIFAR-10 ResNet-56 in a checkpoint, refused where it can't judge this data."""
    if heads != {"class": CIFAR10_CLASSES} or size != 32:
        raise CondmixError(
            f"judge.weights {weights} judges CIFAR-10's classes at 32x32 pixels, but this data has {size}x{size} "
            f"pixels and {', '.join(heads)}; write `weights: null` to train a judge"
        )
    return load_resnet56(weights)


def train_judge(judge: Judge, plan: Plan, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Train in place on batches of images (B, S, S, 3) uint8 and targets (B, heads), -1 where unknown.

    The loss is the heads' summed cross-entropy, the optimiser AdamW.
    """

    def loss_of() -> Tensor:
        images, targets = next(batches)
        wanted = targets.to(device(), non_blocking=True).unbind(dim=1)
        losses = map(mean_cross_entropy, judge(images).values(), wanted)
        return cast(Tensor, sum(losses))

    judge.train()
    fit(plan, [torch.optim.AdamW(judge.parameters(), lr=plan.lr, weight_decay=0.05)], loss_of)


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Of the rows whose target (B,) is known, not -1; 0 where none is, of which PyTorch's own mean is no number."""
    total = functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def drawn(
    images: np.ndarray, targets: Tensor, order: Iterator[Tensor], augment: Augment
) -> Iterator[tuple[Tensor, Tensor]]:
    """The pictures and targets of the rows in `order`."""
    for rows in order:
        yield augment(torch.from_numpy(images[rows.numpy()])), targets[rows]


def shuffled(usable: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of the rows where `usable` (N,), reshuffled every epoch, whose short rest is left out."""
    rows = usable.nonzero()[:, 0]
    size = min(batch_size, len(rows))
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        yield from order[: len(order) // size * size].split(size)


def moved(images: Tensor, flip: bool, generator: torch.Generator) -> Tensor:
    """Each picture (B, S, S, 3) moved by up to an eighth of its size, edges repeated; half mirrored if `flip`.

    For classes only: positions would not survive it.
    """
    count, size = images.shape[:2]
    down, right = torch.randint(-(size // 8), size // 8 + 1, (2, count, 1), generator=generator)
    rows, columns = ((torch.arange(size) + shift).clamp(0, size - 1) for shift in (down, right))
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return images[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batches(images: np.ndarray, targets: Tensor, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    """The split in order, as pairs of images and targets."""
    for start in range(0, len(images), size):
        yield torch.from_numpy(np.array(images[start : start + size])), targets[start : start + size]


def device() -> torch.device:
    """Where this stage computes."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
