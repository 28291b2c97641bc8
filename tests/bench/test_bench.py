"""The benchmark measures what it says: equal work, by turns, under conditions that it writes down. Nothing is timed."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner

from condmix import CondmixError
from condmix.bench import gemm, peers, pictures, record, sampling, training
from condmix.bench.loss import HELD_OUT, held_out_loss, train_on
from condmix.bench.ours import condition, learner
from condmix.bench.pictures import Batch
from condmix.bench.probe import _main as run_probe
from condmix.bench.probe import flop_per_picture, measure
from condmix.bench.recipe import Learner, TrainingRecipe
from condmix.bench.sampling import Sampler, SamplingBenchmark
from condmix.bench.setting import BENCHMARKS, SIZES, NetworkSize, Setting
from condmix.bench.timing import Rounds, interleave, ratio, spread
from condmix.bench.training import TECHNIQUES, TrainingBenchmark, contenders
from condmix.cli import main
from condmix.diffusion.schedule import Schedule

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = NetworkSize(32, (1, 2), 1, (4,), dropout=0.0, peer_dim=32, image_size=8)
RECIPE = TrainingRecipe(bf16=False, compile=False)
PEERS = {"diffusers": "diffusers", "lucidrains": "denoising_diffusion_pytorch"}


@pytest.fixture
def tiny(monkeypatch) -> Setting:
    """A setting of the smallest network and pictures of 8x8, on the CPU."""
    monkeypatch.setitem(SIZES, "tiny", TINY)
    monkeypatch.setattr(pictures, "scenes", lambda split, first, count: noise_pictures(first, count))
    return Setting("train", "tiny", 4, "cpu", bf16=False, compile=False)


def noise_pictures(first: int, count: int):
    generator = torch.Generator().manual_seed(first)
    return torch.randint(256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8).numpy()


def batch(count: int = 3, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x_0, noise = (torch.randn(count, 3, 8, 8, generator=generator) for _ in range(2))
    return Batch(x_0, torch.randint(1000, (count,), generator=generator), noise)


def randomise(network: torch.nn.Module) -> None:
    """Give every weight, the zeros that a network begins with too, a value that matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            values = torch.randn(parameter.shape, generator=generator)  # in one order, whatever the layout
            parameter.copy_(values * max(parameter[0].numel(), 10) ** -0.5)


class FakeClock:
    """A clock that only work moves."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float):
        taken = iter(seconds)

        def one(given: int) -> None:
            self.calls.append((name, given))
            self.now += next(taken)

        return one


def test_contenders_take_turns_on_the_same_inputs_and_the_warm_up_is_left_out():
    clock = FakeClock()
    work = {"a": clock.work("a", 9, 1, 2), "b": clock.work("b", 9, 4, 4)}
    seconds = interleave(work, lambda number: 10 * number, Rounds(2), clock=clock)
    assert clock.calls == [(name, given) for given in (0, 10, 20) for name in "ab"]
    assert seconds == {"a": [1, 2], "b": [4, 4]}


def test_making_the_input_is_not_timed():
    clock = FakeClock()

    def draw(number: int) -> int:
        clock.now += 100
        return number

    assert interleave({"a": clock.work("a", 1, 1, 1)}, draw, Rounds(2), clock=clock) == {"a": [1, 1]}


@pytest.mark.parametrize(("budget", "rounds"), [(1, 1), (10, 1), (11, 2), (1000, 4)])
def test_a_spent_budget_ends_the_rounds_but_never_inside_one(budget, rounds):
    """The warm-up, a hundred times as long as a round, costs none of it."""
    clock = FakeClock()
    work = {name: clock.work(name, 500, *[5] * 4) for name in "ab"}
    seconds = interleave(work, int, Rounds(4, budget=budget), clock=clock)
    assert [len(taken) for taken in seconds.values()] == [rounds, rounds]


def test_ratios_compare_within_a_round():
    """The machine slows down to a tenth; the contender takes twice as long as ours all the same."""
    ours, other = [1.0, 1.0, 10.0, 10.0, 10.0], [2.0, 2.0, 20.0, 20.0, 20.0]
    assert ratio(other, ours) == 2.0 and ratio(ours, ours) == 1.0


def test_the_spread_is_the_interquartile_range_over_the_median():
    assert spread([1, 2, 3, 4, 5]) == pytest.approx((4 - 2) / 3)
    assert spread([3.0]) == 0.0


def test_the_record_follows_from_the_seconds():
    setting = Setting("train", "quick", 64, "cpu", bf16=False, compile=False)
    per_second = gemm.flops("cpu") / 2.0  # the products take 2 s
    probe = {"parameters": 7, "flop_per_picture": per_second / 64, "peak_mib": 5}
    content = record.evaluate(
        setting,
        "ours",
        {
            "ours": record.Measured("fp32", [2.0, 2.0, 8.0], probe),
            "peer": record.Measured("fp32", [4.0, 3.0, 16.0], held_out_loss=0.5),
        },
        products={"fp32": [2.0, 1.0, 3.0]},
    )
    ours, peer = content["contenders"].values()
    assert ours["median_seconds"] == 2.0 and ours["pictures_per_second"] == 32.0 and ours["times_baseline"] == 1.0
    assert ours["flop_per_second"] == pytest.approx(per_second / 2) and ours["share_of_gemm"] == pytest.approx(0.5)
    assert peer["times_baseline"] == 2.0 and peer["held_out_loss"] == 0.5
    assert "share_of_gemm" not in peer and "held_out_loss" not in ours
    assert content["gemm"]["fp32"]["flop_per_second"] == pytest.approx(per_second)


def test_without_the_baseline_there_is_no_ratio():
    setting = Setting("train", "quick", 64, "cpu", bf16=False, compile=False)
    content = record.evaluate(setting, "ours", {"peer": record.Measured("fp32", [1.0])}, {"fp32": [1.0]})
    assert content["contenders"]["peer"]["times_baseline"] is None


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", PEERS)
def test_peers_have_as_many_parameters_as_ours(peer, size):
    pytest.importorskip(PEERS[peer])
    TrainingBenchmark(Setting("train", size, 1, "cpu", bf16=False, compile=False)).check([peer, f"{peer}+recipe"])


def test_a_contender_of_another_size_is_refused(tiny, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(peers, "diffusers_network", lambda size: torch.nn.Linear(1000, 300))
    with pytest.raises(CondmixError, match=r"diffusers has 300,300 parameters and ours .* more than 3% apart"):
        TrainingBenchmark(tiny).check(["ours", "diffusers"])


def test_the_sizes_are_those_of_the_profile_and_the_literature():
    conf = yaml.safe_load((Path(__file__).parents[2] / "conf" / "cifar10.yaml").read_text())
    size, model = SIZES["36m"], conf["model"]
    assert not any(model.pop(name) for name in ("position_map", "scale_shift", "match_parameters"))
    assert {name: getattr(size, name) for name in model} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in model.items()
    }
    assert size.image_size == conf["data"]["image_size"]
    assert {name: getattr(RECIPE, name) for name in ("lr", "weight_decay", "clip_norm", "ema")} == {
        name: conf["train"][name] for name in ("lr", "weight_decay", "clip_norm", "ema")
    }
    assert (conf["diffusion"]["schedule"], conf["diffusion"]["prediction"]) == ("cosine", "v")
    assert conf["train"]["logit_normal_times"] is None  # uniform
    for name, millions in (("quick", 1.0), ("9m", 8.95), ("36m", 35.75)):
        setting = Setting("train", name, 1, "cpu", bf16=False, compile=False)
        assert TrainingBenchmark(setting).parameters("ours") / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_technique_changes_the_time_and_not_what_is_learnt(technique, monkeypatch):
    """The same loss and gradients, and from those the same weights and average, up to rounding."""
    eager = torch.compile  # inductor would take half a minute to say the same
    monkeypatch.setattr(torch, "compile", lambda network: eager(network, backend="eager"))
    everything = replace(RECIPE, **{technique: True})
    made = []
    for recipe in (everything, everything.without(technique)):
        torch.manual_seed(0)
        made.append(learner(TINY, recipe, "cpu"))
        randomise(made[-1].network)
    with_it, without = made
    assert with_it.recipe != without.recipe
    loose = {"rtol": 0.1, "atol": 0.03} if technique == "bf16" else {"rtol": 1e-3, "atol": 1e-5}

    torch.testing.assert_close(with_it.backward(batch()), without.backward(batch()), **loose)
    gradients = [parameter.grad for parameter in with_it.network.parameters()]
    for one, parameter in zip(gradients, without.network.parameters(), strict=True):
        scale = one.abs().max().clamp(min=1e-12)  # the null of a view that is always there has no gradient
        torch.testing.assert_close(one / scale, parameter.grad / scale, **loose)

    # from the same gradients, since Adam would turn the rounding of those near zero into whole steps
    for _ in range(3):
        for contender in made:
            for parameter, gradient in zip(contender.network.parameters(), gradients, strict=True):
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
            contender.update()
    for one, other in zip(with_it.network.parameters(), without.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    for one, other in zip(with_it.average, without.average, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_techniques_are_really_on_and_off():
    """What the names promise, seen from outside: layouts, the optimiser's switch, the modules."""
    plain = RECIPE
    for technique in ("channels_last", "foreach_optimiser", "foreach_ema", "fused_norm", "fused_upsample"):
        plain = plain.without(technique)
    ours, bare = learner(TINY, RECIPE, "cpu"), learner(TINY, plain, "cpu")
    kernel, bare_kernel = ours.network.unet.middle[0].conv1.weight, bare.network.unet.middle[0].conv1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    assert bare_kernel.is_contiguous()
    assert (ours.optimizer.defaults["foreach"], bare.optimizer.defaults["foreach"]) == (True, False)
    for slow in ("NearestThenConvolution", "PlainNormSilu"):
        assert slow in repr(bare.network) and slow not in repr(ours.network)
    assert learner(TINY, replace(RECIPE, bf16=True), "cpu").dtype == "bf16"


def test_a_technique_that_is_off_here_is_no_contender():
    names = contenders(Setting("train", "quick", 1, "cpu", bf16=False, compile=False))
    assert "ours-channels_last" in names and not {"ours-bf16", "ours-compile"} & set(names)
    names = contenders(Setting("train", "quick", 1, "cpu", bf16=True, compile=True))
    assert {"ours-bf16", "ours-compile"} <= set(names)


def test_ours_is_the_step_of_the_trainer(project, monkeypatch):
    """The same weights, to the bit, and the same optimiser and layout as `condmix train` has."""
    from accelerate import PartialState

    from condmix.training.trainer import Trainer

    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    constant = project.train.model_copy(update={"optimizer": "adamw", "warmup": 0.0, "decay": 0.0})
    trainer = Trainer(project.model_copy(update={"train": constant}), "experiment", PartialState(cpu=True))
    recipe = replace(RECIPE, lr=constant.lr, ema=constant.ema)

    given = {}
    network = type(trainer.model)(trainer.model.architecture)
    network.load_state_dict(trainer.model.state_dict())
    ours = Learner(network, lambda model, x_t, t: model(x_t, t, given["vectors"], given["mask"]), recipe, "cpu")
    for step in range(3):
        expected, _ = trainer.advance(step)
        # Trainer.batch sets the seed of the dropout
        x_0, given["vectors"], given["mask"], t, noise = trainer.batch(step)
        assert torch.equal(ours.step(Batch(x_0, t, noise)), expected)
    for one, other in zip(ours.network.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
    for one, other in zip(ours.average, trainer.average, strict=True):
        assert torch.equal(one, other)
    assert [ours.optimizer.defaults] == [optimizer.defaults for optimizer in trainer.optimizers]


def test_a_perspective_that_is_always_the_same_tells_nothing():
    model = learner(TINY, RECIPE, "cpu").network
    vectors, mask = condition(model, 5, "cpu")
    views = model.embed(vectors)
    assert views.shape == (5, 1, 128) and mask.all() and (views == views[0]).all()


@pytest.mark.parametrize("peer", PEERS)
def test_peers_learn_the_same_thing_on_the_same_schedule(peer):
    """Their own loss of a batch is ours for their network; lucidrains' as shipped weights it by SNR / (SNR + 1)."""
    pytest.importorskip(PEERS[peer])
    contender = {"diffusers": peers.Diffusers, "lucidrains": peers.Lucidrains}[peer](TINY, "cpu")
    schedule, given = Schedule("cosine", pictures.STEPS), batch(5)
    x_t = schedule.add_noise(given.x_0, given.noise, given.t)
    losses = schedule.loss("v", contender.predict(x_t, given.t), given.x_0, given.noise, given.t)
    if peer == "lucidrains":
        snr = schedule.snr(given.t)
        losses = losses * (snr / (snr + 1)).float()
    torch.testing.assert_close(contender.step(given), losses.mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["diffusers", "lucidrains", "diffusers+recipe", "lucidrains+recipe"])
def test_peers_take_steps_that_change_all_their_weights(tiny, name):
    pytest.importorskip(PEERS[name.split("+")[0]])
    contender = TrainingBenchmark(tiny).build(name)
    assert contender.network.training
    before = [parameter.detach().clone() for parameter in contender.network.parameters()]
    for number in range(2):
        assert torch.isfinite(contender.step(TrainingBenchmark(tiny).draw(number)))
    after = contender.network.parameters()
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not contender.predict(batch().x_0, batch().t).requires_grad and contender.network.training


def test_batches_follow_from_their_number_and_no_scene_comes_twice():
    setting = Setting("train", "quick", 4, "cpu", bf16=False, compile=False)
    one, again, other = (TrainingBenchmark(setting).draw(number) for number in (1, 1, 2))
    assert all(torch.equal(getattr(one, name), getattr(again, name)) for name in ("x_0", "t", "noise"))
    assert not any(torch.equal(getattr(one, name), getattr(other, name)) for name in ("x_0", "t", "noise"))
    assert one.x_0.shape == (4, 3, 32, 32) and -1 <= one.x_0.min() < one.x_0.max() <= 1
    longer = pictures.scenes("train", 0, 12)
    assert (longer[4:8] == pictures.scenes("train", 4, 4)).all()
    assert len({picture.tobytes() for picture in longer}) == 12
    assert (pictures.held_out(8, 0, "cpu").t == torch.arange(8) * 125 + 62).all()


class Guess:
    """A contender that knows the answer up to a factor."""

    def __init__(self, factor: float):
        self.factor, self.steps = factor, []

    def step(self, given):
        self.steps.append(given)

    def predict(self, x_t, t):
        given = pictures.held_out(HELD_OUT, 0, "cpu")
        rows = [int((given.t == one).nonzero()[0]) for one in t]
        schedule = Schedule("cosine", pictures.STEPS)
        return self.factor * schedule.velocity(given.x_0[rows], given.noise[rows], t)


def test_the_held_out_loss_is_zero_for_the_truth_and_the_power_of_v_for_silence(tiny):
    given = pictures.held_out(HELD_OUT, 0, "cpu")
    power = Schedule("cosine", pictures.STEPS).velocity(given.x_0, given.noise, given.t).square().mean().item()
    assert held_out_loss(Guess(1.0), tiny) == pytest.approx(0, abs=1e-12)
    assert held_out_loss(Guess(0.0), tiny) == pytest.approx(power, rel=1e-5)
    assert held_out_loss(Guess(0.5), tiny) == pytest.approx(power / 4, rel=1e-5)


def test_contenders_are_trained_on_to_the_same_number_of_batches():
    both = {"a": Guess(1), "b": Guess(1)}
    train_on(both, lambda number: number, seen=3, batches=6, say=lambda sentence: None)
    assert both["a"].steps == both["b"].steps == [3, 4, 5]
    train_on(both, lambda number: number, seen=6, batches=6, say=lambda sentence: None)
    assert len(both["a"].steps) == 3


def test_the_transposed_convolution_saves_five_products_of_nine(tiny):
    """The network has one upsampling, of 64 channels to 8x8; forward and both gradients cost the same."""
    saved = flop_per_picture(tiny, "ours-fused_upsample") - flop_per_picture(tiny, "ours")
    assert saved == 3 * 2 * (9 - 4) * 64 * 64 * 8 * 8


@pytest.mark.parametrize("technique", sorted(TECHNIQUES.keys() - {"fused_norm"}))  # a compiled network has none
def test_flops_are_counted_where_our_recipe_compiles(tiny, technique):
    """As on a GPU, and for the contender too that differs by not being compiled."""
    gpus = replace(tiny, bf16=True, compile=True)
    compiled = flop_per_picture(gpus, f"ours-{technique}")
    plain = flop_per_picture(
        replace(gpus, compile=False, bf16=technique != "bf16"), "ours"
    )  # attention in bf16 differs
    assert compiled > plain if technique == "fused_upsample" else compiled == plain


def test_diffusers_network_is_ours(tiny):
    """As many parameters, but for our null vector, and as many FLOPs, but for the transposed convolution."""
    pytest.importorskip("diffusers")
    contenders = TrainingBenchmark(tiny)
    assert contenders.parameters("ours") - contenders.parameters("diffusers") == 4 * TINY.channels
    assert flop_per_picture(tiny, "diffusers") == flop_per_picture(tiny, "ours-fused_upsample")


def test_guidance_computes_twice_as_much(tiny, monkeypatch):
    monkeypatch.setattr(sampling, "STEPS", 2)
    counts = {name: flop_per_picture(replace(tiny, what="sample"), name) for name in sampling.CONTENDERS}
    assert counts["one_pass"] == counts["two_passes"] == 2 * counts["unguided"] > 0


def test_the_report_s_network_is_as_large_as_it_says():
    setting = Setting("train", "9m", 1, "cpu", bf16=False, compile=False)
    assert TrainingBenchmark(setting).parameters("report") == pytest.approx(23.3e6, rel=0.005)
    assert flop_per_picture(setting, "report") == pytest.approx(11.1e9, rel=0.02)


def test_a_part_of_the_report_s_steps_counts_as_all_of_them(tiny, monkeypatch):
    setting = replace(tiny, what="sample")
    assert sampling.ReportSampler.repeats * sampling.REPORT_STEPS == 1000
    monkeypatch.setattr(sampling, "REPORT_STEPS", 2)
    few = flop_per_picture(setting, "report")
    monkeypatch.setattr(sampling, "REPORT_STEPS", 1)
    monkeypatch.setattr(sampling.ReportSampler, "repeats", 2 * sampling.ReportSampler.repeats)
    assert flop_per_picture(setting, "report") == few


@pytest.mark.slow
def test_a_probe_measures_memory_in_a_process_of_its_own():
    setting = Setting("train", "9m", 1, "cpu", bf16=False, compile=False)
    found = measure(setting, "ours", threads=1)
    # weights, their average, gradients and two moments in fp32, and the feature maps, but not the interpreter
    floor = 5 * 4 * found["parameters"] / 2**20
    assert floor - 10 < found["peak_mib"] < floor + 200 and found["mib_before"] > 50


def test_a_probe_is_asked_and_answers_in_json(tiny, monkeypatch, capsys):
    monkeypatch.setattr("condmix.bench.probe.SMALLEST", "tiny")

    def here(command: list[str], **options) -> subprocess.CompletedProcess:
        """The new process's work in this one."""
        assert command[1:3] == ["-m", "condmix.bench.probe"] and options["env"]["OMP_NUM_THREADS"] == "1"
        monkeypatch.setattr("sys.argv", command[2:])
        print("what a library has to say")
        run_probe()
        return subprocess.CompletedProcess(command, 0, stdout=capsys.readouterr().out)

    monkeypatch.setattr("condmix.bench.probe.subprocess.run", here)
    found = measure(tiny, "ours", threads=1)
    assert found["parameters"] == TrainingBenchmark(tiny).parameters("ours")
    assert found["flop_per_picture"] == flop_per_picture(tiny, "ours")
    assert found["peak_mib"] >= 0 and found["mib_before"] > 50


def test_a_probe_that_fails_is_named(tiny, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nMemoryError: of the child")
    monkeypatch.setattr("condmix.bench.probe.subprocess.run", lambda *_, **__: failed)
    with pytest.raises(CondmixError, match="ours: measuring its memory .* MemoryError: of the child"):
        measure(tiny, "ours", threads=1)


def test_a_record_of_sampling_says_how_was_sampled(tiny):
    said = BENCHMARKS["sample"]
    assert f"in {sampling.STEPS} steps" in said and f"s = {sampling.SCALE:g}" in said
    assert SamplingBenchmark(tiny).conditions() == {"sampler": "dpmpp_2m", "steps": 12, "guidance": 3.0}


@pytest.fixture
def sampler(tiny):
    setting = replace(tiny, what="sample")

    def made(name: str) -> Sampler:
        contender = SamplingBenchmark(setting).build(name)
        randomise(contender.model)
        return contender

    return made


def test_two_passes_draw_what_one_pass_draws(sampler):
    one, two = sampler("one_pass").step(range(3)), sampler("two_passes").step(range(3))
    assert (one.int() - two.int()).abs().max() <= 1
    assert (one != sampler("unguided").step(range(3))).any()
    assert one.float().std() > 10


def test_one_pass_is_the_sampler_of_condmix_generate(sampler):
    from condmix.sampling.sample import Sampling, sample

    contender: Sampler = sampler("one_pass")
    settings = Sampling(contender.schedule, "v", "dpmpp_2m", sampling.STEPS, sampling.SCALE)
    vectors, mask = condition(contender.model, 3, "cpu")
    assert torch.equal(contender.step(range(3)), sample(contender.model, settings, (vectors, mask), range(3)))


def run(*arguments: str):
    return CliRunner().invoke(main, ["bench", *arguments])


def test_the_command_writes_a_table_and_its_conditions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(SIZES, "quick", replace(TINY, image_size=32, attention=(16,)))
    monkeypatch.setattr("condmix.bench.loss.HELD_OUT", 4)
    given = ["--size", "quick", "--batch-size", "1", "--rounds", "2", "--threads", "1", "--no-probes", "--loss", "4"]
    result = run(*given, "--contenders", "ours,ours-foreach_ema", "--no-compile")
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("benchmarks/results/*-train-quick-1.json")
    content = json.loads(path.read_text())
    assert str(path.relative_to(tmp_path)) in result.output
    expected = {"what": "train", "size": "quick", "batch_size": 1, "threads": 1, "compile": False, "seed": 0}
    assert expected.items() <= content["conditions"].items()
    assert {"torch", "cpu", "commit", "date", "python", "packages", "network", "recipe"} <= content["conditions"].keys()
    assert content["pictures_seen"] == 4 and content["rounds"] == 2 and content["device"]
    assert content["gemm"]["fp32"]["flop_per_second"] > 0
    ours, other = content["contenders"].values()
    assert len(ours["seconds"]) == 2 and ours["times_baseline"] == 1.0
    assert other["held_out_loss"] == pytest.approx(ours["held_out_loss"], rel=1e-5)
    heading, _, head, rule, *rows = result.stdout.splitlines()[:6]
    assert "2 rounds" in heading and content["conditions"]["commit"] in heading
    assert len({len(line) for line in (head, rule, *rows)}) == 1
    assert [row.split("|")[1].strip() for row in rows] == ["ours", "ours-foreach_ema"]
    assert "held-out loss after 4 pictures" in head and "peak memory" not in head


def test_a_peer_that_is_not_installed_ends_the_run_in_one_sentence(monkeypatch):
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None if "denoising" in name else name)
    result = run()
    assert result.exit_code == 1 and not result.stdout
    assert result.stderr.count("\n") == 1
    assert "lucidrains, lucidrains+recipe need denoising-diffusion-pytorch" in result.stderr
    assert "pip install 'condmix[bench]'" in result.stderr
    assert "--contenders diffusers,diffusers+recipe,report,ours,ours-channels_last" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--contenders", "ours,our"], 'no contender "our"; found: diffusers, '),
        (["--contenders", "two_pass", "--what", "sample"], 'did you mean "two_passes"?'),
        (["--size", "9"], 'no size "9"; found: quick, 9m, 36m'),
        (["--what", "sample", "--loss", "5"], "it has no meaning with --what sample"),
        (["--contenders", "ours", "--out", "/"], "--out / is not a file that can be written"),
    ],
)
def test_mistakes_are_said_in_one_sentence(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 1 and words in result.stderr and result.stderr.count("\n") == 1


def test_the_list_names_every_contender_and_measures_nothing():
    result = run("--list")
    assert result.exit_code == 0
    for name in ("diffusers+recipe", "ours-fused_upsample", "two_passes", "36m"):
        assert name in result.output
