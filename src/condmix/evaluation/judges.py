"""Pictures -> what is on them: networks that say which attribute values, or which class, a picture shows.

A judge is trained on real pictures only and never helps to make one, so it can tell whether a generated picture
shows what its condition names. Its features serve a Fréchet distance where Inception's can't be had.
"""
# B batch, S image size, F features, C channels

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.clip.weights import check_finite
from condmix.files.artifacts import read_checked_json, read_tensors, rebuilt, write_checked_json
from condmix.files.atomic import replacing
from condmix.runtime.messages import reason

if TYPE_CHECKING:
    from condmix.evaluation.probes import Probe

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CARD = "model.json"
WEIGHTS = "model.safetensors"
REMEDY = "dvc repro judge"


class JudgeCard(TypedDict):
    """What is read of any judge's model.json."""

    heads: dict[str, Annotated[list[str], Field(min_length=1)]]  # empty where the data has nothing to judge by
    accuracy: NotRequired[dict[str, float]]
    n: NotRequired[int]


class TrainedJudgeCard(JudgeCard):
    """The model.json of a network."""

    network: Literal["small_cnn", "resnet56"]
    image_size: Annotated[int, Field(ge=1)]
    sha256: str


class Judge(nn.Module):
    """A feature network with one linear head per thing that it judges.

    `heads` maps names to values: logits[name][:, j] speaks for heads[name][j]. New judges are in training mode,
    loaded ones in evaluation mode; gradients are the caller's affair.
    """

    def __init__(self, network: str, heads: Mapping[str, Sequence[str]], image_size: int):
        super().__init__()
        self.network_name, self.image_size = network, image_size
        self.heads = {name: list(values) for name, values in heads.items()}
        self.network = NETWORKS[network]()
        width: Any = self.network.width
        # not a ModuleDict: an attribute of the data may be called "type" or "values"
        self.linears = nn.ModuleList(nn.Linear(width, len(values)) for values in heads.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, S, S, 3) uint8 -> per head the logits (B, values)."""
        features = self.features(images)
        return {name: linear(features) for name, linear in zip(self.heads, self.linears, strict=True)}

    def features(self, images: Tensor) -> Tensor:
        """Images (B, S, S, 3) uint8 -> what the heads read, (B, F) float32."""
        if images.dtype != torch.uint8 or images.shape[1:] != (self.image_size, self.image_size, 3):
            raise CondmixError(
                f"this judge reads uint8 pictures of {self.image_size}x{self.image_size} pixels, got "
                f"{str(images.dtype).removeprefix('torch.')} of shape {tuple(images.shape[1:])}"
            )
        device = next(self.parameters()).device
        return self.network(images.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 255)

    @property
    def sha256(self) -> str:
        """Hash of the weights: that of the file that `save` writes."""
        return hashlib.sha256(self._content()).hexdigest()

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the weights, and a card that holds `facts` (accuracy, n, ...) too."""
        card = {"network": self.network_name, "heads": self.heads, "image_size": self.image_size}
        with replacing(folder / WEIGHTS) as part:
            part.write_bytes(self._content())
        write_checked_json(folder / CARD, {**card, "sha256": self.sha256, **facts})

    def _content(self) -> bytes:
        return save({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()})

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Judge | None:
        """The judge in `folder`; None where its card says that the data has nothing to judge by."""
        card = read_card(folder)
        if not card["heads"]:
            return None
        card = read_checked_json(folder / CARD, TrainedJudgeCard, REMEDY)
        tensors, _ = read_tensors(folder / WEIGHTS, REMEDY, card["sha256"])
        judge = rebuilt(
            lambda: cls(card["network"], card["heads"], card["image_size"]),
            tensors, folder / WEIGHTS, folder / CARD, REMEDY,
        )  # fmt: skip
        return judge.eval().to(device)


def save_no_judge(folder: Path, reason: str) -> None:
    """Write the card of a data set that has neither attributes nor classes."""
    write_checked_json(folder / CARD, {"heads": {}, "reason": reason})


def read_card(folder: Path) -> dict[str, Any]:
    """What model.json says of the judge in `folder`: heads and, where there are any, what `save` was given."""
    return read_checked_json(folder / CARD, JudgeCard, REMEDY)


def load_resnet56(path: Path) -> Judge:
    """The judge in a CIFAR-10 ResNet-56 checkpoint of github.com/akamaster/pytorch_resnet_cifar10.

    Its head is `class`, in CIFAR-10's order. It was trained on CIFAR-10's training split by someone else.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        state = {name.removeprefix("module."): tensor for name, tensor in saved.items()}
        head = {name: state.pop(f"linear.{name}") for name in ("weight", "bias")}
        judge = Judge("resnet56", {"class": CIFAR10_CLASSES}, image_size=32)
        judge.network.load_state_dict(state)
        judge.linears[0].load_state_dict(head)
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise CondmixError(
            f"{path} is not a ResNet-56 checkpoint of pytorch_resnet_cifar10 ({reason(error)})"
        ) from None
    check_finite(judge, path)
    return judge.eval()


@torch.no_grad()
def accuracy(judge: Judge | Probe, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Per head the share of right answers over batches of images (B, S, S, 3) and targets (B, heads).

    A target of -1 is unknown and doesn't count; a head of which nothing is known has no entry.
    """
    judge.eval()
    right = torch.zeros(len(judge.heads), dtype=torch.long)
    known = torch.zeros_like(right)
    for images, targets in batches:
        answers = torch.stack([logits.argmax(-1).cpu() for logits in judge(images).values()], dim=-1)
        right += (answers == targets).sum(0)
        known += (targets >= 0).sum(0)
    return {name: r / k for name, r, k in zip(judge.heads, right.tolist(), known.tolist(), strict=True) if k}


class SmallCnn(nn.Module):
    """Six convolutions over three resolutions, then one dense layer over a 4x4 grid: (B, 3, S, S) -> (B, 128).

    The grid stays, where most classifiers average over places: a position is one of the things to be judged.
    """

    width = 128

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            _convolution(3, 32), _convolution(32, 32),
            _convolution(32, 64, stride=2), _convolution(64, 64),
            _convolution(64, 96, stride=2), _convolution(96, 96),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(),
            nn.Linear(96 * 4 * 4, self.width, bias=False), nn.BatchNorm1d(self.width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(2 * x - 1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class ResNet56(nn.Module):
    """The CIFAR-10 ResNet-56 of He et al. (2015, section 4.2): (B, 3, S, S) in 0..1 -> (B, 64).

    Modules are named as in pytorch_resnet_cifar10, whose checkpoints it reads.
    """

    width = 64
    mean: Tensor
    sd: Tensor

    def __init__(self) -> None:
        super().__init__()
        # ImageNet's mean and standard deviation, although the pictures are CIFAR-10's: so it was trained
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("sd", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(9)))
        self.layer2 = nn.Sequential(_Block(16, 32), *(_Block(32, 32) for _ in range(8)))
        self.layer3 = nn.Sequential(_Block(32, 64), *(_Block(64, 64) for _ in range(8)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1((x - self.mean) / self.sd)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


class _Block(nn.Module):
    """Residual block whose shortcut has no weights (option A): every second pixel, new channels zero."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.stride, self.added = (1, 0) if inputs == outputs else (2, (outputs - inputs) // 2)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.added, self.added))
        return functional.relu(y + shortcut)


NETWORKS = {"small_cnn": SmallCnn, "resnet56": ResNet56}
