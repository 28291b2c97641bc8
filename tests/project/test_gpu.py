"""What only a real GPU can show: bf16 autocast, its kernels' numbers, gradients, training, no hidden wait.

`pytest -m gpu --override-ini addopts=--import-mode=importlib tests/project/test_gpu.py` on a machine with one.
"""

import copy
import functools

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clip_helpers import TINY, save_tiny_clip
from condmix.clip import contrastive
from condmix.clip.openclip import new_clip
from condmix.diffusion.schedule import Schedule
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.evaluation.judges import NETWORKS, Judge
from condmix.sampling.sample import Sampling, sample
from condmix.settings.load import plugins
from condmix.stages.train import run
from condmix.tracking.runs import Run
from gpu_models import SIZE, B, conditions, make_trainer, network, on

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """fp32 means fp32: TF32, the default of convolutions, has 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setenv("CONDMIX_TRACKING", "off")


@pytest.fixture
def no_waits():
    """Until the test ends, a host that waits for the GPU is an error."""
    yield functools.partial(torch.cuda.set_sync_debug_mode, "error")
    torch.cuda.set_sync_debug_mode("default")


def apart(one: Tensor, other: Tensor) -> float:
    """Relative distance in float64."""
    one, other = one.detach().double().cpu(), other.detach().double().cpu()
    return float((one - other).norm() / other.norm())


def random_network(fusion: str, seed: int = 0) -> nn.Module:
    """In evaluation mode, with weights that nothing starts as: new ones predict zero."""
    torch.manual_seed(seed)
    model = network(fusion, (1, 2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.mark.parametrize(("bf16", "allowed"), [(False, 1e-4), (True, 3e-2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_predictions_and_gradients_are_those_of_the_cpu(fusion, bf16, allowed):
    found = {}
    vectors, mask = conditions()
    x_t, t, wanted = torch.randn(B, 3, SIZE, SIZE), torch.tensor([0, 10, 500, 999]), torch.randn(B, 3, SIZE, SIZE)
    for device in ("cpu", "cuda"):
        model = random_network(fusion).to(device, memory_format=torch.channels_last)
        there = {name: rows.to(device) for name, rows in vectors.items()}
        with torch.autocast(device, torch.bfloat16, enabled=bf16 and device == "cuda"):
            output = model(x_t.to(device), t.to(device), there, mask.to(device)).float()
        (output - wanted.to(device)).square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[device] = output, torch.cat(gradients)
    for there, here in zip(found["cuda"], found["cpu"], strict=True):
        assert apart(there, here) < allowed


@pytest.mark.parametrize(
    "guidance",
    [{}, {"composed": True}, {"weights": {"class": 2.0}}, {"interval": (0.2, 0.8), "composed": True}],
    ids=str,
)
@pytest.mark.parametrize("sampler", plugins("samplers"))
def test_pictures_are_those_of_the_cpu(sampler, guidance, no_waits):
    sampling = Sampling(Schedule("cosine"), "v", sampler, 5, **{"guidance": 2.0} | guidance)
    vectors, mask = conditions()
    model = random_network("gated")
    there = copy.deepcopy(model).to("cuda", memory_format=torch.channels_last)
    away = vectors, mask.flip(0)
    here = sample(model, sampling, (vectors, mask), range(B), away)
    sample(there, sampling, (vectors, mask), range(B), away)  # the schedule's table is sent once
    no_waits()
    pictures = sample(there, sampling, (vectors, mask), range(B), away)
    torch.cuda.set_sync_debug_mode("default")
    difference = (pictures.cpu().int() - here.int()).abs()
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.05


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", plugins("fusions"))
def test_a_training_step_does_not_wait(project, fusion, precision, no_waits):
    trainer = make_trainer(project, fusion, "cuda", precision=precision)
    trainer.network.train()
    trainer.advance(0)  # buffers and kernels
    no_waits()
    values = [trainer.advance(step) for step in (1, 2, 3)]
    torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(loss) and torch.isfinite(norm) for loss, norm in values)


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(project, compile):
    def trained(stop_at: int | None) -> dict[str, Tensor]:
        trainer = make_trainer(project, "concat", "cuda", precision="bf16", compile=compile, images=64)
        if stop_at is not None:
            trainer.network.train()
            for step in range(stop_at):
                loss, norm = trainer.advance(step)
                trainer.rows.append([float(step), float(loss), float(norm), 0.0])
            trainer.seconds = 1.0
            trainer.save()
            trainer = make_trainer(project, "concat", "cuda", precision="bf16", compile=compile, images=64)
            trainer.resume()
            assert trainer.step == stop_at
        trainer.fit(Run())
        weights = {name: value.cpu() for name, value in trainer.averaged().items()}
        trainer.checkpoint.path.unlink()
        return weights

    whole, resumed = trained(None), trained(3)
    exact = all(torch.equal(value, resumed[name]) for name, value in whole.items())
    print(f"compile={compile}: a resumed run is {'' if exact else 'not '}bit-identical")
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-2, atol=1e-4)


def test_the_stage_trains_there(project):
    """From its settings to its files: with a GPU, the stage takes it."""
    run(project, "experiment")
    weights = load_file(project.paths.model("experiment") / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_judges_see_what_they_see_on_the_cpu(name):
    torch.manual_seed(0)
    judge = Judge(name, {"shape": ["round", "square"], "size": ["small", "large"]}, 32).eval()
    images = torch.randint(256, (16, 32, 32, 3), dtype=torch.uint8)
    here, features = judge(images), judge.features(images)
    judge.to("cuda")
    there = judge(images)
    assert all(apart(there[name], logits) < 1e-3 for name, logits in here.items())
    assert apart(judge.features(images), features) < 1e-3


def test_the_clip_trains_there_and_its_towers_see_what_they_see_on_the_cpu(tmp_path):
    size = TINY["vision_cfg"]["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, size, size), dtype=np.uint8)
    images, losses = contrastive.Captioned(pixels, [["a dog", "red"]] * 16), {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model, _, tokenizer = new_clip(TINY)
        recipe = contrastive.Recipe(5, batch_size=8, lr=1e-3, warmup=0.2, weight_decay=0.1, joined=0.5, flip=True)
        losses[device] = contrastive.train_clip(on(device), model, tokenizer, images, recipe, seed=0)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
    save_tiny_clip(tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (B, 20, 20, 3), dtype=np.uint8)
    for tower, given in ((ClipImage, images), (ClipText, ["red", "a red dog on a log"] * 2)):
        here, there = (tower.open(tmp_path, (), device).encode(given) for device in ("cpu", "cuda"))
        assert apart(there, here) < 1e-3
