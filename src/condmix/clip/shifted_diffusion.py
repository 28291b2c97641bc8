"""A text's vector -> a picture's vector: a prior by shifted diffusion (Corgi, Zhou et al. 2023, arXiv:2211.15388).

Diffusion from N(0, I) has to find the small part of the space where CLIP puts pictures. Shifted diffusion begins there:
with the training pictures' vectors in K clusters of means mu_k and standard deviations sigma_k, z_0 in cluster k,

    q(z_t | z_0) = N(sqrt(a_bar_t) z_0 + (1 - sqrt(a_bar_t)) mu_k, (1 - a_bar_t) sigma_k^2)

which is ordinary diffusion of y = (z - mu_k) / sigma_k, so that any schedule and sampler serve. The network predicts
z_0. The paper takes the cluster nearest to the text when it samples; here the network learns the probability of each
cluster under a text and one is drawn, since in CLIP's space texts lie apart from pictures.

Vectors z have norm sqrt(D), so that their coordinates are about 1 and N(0, I) is a fair start to compare with (K = 0).
Axes: B batch, N pictures, D width of the vectors, K clusters, W width of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from condmix import CondmixError
from condmix.diffusion.schedule import Schedule
from condmix.diffusion.unet import TimeEmbedding
from condmix.files.artifacts import digest_of_file, read_checked_json, read_tensors, rebuilt, write_checked_json
from condmix.files.atomic import replacing
from condmix.samplers import SampleNoise, path, times
from condmix.samplers.ddim import ddim

WEIGHTS, CARD = "model.safetensors", "prior.json"
REMEDY = "dvc repro prior"
TIMES = 64  # waves of the time embedding
PriorSize = Annotated[int, Field(ge=1, le=2**20)]  # no prior is larger, and a damaged card must not ask for one


class SavedShape(TypedDict):
    """`Shape` in JSON."""

    dim: PriorSize
    clusters: Annotated[int, Field(ge=0, le=2**20)]
    width: PriorSize
    blocks: Annotated[int, Field(ge=0, le=1000)]


class PriorCard(TypedDict):
    """What is read of any prior.json."""

    trained: bool


class TrainedPriorCard(PriorCard):
    """The prior.json of a network."""

    shape: SavedShape
    encoder: str
    sample_steps: PriorSize
    guidance: float
    sha256: str


@dataclass(frozen=True)
class Shape:
    """What the network's constructor needs; `clusters` 0 is the start N(0, I)."""

    dim: int
    clusters: int
    width: int
    blocks: int


def unit(vectors: Tensor) -> Tensor:
    """Unit vectors (B, D), as the embeddings hold them."""
    return F.normalize(vectors, dim=-1)


def scaled(vectors: Tensor) -> Tensor:
    """Vectors (B, D) of norm sqrt(D), as the prior works on them."""
    return unit(vectors.float()) * vectors.shape[-1] ** 0.5


class ShiftedPrior(nn.Module):
    """Predicts z_0 (B, D) from y_t, t, the text's vector and the cluster; a residual network over D numbers."""

    means: Tensor  # of the clusters (C, D)
    sds: Tensor  # (C, D)

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.schedule = Schedule("cosine", 1000)
        dim, width, count = shape.dim, shape.width, max(1, shape.clusters)
        self.register_buffer("means", torch.zeros(count, dim))
        self.register_buffer("sds", torch.ones(count, dim))
        self.null = nn.Parameter(torch.zeros(dim))  # in the place of an absent text
        self.time = TimeEmbedding(TIMES, width)
        self.enter = nn.Linear(4 * dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(shape.blocks)
        )
        last = nn.Linear(width, dim)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        nn.init.zeros_(last.weight)  # at first it predicts the cluster's mean
        nn.init.zeros_(last.bias)
        self.choose = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, count))

    def nearest(self, z: Tensor) -> Tensor:
        """The cluster (B,) whose mean is nearest to z (B, D)."""
        return torch.cdist(z, self.means).argmin(dim=1)

    def q(self, z_0: Tensor, cluster: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """z_t (B, D) for z_0 (B, D) in clusters (B,), standard normal noise (B, D) and times (B,)."""
        mean, sd = self.means[cluster], self.sds[cluster]
        return mean + sd * self.schedule.add_noise((z_0 - mean) / sd, noise, t)

    def texts(self, texts: Tensor, present: Tensor) -> Tensor:
        """Text vectors (B, D) as the network reads them; the learned null where `present` (B,) is False."""
        return torch.where(present[:, None], scaled(texts), self.null)

    def forward(self, z_t: Tensor, t: Tensor, texts: Tensor, cluster: Tensor) -> Tensor:
        """z_0 (B, D) from z_t (B, D), t (B,), `self.texts` (B, D) and clusters (B,)."""
        mean, sd = self.means[cluster], self.sds[cluster]
        hidden = self.enter(torch.cat([(z_t - mean) / sd, texts, mean, sd], dim=1))
        time = self.time(t)
        for block in self.blocks:
            hidden = hidden + block(hidden + time)
        return mean + sd * self.leave(hidden)

    def loss(self, z_0: Tensor, texts: Tensor, present: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of z_0 per coordinate, plus the cross-entropy of the cluster given the text."""
        cluster, said = self.nearest(z_0), self.texts(texts, present)
        error = (self(self.q(z_0, cluster, noise, t), t, said, cluster) - z_0).square().mean()
        return error + F.cross_entropy(self.choose(said), cluster)

    @torch.no_grad()
    def sample(self, texts: Tensor, seeds: Sequence[int], steps: int, guidance: float) -> Tensor:
        """Picture vectors of unit norm (B, D) for text vectors (B, D), by deterministic DDIM from a random start.

        Vector i depends on texts[i] and seeds[i] alone. Guidance s as for pictures: uncond + s (cond - uncond).
        """
        device = self.means.device
        said = self.texts(texts.to(device), torch.ones(len(texts), dtype=torch.bool, device=device))
        nothing = self.null.expand_as(said)
        # one normal number more than the start needs: its quantile chooses the cluster
        start, chance = SampleNoise(seeds, (self.shape.dim + 1,), device)().split([self.shape.dim, 1], dim=1)
        total = self.choose(said).softmax(dim=1).cumsum(dim=1)
        cluster = (torch.special.ndtr(chance) > total).sum(dim=1).clamp(max=len(self.means) - 1)
        mean, sd = self.means[cluster], self.sds[cluster]

        def denoise(y_t: Tensor, t: Tensor) -> Tensor:
            t = t.to(device, non_blocking=True)
            z_t = mean + sd * y_t
            z_0 = self(z_t, t, said, cluster)
            if guidance != 1:
                z_0 = torch.lerp(self(z_t, t, nothing, cluster), z_0, guidance)
            return (z_0 - mean) / sd

        steps_taken = path(self.schedule, times(self.schedule, steps, "uniform"))
        return unit(mean + sd * ddim(denoise, start, steps_taken, noise=lambda: start))  # it draws none


@dataclass(frozen=True)
class Trained:
    """A prior as the stage left it: the network, and how it is sampled."""

    network: ShiftedPrior
    steps: int
    guidance: float

    def sample(self, texts: Tensor, seeds: Sequence[int]) -> Tensor:
        """Picture vectors of unit norm (B, D) on the CPU, for text vectors (B, D) and one seed each."""
        return self.network.sample(texts, seeds, self.steps, self.guidance).cpu()


def save_prior(folder: Path, network: ShiftedPrior, facts: dict[str, Any]) -> None:
    """Write the weights, then the card, without which they count for nothing."""
    (folder / CARD).unlink(missing_ok=True)
    with replacing(folder / WEIGHTS) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, part)
        sha256 = digest_of_file(part)
    write_checked_json(folder / CARD, {"trained": True, "shape": asdict(network.shape), **facts, "sha256": sha256})


def save_no_prior(folder: Path, reason: str) -> None:
    """Write the card of a profile that has no prior."""
    (folder / WEIGHTS).unlink(missing_ok=True)
    write_checked_json(folder / CARD, {"trained": False, "reason": reason})


def load_prior(folder: Path, encoder: str) -> Trained:
    """What the stage prior trained; CondmixError unless on vectors of `encoder`, as the embedding caches name it."""
    path, weights = folder / CARD, folder / WEIGHTS
    if not read_checked_json(path, PriorCard, REMEDY)["trained"]:
        raise CondmixError(f"{folder} holds no prior: set prior in the profile and run {REMEDY}")
    card = read_checked_json(path, TrainedPriorCard, REMEDY)
    if card["encoder"] != encoder:
        raise CondmixError(f"{folder} is of vectors of {card['encoder']}, not of {encoder}: run {REMEDY}")
    tensors, _ = read_tensors(weights, REMEDY, card["sha256"])
    network = rebuilt(lambda: ShiftedPrior(Shape(**card["shape"])), tensors, weights, path, REMEDY)
    return Trained(network.eval(), card["sample_steps"], card["guidance"])
