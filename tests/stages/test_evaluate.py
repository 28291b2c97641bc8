"""Evaluation: what conditions each set of pictures, and what is measured on it."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_helpers import save_tiny_clip
from condmix import CondmixError
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior, load_prior, save_prior
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.evaluation import reference, samples
from condmix.evaluation.caption_score import CaptionScore
from condmix.evaluation.conditions import Change, Condition, Kind
from condmix.evaluation.frechet import Statistics, frechet_distance
from condmix.evaluation.judges import Judge
from condmix.evaluation.observers import Observer
from condmix.evaluation.probes import Probe
from condmix.evaluation.reference import Reference, allowed
from condmix.evaluation.samples import REPEATS, Drawn, PictureSet
from condmix.metrics import Pictures, computed
from condmix.runtime.processes import together
from condmix.settings.perspectives import another
from condmix.stages import evaluate, train
from condmix.stages.evaluate import Written, best_guidance, conditions, read_written
from condmix.stages.judge import heads_of, train_probe
from profiles import content, section
from tiny_project import make_project, write_packed_card
from tower_helpers import backbone_settings, save_tiny_backbone
from what_counts import source_files

CAPTIONS, SHUFFLED = Condition.CAPTIONS, Change(Kind.SHUFFLED)
WITHOUT, WRONG = (Change(kind, "class") for kind in (Kind.WITHOUT, Kind.WRONG))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a judge that knows nothing, and a trained experiment."""
    project = make_project(tmp_path_factory.mktemp("trained"))
    project.paths.captions.mkdir(parents=True)
    captions = {"captions": [[f"one {i}", f"two {i}"] for i in range(8)]}
    (project.paths.captions / "test.json").write_text(json.dumps(captions))
    torch.manual_seed(0)
    judge = Judge("small_cnn", {"shape": ["round", "square", "long"]}, 8)
    with torch.no_grad():
        judge.network.stages[-3].weight.mul_(100)  # features that differ, though it has learnt nothing
    judge.save(project.paths.judge, {"accuracy": {"shape": 0.3}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDMIX_TRACKING", "off")
        patch.setenv("DVC_ROOT", str(project.root))
        train.run(project, "experiment")
    return project


@pytest.fixture
def judged(project, trained, monkeypatch):
    """A copy of it."""
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    shutil.copytree(trained.root, project.root, dirs_exist_ok=True)
    return project


def test_every_promised_figure_is_there_and_follows_from_the_pictures(judged):
    settings = judged.evaluate.model_copy(update={"published_n": 11})
    evaluate.main(judged.model_copy(update={"evaluate": settings}), "experiment")
    metrics = json.loads((judged.paths.metrics / "experiment.json").read_text())
    folder = judged.paths.details("experiment")
    saved = np.load(folder / "pictures.npz")
    assert metrics["n"] == 6 and saved["right"].shape == saved["named"].shape == (6, 1)
    assert list(saved["attribute_names"]) == ["shape"] and saved["mentions"].shape == (6, 5, 1)
    assert metrics["scene_accuracy"] == pytest.approx(saved["right"].mean(), abs=1e-4)
    assert metrics["attribute_accuracy_by_caption"]["both"]["all"] == metrics["scene_accuracy"]
    low, high = metrics["fd_judge_interval"]
    assert 0 <= low < high
    promised = ("kid_judge", "precision_judge_allowed", "recall_judge_allowed", "nearest_training", "shuffled")
    assert metrics.keys() >= set(promised)
    assert list(metrics["without"]) == ["caption_1", "class"] and metrics["without"]["class"]["n"] == 2
    assert list(metrics["wrong"]) == ["caption_1", "class"] and metrics["wrong"]["class"]["n"] == 2
    assert metrics["diversity"]["judge"] > 0 and metrics["diversity_n"] == {"conditions": 1, "pictures_each": REPEATS}
    assert [row["guidance"] for row in metrics["sweep"]] == [1.0, 2.0]
    assert metrics["best_guidance"]["fd_judge"] in (1.0, 2.0)
    assert [row["n"] for row in metrics["sweep"]] == [2, 2] and "in no other figure" in metrics["sweep_of"]
    assert metrics["unchanged"]["n"] == 2 and metrics["unchanged"]["guidance"] == 2.0
    assert metrics["unchanged"]["scene_accuracy"] == pytest.approx(saved["right"][:2].mean(), abs=1e-4)
    assert metrics["published_n"] == 11 and metrics["fd_judge_train"] > 0 and metrics["fd_judge_allowed"] > 0
    assert 0 < metrics["nearest_training"]["p1_of_real"] <= metrics["nearest_training"]["p5_of_real"]


def test_each_job_is_conditioned_as_it_says(judged):
    plain, shuffled = PictureSet(CAPTIONS, 2.0, 6), PictureSet(CAPTIONS, 2.0, 6, SHUFFLED)
    repeated, without = PictureSet(CAPTIONS, 2.0, 6, Change(Kind.REPEATED)), PictureSet(CAPTIONS, 2.0, 6, WITHOUT)
    assert list(plain.rows(8)) == [0, 1, 2, 3, 4, 5] and list(repeated.rows(8)) == [0, 0, 0, 0, 1, 1]
    assert (shuffled.rows(8) != np.arange(6)).all()
    assert plain.seeds(0) == shuffled.seeds(0) == without.seeds(0)  # the same noise, so that they pair
    assert len({*repeated.seeds(0), *plain.seeds(0)}) == 12
    published, swept = PictureSet(CAPTIONS, 2.0, 11, Change(Kind.PUBLISHED)), PictureSet(CAPTIONS, 3.0, 2, first=6)
    assert list(published.rows(8)) == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2] and len(set(published.seeds(0))) == 11
    assert list(swept.rows(8)) == [6, 7] and swept.seeds(0) == PictureSet(CAPTIONS, 1.0, 8).seeds(0)[6:]
    assert swept.file != PictureSet(CAPTIONS, 3.0, 2).file

    folder = judged.root / "drawn"
    folder.mkdir()
    samples.draw(judged, "experiment", [plain, shuffled, without], folder)
    drawn = {job.change: Drawn(folder, 1).pictures(job) for job in (plain, shuffled, without)}
    assert not np.array_equal(drawn[Change()], drawn[WITHOUT]) and not np.array_equal(drawn[Change()], drawn[SHUFFLED])


def test_a_perspective_left_out_is_its_null(judged):
    """Rows that lack the class anyway are drawn alike with and without it."""
    packed = Packed.load(judged.paths.packed("experiment"), "test")
    lacking = ~packed.present[:6, 1]
    jobs = [PictureSet(CAPTIONS, 2.0, 6), PictureSet(CAPTIONS, 2.0, 6, WITHOUT)]
    folder = judged.root / "drawn"
    folder.mkdir()
    samples.draw(judged, "experiment", jobs, folder)
    one, other = (Drawn(folder, 1).pictures(job) for job in jobs)
    same = (one == other).all(axis=(1, 2, 3))
    assert same[lacking.numpy()].all() and not same[~lacking.numpy()].all()


def test_a_wrong_perspective_is_another_pictures_and_the_rest_stays(judged):
    folder = judged.root / "drawn"
    folder.mkdir()
    wrong = PictureSet(CAPTIONS, 2.0, 6, WRONG)
    samples.draw(judged, "experiment", [wrong], folder)
    found = np.array(Drawn(folder, 1).pictures(wrong))

    path = judged.paths.packed("experiment") / "test.safetensors"
    tensors, other = load_file(path), torch.from_numpy(another(8))
    for name in ("class", "class.present"):
        tensors[name] = tensors[name][other].contiguous()
    save_file(tensors, path)
    write_packed_card(path.parent, json.loads((path.parent / "variant.json").read_text()))
    samples.draw(judged, "experiment", [PictureSet(CAPTIONS, 2.0, 6)], folder)
    assert np.array_equal(found, Drawn(folder, 1).pictures(PictureSet(CAPTIONS, 2.0, 6)))


def test_controls_claim_only_what_they_say_of_the_picture(judged):
    split = Split.load(judged.paths.dataset, "test")
    captions = [[f"{k} of {i}" for k in range(3)] for i in range(8)]
    packed = Packed.load(judged.paths.packed("experiment"), "test")
    names = ["caption_1", "caption_1_again", "caption_2_of_another"]
    packed.vectors = dict.fromkeys(names, packed.vectors["caption_1"])
    (only,) = conditions(packed, split, captions)
    assert only.texts[5] == ["0 of 5"]
    assert np.array_equal(only.named, split.mentions[:, 0])


def conditioned(packed, split, captions, **perspectives):
    """The conditions of a variant with these perspectives; of imported ones and T5's it is said what they are of."""
    packed.vectors = dict.fromkeys(perspectives, next(iter(packed.vectors.values())))
    made_of = [{"name": name, "dim": 16} | ({"of": of} if of else {}) for name, of in perspectives.items()]
    packed.variant = packed.variant | {"perspectives": made_of}
    return conditions(packed, split, captions)


def test_t5_and_imported_vectors_claim_what_they_were_made_from(project):
    split = Split.load(project.paths.dataset, "test")
    captions = [[f"{k} of {i}" for k in range(3)] for i in range(8)]
    packed = Packed.load(project.paths.packed("experiment"), "test")
    (words,) = conditioned(packed, split, captions, t5_2="caption", dino_1_of_another="image", caption_1=None)
    assert (words.condition, words.texts[5]) == ("captions", ["1 of 5", "0 of 5"])
    (classes,) = conditioned(packed, split, captions, label_1="class")
    assert classes.condition == "captions" and classes.texts[5] == [split.class_names[split.labels[5]]]
    (oracle,) = conditioned(packed, split, captions, caption_1=None, dino_1="image")
    assert oracle.condition == "oracle" and oracle.named.all()
    # Words can stand in the place of the picture's CLIP vector, but not of other vectors made from the picture.
    packed.prompt = (packed.vectors["dino_1"], packed.present[:, 0])
    assert [one.condition for one in conditioned(packed, split, captions, image=None)] == ["prompt", "oracle"]
    assert [one.condition for one in conditioned(packed, split, captions, image=None, dino_1="image")] == ["oracle"]


def test_several_captions_in_one_slot_condition_together_or_not_at_all(project):
    split = Split.load(project.paths.dataset, "test")
    captions = [[f"{k} of {i}" for k in range(3)] for i in range(7)] + [["0 of 7"]]
    packed = Packed.load(project.paths.packed("experiment"), "test")
    for name in ("caption_joined_2", "caption_mean_2", "t5_joined_2"):
        (only,) = conditioned(packed, split, captions, **{name: "caption" if name.startswith("t5") else None})
        assert only.texts[5] == ["0 of 5", "1 of 5"] and only.texts[7] == []
        assert np.array_equal(only.named[:7], split.mentions[:7, 0] | split.mentions[:7, 1]) and not only.named[7].any()
    (only,) = conditioned(packed, split, captions, caption_3=None, caption_mean_2=None)
    assert only.texts[5] == ["2 of 5", "0 of 5", "1 of 5"]


def test_a_variant_of_pictures_is_prompted_through_the_prior_too(judged):
    torch.manual_seed(0)
    network = ShiftedPrior(Shape(dim=16, clusters=2, width=8, blocks=1))
    network.means = torch.randn(2, 16)
    save_prior(judged.paths.prior, network, {"encoder": "random", "sample_steps": 2, "guidance": 1.0})
    settings = judged.evaluate.model_copy(update={"other_n": 5})
    params = judged.model_copy(update={"prior": section("prior"), "evaluate": settings})
    train.run(params, "class_v1")
    evaluate.main(params, "class_v1")
    metrics = json.loads((params.paths.metrics / "class_v1.json").read_text())
    assert (
        metrics["condition"] == "prompt" and metrics["n"] == 6 and metrics["oracle"]["n"] == metrics["prior"]["n"] == 5
    )
    packed = Packed.load(params.paths.packed("class_v1"), "test")
    job = PictureSet(Condition.PRIOR, 2.0, 4)
    told = samples.placed(packed, load_prior(params.paths.prior, "random"), job, params.seed)
    assert torch.equal(told.present, packed.prompted().present)
    torch.testing.assert_close(told.vectors["image"][:4].norm(dim=1), torch.ones(4))
    assert torch.equal(told.vectors["image"][4:], packed.prompt[0][4:].float())
    with pytest.raises(CondmixError, match="is of vectors of random, not of another: run dvc repro prior"):
        load_prior(params.paths.prior, "another")


def test_generated_captions_condition_with_their_words_and_name_what_these_name(project):
    split = Split.load(project.paths.dataset, "test")
    split = replace(split, mentions=np.zeros_like(split.mentions))
    packed = Packed.load(project.paths.packed("experiment"), "test")
    packed.vectors = dict.fromkeys(["caption_2", "generated_2", "generated_1_of_another"], packed.vectors["caption_1"])
    captions = [[f"{k} of {i}" for k in range(3)] for i in range(8)]
    said = {"captions": [["first", "second"]] * 7 + [["only"]], "claims": [[[0], [2 * (i % 2) - 1]] for i in range(7)]}
    said["claims"].append([[0]])
    project.paths.generated.mkdir(parents=True)
    (project.paths.generated / "test.json").write_text(json.dumps(said))
    written = read_written(project, packed)
    (only,) = conditions(packed, split, captions, written)
    assert only.texts[0] == ["1 of 0", "second"] and only.texts[7] == ["1 of 7"]
    assert only.named[:, 0].tolist() == [i % 2 == 1 for i in range(7)] + [False]
    (only,) = conditions(packed, split, captions, Written(written.captions, None))
    assert only.named is None  # what they claim is not known

    packed.vectors = dict.fromkeys(["caption_1"], packed.vectors["caption_2"])
    assert read_written(project, packed) is None


def test_the_best_scale_is_the_largest_share_and_the_smallest_distance():
    sweep = [
        {"guidance": 1.0, "n": 4, "scene_accuracy": 0.5, "fd_judge": 3.0, "condition": "captions"},
        {"guidance": 3.0, "n": 4, "scene_accuracy": 0.7, "fd_judge": 9.0, "condition": "captions"},
    ]
    assert best_guidance(sweep, ["judge"]) == {"scene_accuracy": 3.0, "fd_judge": 1.0}


def test_real_pictures_are_no_distance_away_and_copies_are_found(judged):
    split = Split.load(judged.paths.dataset, "test")
    reference = Reference(judged, split)
    real, everything = reference.observer.all(np.asarray(split.images)), np.ones((8, 1), bool)
    observed = reference.observations(real, everything)
    assert computed(observed, Pictures.EVERY)["fd_judge"] == pytest.approx(0, abs=1e-4)
    copies = np.asarray(Split.load(judged.paths.dataset, "train").images[:8])
    closely = computed(reference.headline(reference.observer.all(copies), everything, copies), Pictures.HEADLINE)
    assert closely["nearest_training"]["p5"] == 0 < closely["nearest_training"]["p1_of_real"]
    (path,) = judged.paths.statistics.iterdir()
    path.write_bytes(b"damaged")
    again = Reference(judged, split).observations(real, everything)
    assert computed(again, Pictures.EVERY)["fd_judge"] < 1e-4


def test_what_is_kept_of_real_pictures_is_made_again_after_a_change_of_what_makes_it(judged, monkeypatch):
    split, network = Split.load(judged.paths.dataset, "test"), SimpleNamespace(id="judge sha256:1")

    def key() -> str:
        return str(reference._key(network, "test", split, judged))

    makes = {f"evaluation/{name}.py" for name in ("features", "frechet", "judges")}
    assert source_files(key, monkeypatch) == makes | {"clip/backbone.py", "clip/folder.py"}
    before = key()
    network.id = "judge sha256:2"
    assert key() != before
    before, meta = key(), json.loads((judged.paths.dataset / "meta.json").read_text())
    meta["splits"]["test"]["images_sha256"] = "0" * 64
    (judged.paths.dataset / "meta.json").write_text(json.dumps(meta))
    assert key() != before


def test_a_second_judge_s_figures_stand_beside_the_first_one_s(judged, tmp_path):
    save_tiny_backbone(tmp_path / "image.safetensors")
    train, split = (Split.load(judged.paths.dataset, name) for name in ("train", "test"))
    settings = backbone_settings(tmp_path / "image.safetensors")
    train_probe(judged.paths.judge, settings, heads_of(train), train, split)
    evaluate.main(judged, "experiment")
    found = json.loads((judged.paths.metrics / "experiment.json").read_text())
    probe = Probe.load(judged.paths.judge)
    assert found["judge_accuracy_probe"] == probe.accuracy
    assert found["attribute_accuracy_probe"].keys() == found["attribute_accuracy"].keys()

    reference, everything = Reference(judged, split), np.ones((8, 1), bool)
    pictures = np.array(split.images)
    observed = reference.observations(reference.observer.all(pictures), everything)
    answers = torch.stack([logits.argmax(1) for logits in probe(torch.from_numpy(pictures)).values()], dim=1)
    assert np.array_equal(observed.right_by_others["probe"], answers.numpy() == split.attributes)
    assert np.array_equal(observed.right, reference.right(reference.observer.all(pictures)))

    classes = replace(split, attributes=None, mentions=None, labels=np.array([0, -1] * 4))  # half of them unknown
    reference = Reference(judged, classes, reference.observer)
    reference.names = lambda: list(split.attribute_names)  # the head that these judges have
    observed = reference.observations(reference.observer.all(pictures))
    assert np.array_equal(observed.right_by_others["probe"], answers.numpy()[::2] == 0)


def test_the_published_distance_is_to_the_whole_training_split(judged):
    split, training = (Split.load(judged.paths.dataset, name) for name in ("test", "train"))
    reference = Reference(judged, split)
    seen = reference.observer.all(np.asarray(training.images))
    assert computed(reference.published(seen), Pictures.PUBLISHED) == {
        "fd_judge_train": pytest.approx(0, abs=1e-3),
        "published_n": 48,
    }
    fewer = computed(reference.published(seen.first(30)), Pictures.PUBLISHED)["fd_judge_train"]
    by_hand = [Statistics.of(seen.first(n).features["judge"]) for n in (30, 48)]
    assert fewer == pytest.approx(frechet_distance(*by_hand), abs=6e-5)
    (path,) = judged.paths.statistics.glob("*_train.safetensors")  # read when it is asked for again
    before = path.stat().st_mtime_ns
    reference.published(seen)
    assert path.stat().st_mtime_ns == before


def test_the_allowed_pictures_show_what_is_named_and_anything_else(judged):
    random = np.random.default_rng(0)
    known = random.integers(0, 3, (400, 4))
    attributes, named = known[:100], random.random((100, 4)) < 0.5
    rows = allowed(named, attributes, known)
    assert (known[rows] == attributes)[named].all() and 0.2 < (known[rows] == attributes)[~named].mean() < 0.5
    assert (known[allowed(np.ones((100, 4), bool), attributes, known)] == attributes).all()
    assert np.array_equal(rows, allowed(named, attributes, known))  # the same for every model
    split = Split.load(judged.paths.dataset, "test")
    reference = Reference(judged, split)
    drawn = reference.observer.all(np.asarray(split.images))
    (space,) = reference.headline(drawn, np.ones((8, 1), bool), np.asarray(split.images)).spaces
    chosen = allowed(np.ones((8, 1), bool), split.attributes, np.concatenate([
        Split.load(judged.paths.dataset, "train").attributes, split.attributes,
    ]))  # fmt: skip
    everything = np.concatenate([Split.load(judged.paths.dataset, "train").images, split.images])
    expected = reference.observer.all(everything[chosen]).features["judge"]
    torch.testing.assert_close(space.allowed.sort(0).values, expected.sort(0).values)


def test_the_sweep_is_of_other_pictures_than_what_is_reported(judged):
    task = evaluate.Task.load(judged, "experiment")
    plan = evaluate.PictureSets.of(task)
    swept = {int(row) for job in plan.sweep for row in job.rows(8)}
    reported = {int(row) for job in (*plan.conditions, plan.unchanged) for row in job.rows(8)}
    assert swept == {6, 7} and reported == set(range(6))
    for sweep_n, count in ((50, 4), (3, 5)):  # at most half of the split is kept apart
        settings = judged.evaluate.model_copy(update={"sweep_n": sweep_n, "n": 50})
        plan = evaluate.PictureSets.of(replace(task, params=judged.model_copy(update={"evaluate": settings})))
        assert plan.conditions[0].n == count and plan.sweep[0].first == count


def test_several_pictures_of_one_condition_are_compared_with_its_picture(judged):
    split = Split.load(judged.paths.dataset, "test")
    split = replace(split, attributes=np.arange(8)[:, None] % 3, labels=np.arange(8) % 3)
    reference, named = Reference(judged, split), np.eye(8, 1, dtype=bool)
    pictures = np.asarray(split.images)
    once = reference.observations(reference.observer.all(pictures), named)
    repeated = reference.observations(reference.observer.all(np.repeat(pictures, REPEATS, 0)), named, REPEATS)
    for field in ("right", "named", "mentions", "class_right"):
        assert np.array_equal(getattr(repeated, field), np.repeat(getattr(once, field), REPEATS, 0)), field
    assert once.right.any() and not once.right.all()


def test_several_processes_draw_and_see_what_one_does(judged, tmp_path, forked):
    jobs = [PictureSet(CAPTIONS, 2.0, 5), PictureSet(CAPTIONS, 2.0, 1, SHUFFLED)]  # of one picture, no two draw
    folders = [tmp_path / str(world) for world in (1, 2)]
    for world, folder in enumerate(folders, 1):
        folder.mkdir()
        together(world, samples.draw, judged, "experiment", jobs, folder)
    observer = Observer(judged)
    for job in jobs:
        one, two = (Drawn(folder, world) for world, folder in enumerate(folders, 1))
        assert one.pictures(job).shape == (job.n, 8, 8, 3)
        assert np.array_equal(one.pictures(job), two.pictures(job))
        seen = observer.all(one.pictures(job))
        for found in (one.seen(job), two.seen(job)):
            torch.testing.assert_close(found.features["judge"], seen.features["judge"])
            torch.testing.assert_close(found.values, seen.values, rtol=0, atol=0)
    fewer = PictureSet(CAPTIONS, 2.0, 3)  # the first of those that were drawn for five
    assert np.array_equal(two.pictures(fewer), one.pictures(jobs[0])[:3])
    for judge, values in two.seen(fewer).values.items():
        assert torch.equal(values, two.seen(jobs[0]).values[judge][:3])


def test_held_out_captions_are_scored_by_another_clip_than_the_one_that_conditioned(judged, tmp_path):
    model = save_tiny_clip(tmp_path / "scorer")
    settings = judged.evaluate.model_copy(update={"scorer": content(tmp_path / "scorer")})
    evaluate.main(judged.model_copy(update={"evaluate": settings}), "experiment")
    found = json.loads((judged.paths.metrics / "experiment.json").read_text())["held_out_captions"]
    assert found["captions"] == 6  # one of two each: caption_1 conditioned

    score = CaptionScore(tmp_path / "scorer", "random", batch_size=4)
    real = Split.load(judged.paths.dataset, "test").images[:6]
    by_hand = []
    for i, picture in enumerate(real):
        image = score.images(torch.from_numpy(picture[None].copy()))
        text = model.encode_text(score.texts.clip.tokenizer([f"two {i}"]))
        by_hand.append(torch.cosine_similarity(image, text).item())
    assert found["of_real_pictures"] == pytest.approx(np.mean(by_hand), abs=1e-3)
    seen = score.see(real)
    ranks = score.ranks(seen, [[f"two {i}"] for i in range(6)])
    texts = model.encode_text(score.texts.clip.tokenizer([f"two {i}" for i in range(6)]))
    for i, picture in enumerate(real):
        fits = torch.cosine_similarity(score.images(torch.from_numpy(picture[None].copy())), texts)
        assert ranks[i, 0] == pytest.approx((fits < fits[i]).sum().item() / 5)
    assert np.isnan(score.ranks(seen, [["one", "two"], *[["one"]] * 5])[:, 1]).all()
    with np.load(judged.paths.details("experiment") / "pictures.npz") as file:
        told, ranks = file["told"], file["caption_ranks"]
    assert told[:, 0].all() and not told[:, 1].any()
    assert found["rank"] == pytest.approx(ranks[:, 1].mean(), abs=1e-4)
    with pytest.raises(CondmixError, match="is the CLIP that conditioned the pictures"):
        CaptionScore(tmp_path / "scorer", score.id, batch_size=4)
