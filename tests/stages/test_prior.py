"""The prior: shifted diffusion's closed forms, what it learns, and what the stage leaves behind."""

import json

import numpy as np
import pytest
import torch

from condmix import CondmixError
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior, load_prior, scaled, unit
from condmix.data.embeddings import cache_key, write_cache
from condmix.stages import prior
from profiles import section

SMALL = section("prior", clusters=3, width=32, blocks=1, steps=300, batch_size=64, lr=5e-3, sample_steps=12)


@pytest.fixture
def network():
    """An untrained one with two clusters in 6 dimensions."""
    torch.manual_seed(0)
    made = ShiftedPrior(Shape(dim=6, clusters=2, width=16, blocks=1)).eval()
    made.means, made.sds = torch.randn(2, 6), torch.rand(2, 6) + 0.1
    return made


@pytest.mark.parametrize("t", [0, 500, 999])
def test_q_has_the_mean_and_variance_of_the_paper(network, t):
    count = 200_000
    z_0, cluster = torch.randn(6), torch.ones(count, dtype=torch.long)
    z_t = network.q(z_0.expand(count, 6), cluster, torch.randn(count, 6), torch.full((count,), t))
    a_bar = network.schedule.alpha_bar[t].item()
    mean = a_bar**0.5 * z_0 + (1 - a_bar**0.5) * network.means[1]
    torch.testing.assert_close(z_t.mean(0), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(z_t.var(0), (1 - a_bar) * network.sds[1] ** 2, atol=0.01, rtol=0.02)


def test_with_a_perfect_prediction_sampling_returns_z_0(network, monkeypatch):
    z_0 = torch.randn(5, 6)
    monkeypatch.setattr(network, "forward", lambda z_t, t, texts, cluster: z_0)
    for steps in (1, 7):
        torch.testing.assert_close(network.sample(torch.randn(5, 6), range(5), steps, guidance=2.0), unit(z_0))


def test_a_sample_belongs_to_its_seed_and_the_cluster_is_drawn_as_the_text_says(network, monkeypatch):
    texts = torch.randn(9, 6)
    whole = network.sample(texts, range(9), 4, 1.0)
    torch.testing.assert_close(network.sample(texts[4:6], [4, 5], 4, 1.0), whole[4:6])
    with torch.no_grad():
        network.choose[2].weight.zero_()
        network.choose[2].bias.copy_(torch.tensor([0.2, 0.8]).log())
    drawn = []
    monkeypatch.setattr(network, "forward", lambda z_t, t, texts, cluster: drawn.append(cluster) or z_t)
    network.sample(torch.randn(2000, 6), range(2000), 1, 1.0)
    assert drawn[0].float().mean().item() == pytest.approx(0.8, abs=0.03)


def toy(count=600):
    """Pictures around three directions. One text is said of the first two alike, the other of the third."""
    generator = torch.Generator().manual_seed(0)
    modes = torch.eye(8)[:3]
    of = torch.arange(count) % 3
    images = unit(modes[of] + 0.1 * torch.randn(count, 8, generator=generator))
    texts = torch.eye(8)[[5, 5, 6]][of]
    present = torch.ones(count, dtype=torch.bool)
    return {"image": (images, present, {}), "caption_1": (texts, present, {})}, modes


@pytest.mark.parametrize("clusters, near", [(3, 0.9), (0, 0.8)])
def test_it_learns_every_mode_that_a_text_allows_and_not_their_mean(clusters, near):
    train, modes = toy()
    network = prior.train_prior(train, SMALL, clusters)
    vague, clear = (network.sample(torch.eye(8)[[k]].expand(200, 8), range(200), 12, 1.0) for k in (5, 6))
    cosine = vague @ modes.T
    assert cosine.amax(1).mean() > near > 2**-0.5  # which is the mean's with either mode
    assert 60 < (cosine.argmax(1) == 0).sum() < 140 and (cosine.argmax(1) == 2).sum() < 10
    assert (clear @ modes[2]).mean() > near


@pytest.fixture
def embedded(project):
    """The tiny project with caches of three perspectives and a small prior."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 48), ("test", 8)):
        for name in ("image", "caption_1", "caption_2"):
            present = np.ones(count, bool) if name == "image" else generator.random(count) < 0.9
            key = cache_key(name, split, ("random", "p"), "d", count)
            path = project.paths.embeddings / split / f"{name}.safetensors"
            write_cache(path, generator.normal(size=(count, 16)), present, key)
    return project.model_copy(update={"prior": SMALL.model_copy(update={"steps": 5})})


def test_the_stage_measures_every_way_and_its_prior_loads(embedded):
    prior.main(embedded)
    metrics = json.loads((embedded.paths.metrics / "prior.json").read_text())
    ways = ["text itself", "linear regression", "diffusion from 3 clusters", "diffusion from N(0, I)"]
    assert list(metrics) == ["n", *ways, "real picture", "seconds", "environment"]
    assert all({"cosine", "fd_embedding", "shape"} == metrics[way].keys() for way in ways)
    trained = load_prior(embedded.paths.prior, "random")
    assert trained.network.shape.clusters == 3
    vectors = trained.sample(torch.randn(2, 16), [0, 1])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    first = (embedded.paths.prior / "model.safetensors").read_bytes()
    prior.main(embedded)
    assert (embedded.paths.prior / "model.safetensors").read_bytes() == first


def test_what_stops_the_stage_leaves_nothing(embedded, monkeypatch):
    monkeypatch.setattr(prior, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prior.main(embedded)
    assert not embedded.paths.prior.exists() and not (embedded.paths.metrics / "prior.json").exists()
    with pytest.raises(CondmixError, match="run dvc repro prior"):
        load_prior(embedded.paths.prior, "random")


def test_a_profile_without_one_says_so(embedded):
    prior.main(embedded)
    prior.main(embedded.model_copy(update={"prior": None}))
    assert [path.name for path in embedded.paths.prior.iterdir()] == ["prior.json"]
    with pytest.raises(CondmixError, match="holds no prior: set prior in the profile"):
        load_prior(embedded.paths.prior, "random")


def test_mistakes_are_said_in_one_sentence(embedded):
    many = SMALL.model_copy(update={"clusters": 100})
    with pytest.raises(CondmixError, match="prior.clusters is 100, but only 48 training pictures have vectors"):
        prior.main(embedded.model_copy(update={"prior": many}))
    for path in embedded.paths.embeddings.glob("train/caption_*"):
        path.unlink()
    with pytest.raises(CondmixError, match="profile tiny has no captions to train a prior on"):
        prior.main(embedded)


def test_scaled_vectors_have_coordinates_about_one():
    assert scaled(torch.randn(3, 16)).square().mean(1).allclose(torch.ones(3))
