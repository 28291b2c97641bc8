"""A second judge: logistic regressions over what a pretrained network sees, a linear probe (arXiv:1610.01644).

The network was trained elsewhere on other pictures, so the probe shares no layer with the judge that is trained here,
and where both agree about generated pictures, that is more than one network's taste.
"""
# B batch, S image size, F features, N pictures, A things that are judged

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors.torch import save
from torch import Tensor, nn
from typing_extensions import TypedDict

from condmix.evaluation.features import Features, TimmFeatures
from condmix.evaluation.judges import REMEDY
from condmix.files.artifacts import damaged, read_checked_json, read_tensors, rebuilt, write_checked_json
from condmix.files.atomic import replacing
from condmix.settings.schema import Backbone

CARD = "probe.json"
WEIGHTS = "probe.safetensors"
STRENGTH = 0.01  # scikit-learn's C: chosen on a tenth of the training products of profile fashion, of 1, 0.1, ... 1e-4
ITERATIONS = 1000
NEVER = -1e9  # logit of a value that no picture shows


class ProbeCard(TypedDict):
    """probe.json."""

    heads: dict[str, Annotated[list[str], Field(min_length=1)]]
    width: Annotated[int, Field(ge=1)]
    network: dict[str, Any]
    accuracy: NotRequired[dict[str, float]]
    sha256: str


class Probe(nn.Module):
    """One linear head per thing that is judged, over a network's standardised features; it is used like a `Judge`."""

    mean: Tensor
    sd: Tensor
    network: Features | None = None  # not part of what is learnt
    accuracy: dict[str, float] = {}  # on real test pictures, of one that was saved

    def __init__(self, heads: Mapping[str, Sequence[str]], width: int):
        super().__init__()
        self.heads = {name: list(values) for name, values in heads.items()}
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        self.linears = nn.ModuleList(nn.Linear(width, len(values)) for values in heads.values())
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, S, S, 3) uint8 -> per head the logits (B, values)."""
        if self.network is None:
            raise RuntimeError("a probe reads a network's features: set `network` first")
        return self.of(self.network(images))

    def of(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B, F) -> per head the logits (B, values)."""
        x = (features.to(self.mean) - self.mean) / self.sd
        return {name: linear(x) for name, linear in zip(self.heads, self.linears, strict=True)}

    def fit(self, features: Tensor, targets: Tensor) -> None:
        """Learn from features (N, F) of real pictures, and what they show (N, A), -1 where that is unknown.

        A value that no picture shows is never the answer.
        """
        self.mean.copy_(features.mean(0))
        self.sd.copy_(features.std(0, correction=0).clamp(min=1e-6))
        x = ((features.to(self.mean) - self.mean) / self.sd).cpu().double().numpy()
        for linear, wanted in zip(self.linears, targets.unbind(1), strict=True):
            assert isinstance(linear, nn.Linear)
            known = (wanted >= 0).numpy()
            weight, bias = _regression(x[known], wanted.numpy()[known], linear.out_features)
            linear.weight.copy_(torch.from_numpy(weight))
            linear.bias.copy_(torch.from_numpy(bias))

    def save(self, folder: Path, network: Backbone, facts: Mapping[str, Any]) -> None:
        """Write what was learnt, and a card that holds `facts` too; the network itself stays where it lies."""
        content = save({name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()})
        with replacing(folder / WEIGHTS) as part:
            part.write_bytes(content)
        card = {"heads": self.heads, "width": len(self.mean), "network": network.model_dump(mode="json")}
        write_checked_json(folder / CARD, {**card, "sha256": hashlib.sha256(content).hexdigest(), **facts})

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Probe | None:
        """The probe in a judge's folder, with its network; None where the profile asks for none."""
        if not (folder / CARD).exists():
            return None
        card = read_card(folder)
        tensors, _ = read_tensors(folder / WEIGHTS, REMEDY, card["sha256"])
        probe = rebuilt(lambda: cls(card["heads"], card["width"]), tensors, folder / WEIGHTS, folder / CARD, REMEDY)
        try:
            network = Backbone.model_validate(card["network"])
        except ValidationError as error:
            raise damaged(folder / CARD, f"its network: {error.errors()[0]['msg']}", REMEDY) from None
        probe.network = features_of(network, device)
        probe.accuracy = card.get("accuracy", {})
        return probe.eval().to(device)


def features_of(network: Backbone, device: str | torch.device = "cpu") -> Features:
    """What a probe over this network reads."""
    return TimmFeatures("probe", network, device, "judge.probe")


def read_card(folder: Path) -> dict[str, Any]:
    """What probe.json says."""
    return read_checked_json(folder / CARD, ProbeCard, REMEDY)


def forget(folder: Path) -> None:
    """Remove an earlier run's probe, which the profile may not ask for any more."""
    (folder / CARD).unlink(missing_ok=True)


def _regression(x: np.ndarray, targets: np.ndarray, values: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (values, F) and biases (values,) of a multinomial logistic regression with L2 regularisation."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    shown = np.unique(targets)
    weight, bias = np.zeros((values, x.shape[1])), np.full(values, NEVER)
    if len(shown) < 2:  # nothing to tell apart; of no known picture, not even what it shows
        bias[shown] = 0
        return weight, bias
    fitted = LogisticRegression(C=STRENGTH, max_iter=ITERATIONS).fit(x, targets)
    if len(shown) == 2:  # of which scikit-learn fits the second alone
        bias[shown[0]] = 0
        shown = shown[1:]
    weight[shown], bias[shown] = fitted.coef_, fitted.intercept_
    return weight, bias
