"""Language-free training: the closed form of a pseudo text, and how training draws it."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from accelerate import PartialState

from condmix import CondmixError
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.settings.perspectives import fill_slots
from condmix.stages.evaluate import conditions
from condmix.training.batches import perturbed
from condmix.training.trainer import Trainer
from tiny_project import write_packed


@pytest.mark.parametrize("xi", [0.0, 0.11, 3.0])
def test_a_pseudo_text_is_as_far_from_the_picture_as_its_closed_form_says(xi):
    generator = torch.Generator().manual_seed(0)
    f, noise = (torch.randn(2000, 512, generator=generator) for _ in range(2))
    h = perturbed(f, 5 * noise, xi)  # the noise's length does not matter
    torch.testing.assert_close(h.norm(dim=1), torch.ones(2000))
    cosine = torch.cosine_similarity(h, f)
    assert cosine.mean().item() == pytest.approx((1 + xi**2) ** -0.5, abs=3e-3)
    assert cosine.std() < 512**-0.5
    assert torch.equal(perturbed(torch.zeros(1, 4), noise[:1, :4], xi), torch.zeros(1, 4))


@pytest.fixture
def trainer(project):
    """Trainers of variants whose perspectives have the same random vectors, by the perspective's name."""

    def make(name, **settings):
        folder = project.paths.packed("experiment")
        shutil.rmtree(folder)
        write_packed(folder, "experiment", "concat", [name])
        train = project.train.model_copy(update=settings)
        return Trainer(project.model_copy(update={"train": train}), "experiment", PartialState(cpu=True))

    return make


def test_every_step_draws_new_noise_and_leaves_all_other_draws_as_they_were(trainer):
    pseudo, plain = trainer("pseudo", pseudo_noise=3.0), trainer("caption_1")
    batches = [one.batch(3) for one in (pseudo, plain)]
    for mine, other in zip(*batches, strict=True):
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, other)
    f = batches[1][1]["caption_1"]  # without a noise of their own, captions are as they were packed
    h = batches[0][1]["pseudo"]
    assert torch.equal(f, plain.packed.batch(torch.arange(48))[0]["caption_1"][_rows(plain, f)])
    assert (torch.cosine_similarity(h, f) < 0.9).all() and torch.equal(h, pseudo.batch(3)[1]["pseudo"])
    noise = trainer("pseudo", pseudo_noise=1e6)  # so much that the pictures do not matter
    assert torch.cosine_similarity(noise.batch(3)[1]["pseudo"], noise.batch(4)[1]["pseudo"]).max() < 0.99
    assert torch.equal(trainer("pseudo", pseudo_noise=0.0).batch(3)[1]["pseudo"], f)
    assert not torch.equal(trainer("caption_1", caption_noise=0.1).batch(3)[1]["caption_1"], f)


def _rows(trainer, vectors):
    packed = trainer.packed.vectors["caption_1"].float()
    return torch.stack([(packed == row).all(1).nonzero()[0, 0] for row in vectors])


def test_processes_take_their_shares_of_the_same_noise(trainer):
    one = trainer("pseudo")
    whole = one.batch(5)[1]["pseudo"]
    shares = []
    for rank in range(2):
        one.group = SimpleNamespace(process_index=rank, num_processes=2)
        shares.append(one.batch(5)[1]["pseudo"])
    assert torch.equal(torch.cat(shares), whole)


def test_words_stand_for_it_when_a_model_is_asked(project):
    split = Split.load(project.paths.dataset, "test")
    packed = Packed.load(project.paths.packed("experiment"), "test")
    packed.vectors = {"pseudo": packed.vectors["caption_1"]}
    packed.variant = packed.variant | {"perspectives": [{"name": "pseudo", "dim": 16, "of": "caption"}]}
    (asked,) = conditions(packed, split, [[f"{k} of {i}" for k in range(3)] for i in range(8)])
    assert asked.condition == "captions" and asked.texts[5] == ["0 of 5"]
    with pytest.raises(CondmixError, match="experiment sees pseudo, in whose place captions stand in evaluation"):
        conditions(packed, split, [[] for _ in range(8)])
    assert fill_slots(["pseudo"], ["red"]) == {"pseudo": ["red"]}
