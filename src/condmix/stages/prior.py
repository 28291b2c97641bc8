"""Stage prior: pairs of captions and pictures, as vectors -> models/prior/: from a text's vector to a picture's.

With it a variant that was trained on pictures is prompted with words: encode the text, sample a picture's vector, draw.
metrics/prior.json compares it on the test split with the text's own vector, with linear regression, and (`ablation`)
with the same network trained alike from the plain start N(0, I). A profile whose `prior` is null has none.
Axes: N pictures, K captions of each, D width of the vectors.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condmix import CondmixError
from condmix.clip.probes import linear_probe, ridge
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior, save_no_prior, save_prior, scaled, unit
from condmix.data.embeddings import numbered, read_cache
from condmix.data.prepared import Split
from condmix.evaluation.frechet import Statistics, frechet_distance
from condmix.files.atomic import write_json
from condmix.runtime.seeds import derive
from condmix.settings import load as settings
from condmix.tracking.runs import environment
from condmix.training.loop import Plan, fit

MEASURED = 2000  # captioned test pictures, at most
PROBED = 10_000  # training pictures, at most, to which the attributes' probes are fitted


def main(params: settings.Params) -> None:
    """Train the prior, measure it, and write models/prior and metrics/prior.json."""
    if params.prior is None:
        reason = f"prior is null in conf/{params.profile}.yaml"
        save_no_prior(params.paths.prior, reason)
        write_json(params.paths.metrics / "prior.json", {"reason": reason})
        return
    started = time.monotonic()
    names = ("image", *numbered(params.paths.embeddings / "train", "caption"))
    train = {name: read(params, "train", name) for name in names}
    if not any(present.any() for name, (_, present, _) in train.items() if name != "image"):
        raise CondmixError(f"profile {params.profile} has no captions to train a prior on: set prior to null")
    networks = {params.prior.clusters: train_prior(train, params.prior, params.prior.clusters)}
    if params.prior.ablation and params.prior.clusters:
        networks[0] = train_prior(train, params.prior, clusters=0)
    metrics = measure(params, train, networks)
    metrics |= {"seconds": round(time.monotonic() - started, 1), "environment": environment("fp32")}
    facts = {"encoder": train["image"][2]["encoder"], **params.prior.model_dump()}
    save_prior(params.paths.prior, networks[params.prior.clusters], facts)
    write_json(params.paths.metrics / "prior.json", metrics)


def read(params: settings.Params, split: str, name: str) -> tuple[Tensor, Tensor, dict[str, str]]:
    """Vectors (N, D), present (N,) and metadata of one cache."""
    return read_cache(params.paths.embeddings / split / f"{name}.safetensors", {"perspective": name, "split": split})


def train_prior(train: dict[str, tuple[Tensor, Tensor, Any]], chosen: settings.Prior, clusters: int) -> ShiftedPrior:
    """The trained network; each step takes pairs of a picture and one of its captions, all pairs being as likely."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, has_image, _ = train["image"]
    texts = torch.stack([vectors for name, (vectors, _, _) in train.items() if name != "image"], dim=1)
    having = torch.stack([present for name, (_, present, _) in train.items() if name != "image"], dim=1)
    pairs = (having & has_image[:, None]).nonzero()
    torch.manual_seed(derive(chosen.seed, "prior"))
    network = ShiftedPrior(Shape(images.shape[1], clusters, chosen.width, chosen.blocks))
    network.means, network.sds = clustered(scaled(images[has_image]), clusters, chosen.seed)
    network.to(device)
    generator = torch.Generator().manual_seed(derive(chosen.seed, "prior", "steps"))
    size = chosen.batch_size

    def loss_of() -> Tensor:
        picture, number = pairs[torch.randint(len(pairs), (size,), generator=generator)].T
        kept = torch.rand(size, generator=generator) >= chosen.p_uncond
        t = torch.randint(network.schedule.steps, (size,), generator=generator)
        noise = torch.randn(size, images.shape[1], generator=generator)
        z_0, text = scaled(images[picture]), texts[picture, number].float()
        return network.loss(*(tensor.to(device, non_blocking=True) for tensor in (z_0, text, kept, t, noise)))

    plan = Plan(f"prior of {clusters} clusters", "prior.lr", chosen.steps, chosen.lr, warmup=0.0)
    fit(plan, [torch.optim.AdamW(network.parameters(), lr=chosen.lr, weight_decay=0.01)], loss_of)
    return network.eval()


def clustered(z: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Means and standard deviations (K, D) of k-means clusters of z (N, D); for 0 clusters those of N(0, I)."""
    if not clusters:
        return torch.zeros(1, z.shape[1]), torch.ones(1, z.shape[1])
    if clusters > len(z):
        raise CondmixError(
            f"prior.clusters is {clusters}, but only {len(z)} training pictures have vectors; ask for less"
        )
    from sklearn.cluster import KMeans  # takes a second to import

    fitted = KMeans(clusters, n_init=1, random_state=seed).fit(z.numpy())
    of = torch.from_numpy(fitted.labels_).long()
    members = torch.bincount(of, minlength=clusters).float()[:, None]
    means = torch.zeros(clusters, z.shape[1]).index_add_(0, of, z) / members
    variances = torch.zeros(clusters, z.shape[1]).index_add_(0, of, (z - means[of]).square()) / members
    return means, variances.sqrt().clamp_min(1e-2)  # a cluster of one picture has none


def measure(
    params: settings.Params, train: dict[str, tuple[Tensor, Tensor, Any]], networks: dict[int, ShiftedPrior]
) -> dict[str, Any]:
    """What each way from the first caption to a picture's vector gives on the test split."""
    chosen: Any = params.prior  # which main has found to be there
    (images, has_image, _), (texts, has_text, _) = (read(params, "test", name) for name in ("image", "caption_1"))
    rows = (has_image & has_text).nonzero()[:MEASURED, 0]
    if len(rows) < 2:
        raise CondmixError(f"profile {params.profile} has no captioned test pictures to measure a prior on")
    images, texts = images[rows].float(), texts[rows].float()
    seeds = [derive(chosen.seed, "prior", "test", int(row)) for row in rows]
    predictions = {"text itself": texts, "linear regression": regressed(train, texts)}
    for clusters, network in networks.items():
        name = f"diffusion from {clusters} clusters" if clusters else "diffusion from N(0, I)"
        predictions[name] = network.sample(texts, seeds, chosen.sample_steps, chosen.guidance).cpu()
    real = Statistics.of(images)
    result: dict[str, Any] = {}
    for name, vectors in predictions.items():
        cosine = torch.cosine_similarity(vectors, images).mean().item()
        distance = frechet_distance(Statistics.of(vectors), real)
        result[name] = {"cosine": round(cosine, 4), "fd_embedding": round(distance, 5)}
    probed = probes(params, train["image"], rows, {**predictions, "real picture": images})
    for name, accuracy in probed.items():
        result.setdefault(name, {}).update(accuracy)
    return {"n": len(rows), **result}


def regressed(train: dict[str, tuple[Tensor, Tensor, Any]], texts: Tensor) -> Tensor:
    """Ridge regression from the first caption's vector to the picture's, applied to texts (B, D); unit norm."""
    (images, has_image, _), (captions, has_caption, _) = train["image"], train["caption_1"]
    both = has_image & has_caption
    x, y = captions[both].double(), images[both].double()
    weights = ridge(x - x.mean(0), y - y.mean(0), penalty=1e-3)
    return unit((texts.double() - x.mean(0)) @ weights + y.mean(0)).float()


def probes(
    params: settings.Params, train: tuple[Tensor, Tensor, Any], rows: Tensor, predictions: dict[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Share of the first caption's named attributes that a linear probe of picture vectors reads right.

    The probes are fitted on the training pictures. Nothing where attributes are not known.
    """
    test, training = (Split.load(params.paths.dataset, split) for split in ("test", "train"))
    if test.attributes is None or test.mentions is None:
        return {}
    images, present, _ = train
    rows_probed = present.nonzero()[:PROBED, 0]
    named = test.mentions[rows.numpy(), 0]
    accuracy: dict[str, dict[str, float]] = {name: {} for name in predictions}
    for column, attribute in enumerate(test.attribute_names):
        chosen = named[:, column]
        truth = torch.from_numpy(np.asarray(test.attributes)[rows.numpy(), column][chosen])
        labels = torch.from_numpy(np.asarray(training.attributes)[rows_probed.numpy(), column])
        for name, vectors in predictions.items():
            share = linear_probe(images[rows_probed].float(), labels, vectors[torch.from_numpy(chosen)], truth)
            accuracy[name][attribute] = round(share, 4)
    return accuracy
