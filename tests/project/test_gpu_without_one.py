"""What can be known of a GPU without one: nothing is left on the CPU, and no step waits.

`PretendGpu` computes shapes: what it cannot show is bf16 autocast, the kernels' numbers, and gradients on "cuda"; the
backward pass runs on "meta" instead.
"""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clip_helpers import TINY, save_tiny_clip
from condmix.clip import backbone, contrastive
from condmix.clip.backbone import open_backbone
from condmix.clip.openclip import new_clip
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior
from condmix.diffusion.model import ConditionalModel
from condmix.diffusion.schedule import Schedule
from condmix.encoders import timm_image
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.encoders.t5_text import T5Text
from condmix.evaluation import features
from condmix.evaluation.features import ClipFeatures, Inception, TimmFeatures, fid_inception
from condmix.evaluation.judges import NETWORKS, Judge
from condmix.evaluation.probes import Probe
from condmix.sampling.sample import Sampling, sample
from condmix.settings.load import plugins
from condmix.stages import judge
from condmix.training.loop import Plan
from gpu_models import SIZE, B, conditions, make_trainer, network, on
from pretend_gpu import PretendGenerator, PretendGpu
from t5_helpers import save_tiny_t5, t5_settings
from tower_helpers import backbone_settings, save_tiny_backbone

# Where a step sends something to the GPU, and why it cannot lie there already. Nothing waits for the GPU.
SAMPLING = {
    "sampling.sample._embed.<dictcomp>": "the conditions of this batch of pictures",
    "diffusion.guidance._beside": "their masks and weights, and at each step the time",
    "samplers.__init__.SampleNoise.__call__": "noise is drawn on the CPU, so that a seed means one picture everywhere",
    "diffusion.schedule.Schedule._at": "the table of the schedule, once",
}
TRAINING = {
    "training.trainer.Trainer.batch": "the pictures of this batch",
    "data.packed.Packed.batch": "which of their perspectives are there",
    "data.packed.Packed.batch.<dictcomp>": "and their vectors",
    "diffusion.schedule.Schedule._at": "the table of the schedule, once",
}


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU, to be entered where it is needed."""
    # parameters of another device are new ones: those of the CPU can't become fake in place
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    monkeypatch.setattr(torch, "Generator", PretendGenerator)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    return PretendGpu()


def fill_gradients(monkeypatch, module: nn.Module) -> None:
    """Let .backward() leave gradients where their parameters lie, in the place of those that can't be computed.

    A table whose gradient is sparse gets none.
    """

    def backward(loss: Tensor) -> None:
        assert loss.device.type == "cuda" and loss.requires_grad
        for part in module.modules():
            for parameter in () if getattr(part, "sparse", False) else part.parameters(recurse=False):
                parameter.grad = torch.empty_like(parameter)

    monkeypatch.setattr(Tensor, "backward", backward)


# ---- the pretended GPU itself ----


def test_the_pretended_gpu_refuses_what_a_real_one_refuses_and_notes_what_waits(gpu):
    table, places = torch.arange(5.0), torch.zeros(2, dtype=torch.long)
    with gpu:
        there = places.to("cuda", non_blocking=True)
        assert there.device.type == "cuda" and not gpu.waits
        with pytest.raises(RuntimeError, match="indexed by one on the GPU"):
            table[there]
        with pytest.raises(RuntimeError, match="same device"):
            table.to("cuda", non_blocking=True) + table
        with pytest.raises(RuntimeError, match="waits for the GPU"):
            there[there > 0]
        for waiting in (lambda: table.to("cuda"), there.cpu, there.sum().item, lambda: bool((there > 0).any()),
                        lambda: there[[0, 1]], lambda: torch.tensor([1.0], device="cuda")):  # fmt: skip
            gpu.waits.clear()
            waiting()
            assert sum(gpu.waits.values()) == 1
        assert int(table[3]) == 3  # the CPU computes as ever


# ---- sampling ----


def draw(gpu, model: ConditionalModel, sampling: Sampling, negative: bool = False) -> None:
    """Draw pictures there, and see that no step waited and nothing was sent but what is meant to be."""
    vectors, mask = conditions()
    with gpu:
        model.eval().to("cuda", memory_format=torch.channels_last)
        gpu.waits.clear()
        pictures = sample(model, sampling, (vectors, mask), range(B), (vectors, mask.flip(0)) if negative else None)
    assert pictures.device.type == "cuda" and pictures.shape == (B, SIZE, SIZE, 3) and pictures.dtype == torch.uint8
    assert not gpu.waits and gpu.copies.keys() <= SAMPLING.keys()


@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_a_model_of_every_fusion_draws_on_the_gpu_without_waiting(gpu, fusion):
    draw(gpu, network(fusion), Sampling(Schedule("cosine"), "v", "dpmpp_2m", 2, 2.0))


@pytest.mark.parametrize("sampler", plugins("samplers"))
def test_every_samplers_steps_are_taken_there(gpu, sampler):
    draw(gpu, network("additive", multipliers=(1, 2)), Sampling(Schedule("linear"), "epsilon", sampler, 3, 2.0))


@pytest.mark.parametrize(
    ("guidance", "negative", "prediction"),
    [
        ({"guidance": 1.0}, False, "x0"),
        ({"guidance": 0.0}, True, "v"),
        ({"guidance": 2.0}, True, "epsilon"),
        ({"composed": True}, False, "v"),
        ({"composed": True}, True, "epsilon"),
        ({"weights": {"class": 2.0}}, False, "x0"),
        ({"interval": (0.2, 0.8)}, False, "v"),
        ({"interval": (0.2, 0.8), "composed": True}, True, "v"),
        ({"threshold": 0.995}, False, "v"),
        ({"spacing": "karras", "last_time": 0.02}, False, "epsilon"),
    ],
    ids=str,
)
def test_every_kind_of_guidance_is_computed_there(gpu, guidance, negative, prediction):
    sampling = Sampling(Schedule("linear"), prediction, "ddim", 2, **{"guidance": 3.0} | guidance)
    draw(gpu, network("attention"), sampling, negative)


# ---- training ----


@pytest.fixture
def trainer(project, monkeypatch):
    """Trainers of each fusion on a device, with everything that draws random numbers in a batch."""
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    return functools.partial(make_trainer, project)


@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_a_training_step_stays_on_the_gpu_and_does_not_wait(gpu, trainer, monkeypatch, fusion):
    with gpu:
        one = trainer(fusion, "cuda")
        fill_gradients(monkeypatch, one.model)
        one.network.train()
        gpu.waits.clear()
        gpu.copies.clear()
        loss, norm = one.advance(0)
        assert loss.device.type == norm.device.type == "cuda"
        moments = [state for optimizer in one.optimizers for state in optimizer.state.values()]
        assert {value.device.type for moment in moments for value in moment.values()} == {"cuda"}
        assert {value.device.type for value in one.average} == {"cuda"}
    assert not gpu.waits and gpu.copies.keys() <= TRAINING.keys()


@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_every_parameter_of_a_training_step_gets_its_gradient(trainer, monkeypatch, fusion):
    """The backward pass and the optimiser on "meta", a device that computes shapes only."""
    monkeypatch.setattr(torch, "Generator", PretendGenerator)
    one = trainer(fusion, "meta")
    value = one.backward(one.batch(0))
    assert value.device.type == "meta"
    for name, parameter in one.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
        assert parameter.grad.device.type == "meta", name
    torch.nn.utils.clip_grad_norm_(one.model.parameters(), 1.0)
    for optimizer in one.optimizers:
        optimizer.step()


def test_the_prior_trains_and_samples_there(gpu):
    prior = ShiftedPrior(Shape(dim=16, clusters=3, width=32, blocks=1))
    z_0, texts, noise = torch.randn(3, B, 16)
    kept, t = torch.tensor([True, False, True, True]), torch.randint(1000, (B,))
    with gpu:
        prior.to("cuda")
        gpu.waits.clear()
        loss = prior.loss(*(x.to("cuda", non_blocking=True) for x in (z_0, texts, kept, t, noise)))
        assert loss.device.type == "cuda"
        assert not gpu.waits
        assert prior.sample(texts, range(B), 3, 2.0).device.type == "cuda"


def test_the_judge_trains_there(gpu, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE, 3), dtype=np.uint8)
    targets = torch.randint(3, (16, 1))
    monkeypatch.setattr(judge, "device", lambda: torch.device("cuda"))
    with gpu:
        one = Judge("small_cnn", {"shape": ["round", "square", "long"]}, SIZE).to("cuda")
        fill_gradients(monkeypatch, one)
        gpu.waits.clear()
        order = judge.shuffled((targets >= 0).any(1), 8, torch.Generator())
        plan = Plan("judge", "judge.lr", 3, 1e-3, 0.1)
        judge.train_judge(one, plan, judge.drawn(images, targets, order, Tensor.contiguous))
    assert gpu.waits.keys() == {"training.losses.Losses.read"}


def test_the_clip_trains_there(gpu, monkeypatch):
    size = TINY["vision_cfg"]["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, size, size), dtype=np.uint8)
    images, waits = contrastive.Captioned(pixels, [["a dog", "red"]] * 16), []
    for steps in (1, 3):
        recipe = contrastive.Recipe(steps, batch_size=8, lr=1e-3, warmup=0.2, weight_decay=0.1, joined=0.5, flip=True)
        model, _, tokenizer = new_clip(TINY)
        with gpu:
            gpu.waits.clear()
            fill_gradients(monkeypatch, model)
            monkeypatch.setattr(model.visual, "to", lambda memory_format: None)  # pretended tensors have no layout
            contrastive.train_clip(on("cuda"), model, tokenizer, images, recipe, seed=0)
        assert gpu.waits.pop("training.losses.Losses.read") > 0
        waits.append(dict(gpu.waits))
    assert waits[0] == waits[1]  # all of them before the first step


# ---- looking at pictures ----


@pytest.mark.parametrize("name", NETWORKS)
def test_judges_look_there(gpu, name):
    images = torch.randint(256, (B, 32, 32, 3), dtype=torch.uint8)
    with gpu:
        one = Judge(name, {"shape": ["round", "square"], "size": ["small", "large"]}, 32).to("cuda").eval()
        gpu.waits.clear()
        for given in (images, images.to("cuda", non_blocking=True)):
            assert {logits.device.type for logits in one(given).values()} == {"cuda"}
        assert one.features(images).shape == (B, one.network.width)
    assert not gpu.waits


def test_clips_towers_look_there(gpu, tmp_path, monkeypatch):
    save_tiny_clip(tmp_path)
    monkeypatch.setattr("condmix.clip.folder.check_finite", lambda *_: None)  # fake weights have no values
    images = torch.randint(256, (B, 20, 20, 3), dtype=torch.uint8)
    with gpu:
        vectors = [
            ClipFeatures(tmp_path, "cuda")(images),
            ClipImage.open(tmp_path, (), "cuda").encode(images.numpy()),
            ClipText.open(tmp_path, (), "cuda").encode(["red", "a red dog on a log"] * 2),
        ]
        assert {one.device.type for one in vectors} == {"cuda"} and {len(one) for one in vectors} == {B}


def test_networks_of_timm_and_the_probe_over_one_look_there(gpu, tmp_path, monkeypatch):
    def opened(model, path, device):  # that it changes the layout of weights that are there already is too much
        return open_backbone(model, path, "cpu").to(device)

    for module in (backbone, timm_image):
        monkeypatch.setattr(module, "open_backbone", opened)
    save_tiny_backbone(tmp_path / "weights.safetensors")
    settings = backbone_settings(tmp_path / "weights.safetensors")
    images = torch.randint(256, (B, 20, 20, 3), dtype=torch.uint8)
    with gpu:
        network = TimmFeatures("tiny", settings, "cuda")
        probe = Probe({"shape": ["round", "square"], "size": ["small", "large"]}, network(images).shape[1])
        probe.network = network
        probe.to("cuda")
        assert {logits.device.type for logits in probe(images).values()} == {"cuda"}
        assert timm_image.TimmImage("tiny", settings, "cuda").encode(images.numpy()).device.type == "cuda"


def test_a_text_encoder_of_transformers_reads_there(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(Tensor, "isfinite", lambda x: torch.ones((), dtype=torch.bool))  # fake vectors are nothing
    save_tiny_t5(tmp_path)
    with gpu:
        encoder = T5Text(tmp_path, None, t5_settings(tmp_path), "cuda")
        vectors = encoder.encode(["red", "a red dog on a log"] * 2)
        assert vectors.device.type == "cuda" and vectors.shape == (B, encoder.dim)


def test_inception_looks_there(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_sha256", lambda path: features.INCEPTION_SHA256)
    monkeypatch.setattr(torch, "load", lambda *_, **__: fid_inception().state_dict())
    with gpu:
        inception = Inception(tmp_path, "cuda")
        gpu.waits.clear()
        found = inception(torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8))
        assert found.device.type == "cuda" and found.shape == (2, 2048)
