"""Training: a killed run ends with the weights of one that was not, and what goes wrong is said and loses nothing."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from safetensors.torch import load_file, save_file

from condmix import CondmixError, pipeline
from condmix.diffusion.model import load_model, read_card
from condmix.runtime import native
from condmix.settings.load import load
from condmix.stages.train import preview, run
from condmix.tracking import runs
from condmix.training.batches import batch_indices, draw_times, drop_sources, to_model
from condmix.training.checkpoint import Checkpoint
from condmix.training.trainer import Trainer
from servers import free_port
from tiny_project import train_to, write_packed, write_packed_card
from what_counts import files, listed, settings, source_files

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def untracked(monkeypatch):
    monkeypatch.setenv("CONDMIX_TRACKING", "off")


def state(folder: Path) -> dict[str, torch.Tensor]:
    """The one checkpoint in a project: weights, average and optimiser."""
    (path,) = (folder / ".checkpoints").glob("*/state.safetensors")
    return load_file(path)


def change(project, **train):
    """The project's parameters with other training settings."""
    return project.model_copy(update={"train": project.train.model_copy(update=train)})


def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(project, untracked, forked, capsys):
    project = change(project, checkpoint_seconds=0)
    run(project, "experiment")
    expected, weights = state(project.root), load_file(project.root / "models/experiment/model.safetensors")
    (checkpoint,) = (project.root / ".checkpoints").glob("*/state.safetensors")
    checkpoint.unlink()

    for last in (3, 7):  # twice, at steps that no log or epoch ends on
        reached = forked.context.Event()
        process = forked.start(train_to, project, last, reached)
        assert reached.wait(300)
        process.kill()
        process.join()
        assert checkpoint.exists()
    capsys.readouterr()
    run(project, "experiment")
    assert "resumes at step 7 of 12" in capsys.readouterr().err

    resumed = state(project.root)
    assert resumed.keys() == expected.keys()
    assert {name.split(".")[0] for name in resumed} == {"model", "average", "optimizer"}
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    for name, tensor in load_file(project.root / "models/experiment/model.safetensors").items():
        assert torch.equal(weights[name], tensor), name


def test_two_processes_train_like_one(project, untracked, forked):
    """Every random number belongs to the batch, not to a process: only the rounding of sums may differ.

    Those of a launcher find its variables (a real launcher: tests/project/test_dvc.py), and here have micro-batches,
    whose gradients are exchanged once.
    """
    from condmix.stages import train

    no_dropout = project.model_copy(update={"model": project.model.model_copy(update={"dropout": 0.0})})
    folder = project.paths.model("experiment")
    run(no_dropout, "experiment")
    one = load_file(folder / "model.safetensors")

    def ours():
        train.main(change(no_dropout, processes=2), "experiment")

    def launched():
        group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        params = change(no_dropout, micro_batch=3)
        members = [
            forked.start(train.main, params, "experiment", **group, RANK=rank, LOCAL_RANK=rank) for rank in range(2)
        ]
        for member in members:
            member.join()
            assert member.exitcode == 0

    for start in (ours, launched):
        shutil.rmtree(folder)
        start()
        for name, tensor in load_file(folder / "model.safetensors").items():
            torch.testing.assert_close(tensor, one[name], atol=2e-4, rtol=1e-3)
        assert read_card(folder)["processes"] == 2


def test_a_compiled_network_trains_like_the_plain_one(project, untracked, monkeypatch):
    compiled = torch.compile  # inductor would take minutes to say the same
    # A compiled network's dropout chooses other values.
    project = project.model_copy(update={"model": project.model.model_copy(update={"dropout": 0.0})})
    monkeypatch.setattr(torch, "compile", lambda network: compiled(network, backend="eager"))
    weights = project.paths.model("experiment") / "model.safetensors"
    run(project, "experiment")
    plain = load_file(weights)
    run(change(project, compile=True), "experiment")
    assert plain.keys() == load_file(weights).keys()
    for name, value in load_file(weights).items():
        torch.testing.assert_close(value, plain[name], atol=1e-5, rtol=1e-4)


def test_auto_is_the_arithmetic_of_the_hardware_and_weights_stay_in_fp32(project, untracked, arithmetic):
    """One process trains in several precisions one after the other, whatever came before."""
    weights = project.paths.model("experiment") / "model.safetensors"
    trained, losses = {}, {}
    for precision in ("fp32", "bf16", "auto"):
        run(change(project, precision=precision), "experiment")
        trained[precision] = load_file(weights)
        losses[precision] = read_card(weights.parent)["final_loss"]
        assert {value.dtype for value in trained[precision].values()} == {torch.float32}

    def same(one: str, other: str) -> bool:
        return all(torch.equal(value, trained[other][name]) for name, value in trained[one].items())

    assert same("auto", arithmetic) and not same("fp32", "bf16")
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.1)


@pytest.mark.parametrize("left", ["no", "bf16"])
def test_training_minds_no_precision_that_accelerate_was_asked_for(project, untracked, left):
    """A notebook's own Accelerator, or another library's, fixes Accelerate's precision for the whole process."""
    run(project, "experiment")
    expected = load_file(project.paths.model("experiment") / "model.safetensors")
    Accelerator(cpu=True, mixed_precision=left)
    (checkpoint,) = (project.root / ".checkpoints").glob("*/state.safetensors")
    checkpoint.unlink()
    run(project, "experiment")
    for name, value in load_file(project.paths.model("experiment") / "model.safetensors").items():
        assert torch.equal(value, expected[name]), name


def test_a_run_that_stopped_ends_with_the_same_weights_in_either_arithmetic(
    project, untracked, arithmetic, monkeypatch
):
    project = change(project, precision="auto", checkpoint_seconds=0)
    run(project, "experiment")
    expected = state(project.root)
    (checkpoint,) = (project.root / ".checkpoints").glob("*/state.safetensors")
    checkpoint.unlink()
    advance = Trainer.advance

    def stopped(self, step):
        if step == 7:
            raise KeyboardInterrupt
        return advance(self, step)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "advance", stopped)
        run(project, "experiment")
    run(project, "experiment")
    for name, tensor in state(project.root).items():
        assert torch.equal(tensor, expected[name]), name


def test_micro_batches_leave_the_same_gradient(project, untracked):
    project = project.model_copy(update={"model": project.model.model_copy(update={"dropout": 0.0})})
    whole, split = make(project), make(change(project, micro_batch=5))
    assert project.train.batch_size % 5  # the last part is smaller
    values = [trainer.backward(trainer.batch(0)) for trainer in (whole, split)]
    torch.testing.assert_close(values[1], values[0])
    for one, other in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_a_caption_of_several_is_drawn_anew_in_every_step(project, untracked):
    folder = project.paths.packed("experiment")
    card = json.loads((folder / "variant.json").read_text())
    card["perspectives"] = [{"name": name, "dim": 16} for name in ("caption_any", "caption_any_2")]
    captions = torch.arange(1.0, 6.0)[None, :, None].expand(48, 5, 16)  # caption k holds nothing but k
    train = {"caption_any": captions.half().contiguous(), "caption_any.present": torch.ones(48, 5, dtype=torch.bool)}
    save_file(train, folder / "train.safetensors")
    write_packed_card(folder, card)
    trainer = Trainer(project, "experiment", PartialState(cpu=True))
    batches = [trainer.batch(step)[1] for step in range(100)]
    one, other = (torch.cat([batch[name][:, 0] for batch in batches]) for name in ("caption_any", "caption_any_2"))
    for drawn in (one, other):
        counts = torch.stack([(drawn == k).sum() for k in range(1, 6)])
        assert counts.sum() == 800 and (counts - 160).abs().max() < 60
    assert not (one == other).any()
    assert torch.equal(trainer.batch(3)[1]["caption_any_2"], batches[3]["caption_any_2"])


def test_the_card_rebuilds_the_model(project, untracked):
    run(project, "experiment")
    model, card = load_model(project.root / "models/experiment")
    assert card["perspectives"] == "caption_1+class" and card["fusion"] == "concat"
    assert card["images_seen"] == 96 and card["class_names"] == ["round", "square", "long"]
    assert not model.training
    curve = (project.root / "metrics/losses/experiment.csv").read_text().splitlines()
    assert curve[0] == "images,loss,gradient_norm,lr" and len(curve) == 1 + 3


def test_the_optimiser_equals_the_plain_one_on_channels_last_weights(project, untracked):
    """fused AdamW on CPU does not: it ignores that a gradient's strides differ from its parameter's."""
    trainer = make(change(project, optimizer="adamw"))
    plain = [p.detach().clone().contiguous() for p in trainer.model.parameters()]
    reference = torch.optim.AdamW(plain, lr=project.train.lr, betas=(0.9, 0.99), weight_decay=0.0, foreach=False)
    for step in range(4):
        trainer.step = step
        trainer.optimizers[0].zero_grad = lambda set_to_none: None  # leave the gradients for a look
        trainer.advance(step)
        reference.param_groups[0]["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for parameter, copy in zip(trainer.model.parameters(), plain, strict=True):
            copy.grad = parameter.grad.clone().contiguous()
            parameter.grad = None
        reference.step()
        for parameter, copy in zip(trainer.model.parameters(), plain, strict=True):
            torch.testing.assert_close(parameter.detach().contiguous(), copy, rtol=1e-5, atol=1e-7)


def test_the_average_is_the_exponential_one(project, untracked):
    trainer = make(change(project, ema=0.9))
    expected = [p.detach().clone() for p in trainer.model.parameters()]
    for step in range(5):
        trainer.advance(step)
        decay = min(0.9, (2 + step) / (11 + step))
        for mean, parameter in zip(expected, trainer.model.parameters(), strict=True):
            mean.mul_(decay).add_(parameter.detach(), alpha=1 - decay)
    for mean, average in zip(expected, trainer.average, strict=True):
        torch.testing.assert_close(average, mean)
        assert not average.requires_grad


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(project, untracked):
    with pytest.raises(CondmixError, match=r"loss is (nan|inf).*lower train.lr \(1e\+30\)") as error:
        run(change(project, lr=1e30, log_every=1, warmup=0.0, clip_norm=1e30, checkpoint_seconds=0), "experiment")
    assert "\n" not in str(error.value)
    assert all(torch.isfinite(tensor).all() for tensor in state(project.root).values())
    assert "is kept in" in str(error.value)
    assert not (project.root / "models/experiment/model.safetensors").exists()


def test_another_runs_state_is_not_resumed(project, untracked):
    run(project, "experiment")
    first = make(project)
    assert first.checkpoint.path.exists()
    for other in (change(project, lr=2e-3), project.model_copy(update={"seed": 1})):
        assert not make(other).checkpoint.path.exists()


def test_the_key_of_a_training_changes_with_each_file_setting_and_input_of_it_alone(project, untracked, monkeypatch):
    """Or the finished state of another training would be written out as this one's model."""
    monkeypatch.setattr(pipeline, "read", functools.cache(pipeline.read))  # not dvc.yaml again for each setting
    trainer = make(pipeline.view(project, "train"))

    def key_of(params) -> str:
        trainer.params = pipeline.view(params, "train")
        return trainer._key()

    without_effect = {"guidance", "train.checkpoint_seconds", "train.log_every"}
    resolved_first = {"train.precision", "train.processes"}  # test_another_machine_trains_from_the_start
    declared = pipeline.declared("train", project.root)
    for name, counts in settings(key_of, project):
        part = any(f"{name}.".startswith(f"{one}.") for one in declared)
        assert counts == (part and name not in without_effect | resolved_first), name

    trainer.params = project
    inputs = {*project.paths.dataset.iterdir(), *project.paths.packed("experiment").iterdir()}
    others = {*project.paths.packed("class_v1").iterdir(), project.root / "dvc.yaml"}
    assert files(trainer._key, inputs | others) == inputs
    assert source_files(trainer._key, monkeypatch) == listed("train") | {"fusions/__init__.py", "fusions/concat.py"}


def test_a_full_disk_keeps_the_last_state(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, "key")
    with checkpoint.lock():
        checkpoint.save({"a": torch.ones(3)}, {"step": 1})

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("condmix.files.atomic.os.fsync", full)
        with pytest.raises(CondmixError, match="No space left.*goes on from the previous"):
            checkpoint.save({"a": torch.zeros(3)}, {"step": 2})
    tensors, note = checkpoint.load()
    assert note == {"step": 1} and torch.equal(tensors["a"], torch.ones(3))
    assert list(checkpoint.folder.glob("*.part")) == []


def test_batches_visit_every_picture_once_an_epoch():
    drawn = torch.cat([batch_indices(seed=3, step=step, batch_size=4, count=10) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_dropping_is_certain_at_0_and_1():
    mask = torch.rand(1000, 3, generator=generator()) < 0.7
    assert torch.equal(drop_sources(mask, 0, 0, generator()), mask)
    assert not drop_sources(mask, 1, 0, generator()).any()
    assert not drop_sources(mask, 0, 1, generator()).any()


def test_what_is_absent_stays_absent_and_the_given_mask_is_kept():
    mask = torch.rand(1000, 3, generator=generator()) < 0.5
    before = mask.clone()
    kept = drop_sources(mask, 0.1, 0.3, generator())
    assert not (kept & ~mask).any()
    assert torch.equal(mask, before)


def test_dropping_follows_the_generator_and_draws_by_shape_alone():
    mask = torch.ones(64, 3, dtype=torch.bool)
    one, other = generator(1), generator(1)
    assert torch.equal(drop_sources(mask, 0.2, 0.2, one), drop_sources(mask, 0.2, 0.2, other))
    drop_sources(mask, 0.0, 0.0, one)
    drop_sources(~mask, 0.9, 0.9, other)
    assert torch.equal(one.get_state(), other.get_state())


def test_sources_drop_as_often_as_they_should():
    n, p_uncond, p_source = 100_000, 0.15, 0.3
    kept = drop_sources(torch.ones(n, 2, dtype=torch.bool), p_uncond, p_source, generator())
    both, first, second = kept.all(1), kept[:, 0] & ~kept[:, 1], kept[:, 1] & ~kept[:, 0]
    shares = torch.stack([both, first, second, ~kept.any(1)]).double().mean(1)
    stay = 1 - p_uncond
    expected = [stay * 0.7**2, stay * 0.7 * 0.3, stay * 0.3 * 0.7, p_uncond + stay * 0.3**2]
    torch.testing.assert_close(shares, torch.tensor(expected).double(), atol=0.006, rtol=0)


def test_times_are_spread_over_their_distribution():
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([draw_times(8, 1000, None, generator) for _ in range(400)])
    assert batches.min() >= 0 and batches.max() <= 999
    assert ((batches // 125).sort(dim=1).values == torch.arange(8)).all()  # one in each eighth
    assert abs(batches[:, 0].float().mean() - 62) < 8  # and uniform within it: sd 36 / sqrt(400)

    mean, sd = 0.8, 1.3
    times = torch.cat([draw_times(8, 10_000, (mean, sd), generator) for _ in range(2000)])
    logits = torch.logit((times + 0.5) / 10_000)
    assert abs(logits.mean() - mean) < 0.01 and abs(logits.std() - sd) < 0.01
    within = (times < 10_000 * torch.tensor(mean).sigmoid()).float().mean()
    assert abs(within - 0.5) < 0.005  # the median of a logit-normal is sigmoid(mean)


def test_other_seeds_draw_other_numbers(project, untracked):
    """Torch's CPU generator reads 32 bits of a seed: seeds that differ above them would train in step."""
    runs = [make(project.model_copy(update={"seed": seed})) for seed in (0, 1, 2, 2**32)]
    noises = [run.batch(step)[4] for run in runs for step in (0, 1)]
    for i, one in enumerate(noises):
        assert not any(torch.equal(one, other) for other in noises[:i])


def test_a_preview_takes_no_more_steps_than_there_are_times(project):
    diffusion = project.diffusion.model_copy(update={"steps": 5})
    trainer = Trainer(project.model_copy(update={"diffusion": diffusion}), "experiment", Accelerator(cpu=True))
    assert preview(trainer).shape[2] == 3


def test_a_model_holds_what_was_subtracted_from_its_vectors(project, untracked):
    folder, centre = project.paths.packed("experiment"), torch.linspace(-1, 1, 16)
    for split in ("train", "test"):
        path = folder / f"{split}.safetensors"
        save_file(load_file(path) | {"caption_1.centre": centre}, path)
    card = json.loads((folder / "variant.json").read_text())
    write_packed_card(folder, card | {"centres": {"caption_1": 16}})
    run(project, "experiment")
    model, card = load_model(project.paths.model("experiment"))
    assert torch.equal(model.centres.caption_1, centre)
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_pictures_enter_in_minus_one_to_one():
    images = torch.tensor([[[[0, 127, 255]]]], dtype=torch.uint8)
    assert to_model(images).flatten().tolist() == pytest.approx([-1, -1 / 255, 1], abs=1e-6)


def test_packed_rows_that_are_not_the_pictures_are_refused(project, untracked):
    write_packed(project.paths.packed("caption"), "caption", "additive", ["caption_1"], train=40)
    with pytest.raises(CondmixError, match="48 training pictures, but the packed perspectives are of 40"):
        run(project, "caption")


def test_a_batch_that_cannot_be_shared_is_refused(project, untracked, forked):
    from condmix.stages import train

    with pytest.raises(CondmixError, match="train.batch_size 8 does not divide into 3"):
        train.main(change(project, processes=3), "experiment")


def make(params) -> Trainer:
    return Trainer(params, "experiment", PartialState(cpu=True))


def test_params_come_from_the_project(project):
    assert load(project.root) == project


def test_another_machine_trains_from_the_start(project, untracked, monkeypatch):
    """What rounds differently is another run: its state would end as weights that no machine can make again."""

    def key(precision="fp32"):
        return make(change(project, precision=precision)).checkpoint.path

    keys = [key(), key("bf16")]
    torch.set_num_threads(2)  # `one_thread` sets it back
    keys.append(key())
    for target, name, value in [
        (torch, "__version__", "99.0.0"),
        (native, "kernels", lambda: "others"),
        (runs, "cpu_model", lambda: "another processor"),
        (torch.backends.cpu, "get_cpu_capability", lambda: "other instructions"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            keys.append(key())
    assert len(set(keys)) == len(keys) == 7
