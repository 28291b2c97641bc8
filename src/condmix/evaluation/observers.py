"""Pictures -> what the judges and the feature networks see in them, which is all that most measures need.

Drawn pictures are looked at batch by batch as they are drawn, by the process that draws them.
"""
# n pictures, B of a batch, S image size, F features, A attributes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from condmix.data.prepared import load_meta
from condmix.evaluation.features import extractors
from condmix.evaluation.judges import Judge
from condmix.evaluation.probes import Probe
from condmix.evaluation.scene_fit import fit_for
from condmix.files.artifacts import read_tensors
from condmix.settings.load import Params

# The judges, the one to trust first: what a fit sees is right on generated pictures too.
FIT, NETWORK, PROBE = "fit", "network", "probe"


@dataclass(frozen=True)
class Seen:
    """What is seen in n pictures, on the CPU.

    `features` (n, F) float32 of each feature network; `values` (n, A) of each judge, which value of each attribute it
    sees (one column, the class, where no attributes are known); `residual` (n,) float64 of a fit, in grey levels.
    """

    features: dict[str, Tensor]
    values: dict[str, Tensor]
    residual: Tensor | None = None

    def first(self, n: int) -> Seen:
        """Of the first n pictures."""
        return Seen._of({name: tensor[:n] for name, tensor in self._tensors().items()})

    def save(self, path: Path) -> None:
        save_file(self._tensors(), path)

    @staticmethod
    def load(path: Path) -> Seen:
        return Seen._of(read_tensors(path, "the evaluation again")[0])

    @staticmethod
    def join(parts: Sequence[Seen]) -> Seen:
        """One set after the other."""
        tensors = [part._tensors() for part in parts]
        return Seen._of({name: torch.cat([part[name] for part in tensors]) for name in tensors[0]})

    @staticmethod
    def interleave(parts: Sequence[Seen]) -> Seen:
        """Picture i of the result is that of parts[i % len(parts)]."""
        tensors = [part._tensors() for part in parts]

        def whole(of_each: list[Tensor]) -> Tensor:
            merged = of_each[0].new_empty((sum(map(len, of_each)), *of_each[0].shape[1:]))
            for rank, tensor in enumerate(of_each):
                merged[rank :: len(of_each)] = tensor
            return merged

        return Seen._of({name: whole([part[name] for part in tensors]) for name in tensors[0]})

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"features.{name}": tensor for name, tensor in self.features.items()}
        tensors |= {f"values.{name}": tensor for name, tensor in self.values.items()}
        return tensors if self.residual is None else tensors | {"residual": self.residual}

    @staticmethod
    def _of(tensors: dict[str, Tensor]) -> Seen:
        def named(start: str) -> dict[str, Tensor]:
            return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}

        return Seen(named("features."), named("values."), tensors.get("residual"))


class Observer:
    """A profile's judges, if it has any, and feature networks.

    `heads` are what the columns of each judge's values stand for; the first judge is the one to trust.
    """

    def __init__(self, params: Params, device: str | torch.device | None = None):
        """Without a device: the GPU if there is one. CondmixError for networks that can't be had."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.judge = Judge.load(params.paths.judge, device)
        self.probe = Probe.load(params.paths.judge, device)
        meta = load_meta(params.paths.dataset)
        self.fit = fit_for(meta["dataset"])
        heads = {
            FIT: list(meta["attributes"]) if self.fit else [],
            NETWORK: list(self.judge.heads) if self.judge else [],
            PROBE: list(self.probe.heads) if self.probe else [],
        }
        self.heads = {name: columns for name, columns in heads.items() if columns}
        settings = params.evaluate
        weights = settings.inception_weights
        inception = None if weights is None else weights.verified("evaluate.inception_weights")
        clip, timm = params.paths.clip, params.embed.timm
        self.networks = extractors(settings.features, self.judge, clip, inception, device, timm)
        self._batch_size = params.evaluate.batch_size

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Seen:
        """Of one batch (B, S, S, 3) uint8."""
        values, residual = {}, None
        if self.fit is not None:
            shown, errors = self.fit(pictures.cpu().numpy())
            values[FIT], residual = torch.from_numpy(shown), torch.from_numpy(errors)
        for name, judge in ((NETWORK, self.judge), (PROBE, self.probe)):
            if judge is not None:
                values[name] = torch.stack([logits.argmax(1) for logits in judge(pictures).values()], dim=1).cpu()
        return Seen({network.name: network(pictures).float().cpu() for network in self.networks}, values, residual)

    def all(self, pictures: np.ndarray) -> Seen:
        """Of pictures (n, S, S, 3) uint8, n >= 1, in batches."""
        starts = range(0, len(pictures), self._batch_size)
        batches = (torch.from_numpy(np.array(pictures[i : i + self._batch_size])) for i in starts)
        return Seen.join([self(batch) for batch in batches])
