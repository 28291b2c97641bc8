"""Prepared pictures and packed perspectives -> a trained model, one step at a time.

A run can be killed at any moment and, on the same machine, ends with the same weights: every random number of step k
(the order of the pictures, times, noise, flips, dropped sources, dropout) follows from (seed, k) alone, so
the state to keep is the weights, their moving average, the optimiser's moments and k.

Draws are made for the whole batch and each process takes its share, so results do not depend on how many
processes there are, up to the rounding of their sums. Axes: B batch, P perspectives, S image size.
"""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import torch
from accelerate import PartialState
from pydantic import Field
from torch import Tensor
from tqdm import tqdm
from typing_extensions import TypedDict

from condmix import CondmixError, pipeline
from condmix.data.packed import Packed
from condmix.data.prepared import Split, load_meta
from condmix.diffusion.model import Architecture, ConditionalModel, save_model
from condmix.diffusion.schedule import Schedule
from condmix.files.artifacts import check_weights, damaged, require
from condmix.files.atomic import replacing
from condmix.runtime.precision import resolved
from condmix.runtime.processes import averaging
from condmix.runtime.seeds import derive
from condmix.settings.load import Params
from condmix.settings.perspectives import parse
from condmix.tracking.runs import Run, environment, project_root
from condmix.training.batches import batch_indices, draw_times, drop_sources, parts, perturbed, to_model
from condmix.training.checkpoint import Checkpoint, machine
from condmix.training.learning_rate import share
from condmix.training.optimizers import STATE, optimizers, parameters_of

LOSS_COLUMNS = ("images", "loss", "gradient_norm", "lr")
# Settings that no weight depends on: how often the state is kept and the loss noted; "auto", which is resolved first.
IRRELEVANT = ("train.checkpoint_seconds", "train.log_every", "train.precision", "train.processes")


class Note(TypedDict):
    """What a checkpoint holds beside the tensors."""

    step: Annotated[int, Field(ge=1)]
    rows: list[Annotated[list[float], Field(min_length=len(LOSS_COLUMNS), max_length=len(LOSS_COLUMNS))]]
    run_id: str | None
    seconds: Annotated[float, Field(gt=0)]


class Trainer:
    """The state of one run, and how it advances by a step, is saved, and is resumed."""

    def __init__(self, params: Params, variant: str, group: PartialState):
        self.params, self.variant, self.group = params, variant, group
        self.settings, self.device = params.train, group.device
        self.precision = resolved(params.train.precision)
        self.environment = environment(self.precision, group.num_processes)
        self.data = Split.load(params.paths.dataset, "train")
        self.data_sha256 = load_meta(params.paths.dataset)["splits"]["train"]["images_sha256"]
        self.packed = Packed.load(params.paths.packed(variant), "train")
        _check_data(self.data, self.packed, params, group.num_processes)

        self.schedule = Schedule(params.diffusion.schedule, params.diffusion.steps)
        self.images = self.data.images
        self.steps = math.ceil(params.train.images / params.train.batch_size)
        self.step = 0
        self.rows: list[list[float]] = []  # the loss curve, in LOSS_COLUMNS
        self.run_id: str | None = None
        self.seconds = 0.0
        self._logged = 0, 0.0  # pictures and seconds when the loss was last logged

        torch.manual_seed(params.seed)  # the initial weights
        self.model = ConditionalModel(architecture(params, self.packed.variant))
        self.model.centres.load_state_dict(self.packed.centres)
        self.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's lacks it
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.optimizers = optimizers(self.model, params.train, self.device)
        network: Any = torch.compile(self.model) if params.train.compile else self.model
        self.network: Any = averaging(network, group)
        self.checkpoint = Checkpoint(project_root(), self._key())

    def described(self) -> dict[str, Any]:
        """The run's parameters, as MLflow and the model's card name them."""
        p = self.params
        return {
            "variant": self.variant,
            "fusion": self.packed.variant["fusion"],
            "perspectives": "+".join(self.packed.vectors),
            "profile": p.profile,
            "seed": p.seed,
            "precision": self.precision,
            "encoder": self.packed.variant["encoder"],
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            **{f"train.{k}": v for k, v in p.train.model_dump().items()},
            **{f"model.{k}": v for k, v in p.model.model_dump().items()},
            **{f"diffusion.{k}": v for k, v in p.diffusion.model_dump().items()},
        }

    def fit(self, tracked: Run, preview: Callable[[Trainer], np.ndarray] | None = None) -> None:
        """Advance to the last step, saving the state every `checkpoint_seconds`.

        At each quarter of the steps a tracked run logs the picture grid (H, W, 3) that `preview` makes.
        """
        main = self.group.is_main_process
        started = saved = time.monotonic()
        before = self.seconds
        self._logged = self.step * self.settings.batch_size, self.seconds
        previews = {self.steps * quarter // 4 for quarter in (1, 2, 3, 4)}
        self.network.train()
        with self._progress() as bar:
            for step in range(self.step, self.steps):
                value, norm = self.advance(step)
                bar.update(self.settings.batch_size)
                self.seconds = before + time.monotonic() - started
                last = self.step == self.steps
                if self.step % self.settings.log_every == 0 or last:
                    self._log(float(value), float(norm), bar, tracked)
                if preview and self.step in previews and tracked.id:
                    tracked.image("samples", preview(self), self.step * self.settings.batch_size)
                if main and (last or time.monotonic() - saved >= self.settings.checkpoint_seconds):
                    self._check_finite(float(value), float(norm))
                    self.save()
                    saved = time.monotonic()

    def advance(self, step: int) -> tuple[Tensor, Tensor]:
        """Optimiser step number `step`; returns its loss and gradient norm, on the device."""
        lr = self.settings.lr * share(step, self.steps, self.settings.warmup, self.settings.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        value = self.backward(self.batch(step))
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step = step + 1
        # The average's memory grows with the run, or its first steps would hold the initial weights for long.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():  # or every step would add to a graph that is never freed
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)
        return value, norm

    def backward(self, batch: tuple[Tensor, dict[str, Tensor], Tensor, Tensor, Tensor]) -> Tensor:
        """Leave the gradient of this process's share of a batch, averaged over processes; returns its mean loss.

        The share goes through the network in parts of `train.micro_batch`, whose gradients add up to the same.
        """
        x_0, vectors, mask, t, noise = batch
        diffusion, count = self.params.diffusion, len(x_0)
        total = torch.zeros((), device=self.device)
        for part in parts(count, self.settings.micro_batch):
            # processes exchange gradients once, with those of the last part
            alone = part.stop < count and self.group.num_processes > 1
            with self.network.no_sync() if alone else nullcontext():
                with torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
                    x_t = self.schedule.add_noise(x_0[part], noise[part], t[part])
                    views = {name: rows[part] for name, rows in vectors.items()}
                    output = self.network(x_t, t[part], views, mask[part]).float()
                    losses = self.schedule.loss(
                        diffusion.prediction, output, x_0[part], noise[part], t[part], diffusion.min_snr_gamma
                    )
                value = losses.sum() / count
                value.backward()
            total += value.detach()
        return total

    def batch(self, step: int) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor, Tensor]:
        """This process's share of batch number `step`.

        Pictures (B, 3, S, S) in [-1, 1], vectors {perspective: (B, d_p)}, mask (B, P) with sources dropped,
        times (B,) and noise (B, 3, S, S).
        """
        size, rank, world = self.settings.batch_size, self.group.process_index, self.group.num_processes
        share = slice(rank * size // world, (rank + 1) * size // world)
        generator = torch.Generator(self.device).manual_seed(derive(self.params.seed, "step", step))
        on_cpu = generator
        if self.device.type != "cpu":
            on_cpu = torch.Generator().manual_seed(derive(self.params.seed, "choices", step))
        torch.manual_seed(derive(self.params.seed, "dropout", step, rank))  # inside the network

        index = batch_indices(self.params.seed, step, size, len(self.packed))[share]
        x_0 = to_model(torch.from_numpy(self.images[index.numpy()]).to(self.device, non_blocking=True))
        t = draw_times(size, self.schedule.steps, self.settings.logit_normal_times, generator)[share]
        noise = torch.randn((size, *x_0.shape[1:]), generator=generator, device=self.device)[share]
        if self.params.data.flip:
            flips = torch.rand(size, generator=generator, device=self.device)[share] < 0.5
            x_0 = torch.where(flips[:, None, None, None], x_0.flip(3), x_0)
        everything = torch.ones(size, self.packed.present.shape[1], dtype=torch.bool, device=self.device)
        kept = drop_sources(everything, self.settings.p_uncond, self.settings.p_source, generator)[share]
        drawn = len(self.packed.choices)
        choices = torch.rand((size, drawn), generator=on_cpu)[share] if drawn else None  # of rows in the CPU's memory
        vectors, present = self.packed.batch(index, self.device, choices)
        noise_of = {"pseudo": self.settings.pseudo_noise, "caption": self.settings.caption_noise}
        for name, rows in vectors.items():  # last of all draws, so that variants without noise see the others unchanged
            if xi := noise_of.get(parse(name).kind):
                eps = torch.randn((size, rows.shape[1]), generator=generator, device=self.device)[share]
                vectors[name] = perturbed(rows, eps, xi)
        layout = torch.channels_last
        return x_0.contiguous(memory_format=layout), vectors, present & kept, t, noise.contiguous(memory_format=layout)

    def averaged(self) -> dict[str, Tensor]:
        """The moving average of the weights, as a state dict: what sampling uses and the output holds."""
        names = [name for name, _ in self.model.named_parameters()]
        return {**self.model.state_dict(), **dict(zip(names, self.average, strict=True))}

    def save(self) -> None:
        """Write the checkpoint."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{i}": value for i, value in enumerate(self.average)}
        for k, optimizer in enumerate(self.optimizers):
            for i, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{k}.{i}.{name}": value for name, value in moments.items()}
        note = {"step": self.step, "rows": self.rows, "run_id": self.run_id, "seconds": self.seconds}
        self.checkpoint.save(tensors, note)

    def resume(self) -> None:
        """Take up the checkpoint of this very run, if there is one."""
        saved = self.checkpoint.load(Note)
        if saved is None:
            return
        tensors, note = saved
        path, remedy = self.checkpoint.path, self.checkpoint.remedy
        if not note["rows"] and note["step"] == self.steps:
            raise damaged(path, "its loss curve is empty", remedy)
        if note["step"] > self.steps:
            raise damaged(path, f"it is of step {note['step']:,}, but the run has {self.steps:,} steps", remedy)
        averages = [
            require(tensors, f"average.{i}", value.dtype, value.shape, path, remedy)
            for i, value in enumerate(self.average)
        ]
        moments = [self._moments(tensors, k) for k in range(len(self.optimizers))]
        weights = _with_prefix(tensors, "model.")
        check_weights(self.model, weights, path, remedy)
        self.model.load_state_dict(weights)
        for optimizer, state in zip(self.optimizers, moments, strict=True):
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        for value, saved in zip(self.average, averages, strict=True):
            value.copy_(saved)
        self.step, self.rows = note["step"], note["rows"]
        self.run_id, self.seconds = note["run_id"], note["seconds"]
        if self.group.is_main_process:
            print(f"{self.variant}: resumes at step {self.step:,} of {self.steps:,}", file=sys.stderr)

    def _moments(self, tensors: dict[str, Tensor], k: int) -> dict[int, dict[str, Tensor]]:
        """The state of optimiser k in a checkpoint, by parameter; CondmixError where a part of it is missing."""
        moments: dict[int, dict[str, Tensor]] = {}
        names = STATE[type(self.optimizers[k])]
        for i, parameter in enumerate(parameters_of(self.optimizers[k])):
            if moments and "step" in names and f"optimizer.{k}.{i}.step" not in tensors:
                continue  # AdamW keeps nothing for a weight that no gradient has reached
            for name in names:
                shape = () if name == "step" else parameter.shape
                place = f"optimizer.{k}.{i}.{name}"
                value = require(tensors, place, torch.float32, shape, self.checkpoint.path, self.checkpoint.remedy)
                # a file holds no strides; moments laid out unlike their weights would take a slow path
                layout = torch.channels_last if value.dim() == 4 else torch.contiguous_format
                moments.setdefault(i, {})[name] = value.contiguous(memory_format=layout)
        return moments

    def write(self, tracked: Run) -> None:
        """The stage's outputs: the averaged weights, the card and the loss curve."""
        paths = self.params.paths
        folder = paths.model(self.variant)
        card = {
            **self.described(),
            "architecture": asdict(self.model.architecture),
            "images_seen": self.step * self.settings.batch_size,
            "images_per_second": round(self.step * self.settings.batch_size / self.seconds, 1),
            "seconds": round(self.seconds, 1),
            "processes": self.group.num_processes,
            "final_loss": self.rows[-1][1],
            "dataset_sha256": self.data_sha256,
            "class_names": self.data.class_names,
            "perspectives_of": self.packed.variant,
            "environment": self.environment,
            "mlflow_run": tracked.mlflow_id(),
        }
        sha256 = save_model(folder, self.averaged(), card)
        curve = paths.metrics / "losses" / f"{self.variant}.csv"
        with replacing(curve) as part, open(part, "w", newline="") as file:
            csv.writer(file).writerows([LOSS_COLUMNS, *self.rows])
        tracked.tag({"model_sha256": sha256})

    def _progress(self) -> tqdm:
        size = self.settings.batch_size
        return tqdm(
            total=self.steps * size,
            initial=self.step * size,
            desc=f"train {self.variant}",
            unit="img",
            unit_scale=True,
            disable=not self.group.is_main_process,
            mininterval=1.0,
        )

    def _log(self, value: float, norm: float, bar: tqdm, tracked: Run) -> None:
        self._check_finite(value, norm)
        if not self.group.is_main_process:
            return
        lr = self.optimizers[0].param_groups[0]["lr"]
        seen = self.step * self.settings.batch_size
        self.rows.append([seen, value, norm, lr])
        bar.set_postfix_str(f"loss {value:.3f}")
        tracked.metrics({"train/loss": value, "train/gradient_norm": norm, "train/lr": lr}, seen)
        images, seconds = self._logged
        self._logged = seen, self.seconds
        if self.seconds > seconds:
            tracked.metrics({"train/images_per_second": (seen - images) / (self.seconds - seconds)}, seen)

    def _check_finite(self, value: float, norm: float) -> None:
        if math.isfinite(value) and math.isfinite(norm):
            return
        kept = f"the state before it is kept in {self.checkpoint.folder}" if self.checkpoint.path.exists() else ""
        raise CondmixError(
            f"{self.variant}: the loss is {value} and the gradient norm {norm} at step {self.step:,}, so training "
            f"stopped; lower train.lr ({self.settings.lr}) or train.clip_norm ({self.settings.clip_norm}) "
            f"in conf/{self.params.profile}.yaml{'; ' + kept if kept else ''}"
        )

    def _key(self) -> str:
        fusion = f"fusions/{self.packed.variant['fusion']}.py"
        code = [*pipeline.stage_code("train"), *pipeline.closure(fusion, pipeline.NEUTRAL)]
        facts = machine(self.device, self.precision, self.group.num_processes)
        inputs = [self.params.paths.dataset, self.params.paths.packed(self.variant)]
        return pipeline.key(code, self.params, inputs, facts, {*IRRELEVANT, *pipeline.UNDECLARED["train"]})


def architecture(params: Params, variant: dict) -> Architecture:
    """The network of a packed variant under the profile's model settings."""
    return Architecture(
        fusion=variant["fusion"],
        perspectives={perspective["name"]: perspective["dim"] for perspective in variant["perspectives"]},
        dim=variant["dim"],
        centres=variant.get("centres", {}),
        image_size=params.data.image_size,
        **params.model.model_dump(),
    )


def _check_data(data: Split, packed: Packed, params: Params, processes: int) -> None:
    if len(data.images) != len(packed):
        raise CondmixError(
            f"{params.paths.dataset} has {len(data.images):,} training pictures, but the packed perspectives are of "
            f"{len(packed):,}: run dvc repro, which brings both up to date"
        )
    if params.train.batch_size % processes:
        raise CondmixError(
            f"train.batch_size {params.train.batch_size} does not divide into {processes} equal shares, "
            "one for each process"
        )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
