"""The stage that has captions written: what it keeps, what it says of them, and that it survives a kill."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from captioner_helpers import COCA, settings
from clip_helpers import Colours, colour_params, save_tiny_clip, write_all_captions
from condmix import CondmixError, pipeline
from condmix.captioners import Captioner
from condmix.data.packed import Packed
from condmix.files.atomic import write_json
from condmix.settings.load import plugin
from condmix.settings.schema import GeneratedSettings
from condmix.stages import embed, generate_captions, pack
from condmix.tracking.runs import project_root
from every_stage import SETTINGS
from what_counts import expanded, files, listed, source_files

LONG = "it is a picture of one colour. the other half of it is black! there is nothing else in it to see"
pytestmark = pytest.mark.usefixtures("one_thread")


class Scripted(Captioner):
    """Says the right colour, the same again, the next colour, and a long text; counts what it was asked."""

    asked: list = []
    fails_after: int | None = None

    def __init__(self):
        self.facts = {"model": "scripted", "revision": None, "weights_sha256": "0" * 64}

    @classmethod
    def open(cls, settings, folder, device="cpu"):
        return cls()

    def see(self, pictures):
        return [int(picture.max(axis=(0, 1)).argmax()) for picture in pictures]

    def caption(self, seen, prompt, seed):
        if len(self.asked) == self.fails_after:
            raise KeyboardInterrupt
        sample = len(self.asked) % 4
        self.asked.append((prompt, seed, len(seen)))
        names = Colours.class_names
        return [
            (f"a {names[c]} picture", f" a  {names[c]} picture", f"a {names[(c + 1) % 3]} picture", LONG)[sample]
            for c in seen
        ]


@pytest.fixture
def params(tmp_path, monkeypatch):
    """`Colours` with a random CLIP, and a captioner whose captions are known."""
    found = colour_params(tmp_path)
    dataset = Colours((20, 6))
    save_tiny_clip(found.paths.clip)
    write_all_captions(found, dataset)
    splits = {split: {"count": 1, "images_sha256": split, "sha256": {}} for split in ("train", "test")}
    meta = {"image_size": 8, "class_names": Colours.class_names, "attributes": Colours.attributes, "splits": splits}
    write_json(found.paths.dataset / "meta.json", meta)
    found.generated = scripted()
    Scripted.asked, Scripted.fails_after = [], None

    def opened(kind, name):
        if kind == "datasets":
            return lambda archives, world: dataset
        return Scripted if name == "scripted" else plugin(kind, name)

    for module in (generate_captions, embed):
        monkeypatch.setattr(module, "plugin", opened)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found.dataset = dataset
    return found


def scripted(**changes):
    return settings("scripted", "none", **{"captions": 5, "samples": 4, "batch_size": 5, "shard": 10} | changes)


def written(params, split="test"):
    return json.loads((params.paths.generated / f"{split}.json").read_text())


def test_captions_are_split_freed_of_repetitions_and_say_where_they_come_from(params):
    generate_captions.main(params)
    for split, count in (("train", 20), ("test", 6)):
        found = written(params, split)
        assert len(found["captions"]) == count
        for label, texts in zip(params.dataset.labels(split), found["captions"], strict=True):
            right, wrong = (Colours.class_names[i] for i in (label, (label + 1) % 3))
            sentences = ["it is a picture of one colour.", "the other half of it is black!"]
            assert texts == [f"a {right} picture", f"a {wrong} picture", *sentences, LONG.split("! ")[1]]
        assert found["sources"] == [["generated"] * 5] * count
        assert found["captioner"]["model"] == "scripted" and found["captioner"]["weights_sha256"] == "0" * 64
    seeds = [[one["seed"] for one in row] for row in found["provenance"]]
    assert seeds[0][2] == seeds[0][3] == seeds[0][4] and len(set(seeds[0])) == 3  # one text, in three sentences
    assert seeds[0] == seeds[4] != seeds[5]  # a batch has one seed for each of its samples


def test_similarities_are_cosines_of_clip_and_decide_what_is_kept(params):
    generate_captions.main(params)
    everything = written(params)
    towers = [plugin("encoders", name).open(params.paths.clip, []) for name in ("clip_image", "clip_text")]
    images = towers[0].encode(list(params.dataset.images("test")))
    for image, texts, facts in zip(images, everything["captions"], everything["provenance"], strict=True):
        cosines = (towers[1].encode(texts) @ image).tolist()
        assert [one["similarity"] for one in facts] == pytest.approx(cosines, abs=1e-4)

    asked = len(Scripted.asked)
    limit = float(np.median([one["similarity"] for row in everything["provenance"] for one in row]))
    params.generated = scripted(min_similarity=limit, captions=2)
    generate_captions.main(params)
    assert len(Scripted.asked) == asked  # chosen anew among what was written
    kept = written(params)
    for before, facts, after in zip(everything["captions"], everything["provenance"], kept["captions"], strict=True):
        assert after == [text for text, one in zip(before, facts, strict=True) if one["similarity"] >= limit][:2]
    assert any(len(row) < 2 for row in kept["captions"])


def test_the_threshold_is_a_quantile_of_mismatched_pairs():
    mismatched = np.linspace(-0.5, 0.5, 101).tolist()
    assert generate_captions.threshold(scripted(better_than=0.9), mismatched) == pytest.approx(0.4)
    assert generate_captions.threshold(scripted(better_than=0.9, min_similarity=0.45), mismatched) == 0.45
    assert generate_captions.threshold(scripted(), mismatched) == -1
    with pytest.raises(CondmixError, match="batch_size must be 2 or more"):
        generate_captions.threshold(scripted(better_than=0.9), [])


def test_the_metrics_tell_how_often_what_captions_claim_is_right(params):
    generate_captions.main(params)
    facts = json.loads((params.paths.metrics / "generated.json").read_text())
    assert facts["environment"]["precision"] == params.generated.precision
    metrics = facts["test"]
    assert metrics["pictures"] == 6 and metrics["written"] == metrics["captions"] == 30 and metrics["kept"] == 1
    assert metrics["named"] == {"colour": 0.4, "side": 0.0}  # two of five captions
    assert metrics["right"] == {"colour": 0.5, "side": None}


def test_a_killed_run_goes_on_where_it_was(params, tmp_path):
    Scripted.fails_after = 4 * 3  # in the second shard: two batches of the first were four samples each
    with pytest.raises(KeyboardInterrupt):
        generate_captions.main(params)
    assert not params.paths.generated.exists()
    Scripted.fails_after = None
    done = len(Scripted.asked)
    generate_captions.main(params)
    assert [n for _, _, n in Scripted.asked[done:]] == [5] * 4 * 2 + [5] * 4 + [1] * 4  # the first shard is kept
    resumed = written(params, "train")
    params.paths.generated.rename(tmp_path / "resumed")
    (tmp_path / ".checkpoints").rename(tmp_path / "old")
    Scripted.asked.clear()
    generate_captions.main(params)
    assert written(params, "train") == resumed


def test_captions_of_pictures_that_other_code_read_are_written_again(params, monkeypatch):
    generate_captions.main(params)
    done = len(Scripted.asked)
    generate_captions.main(params)
    assert len(Scripted.asked) == done
    monkeypatch.setattr(pipeline, "reader_sha256", lambda name: f"another {name}")
    generate_captions.main(params)
    assert len(Scripted.asked) == 2 * done


def test_every_file_setting_and_input_of_a_captioner_is_part_of_the_key_of_what_it_wrote(project, monkeypatch):
    project.paths.archives.mkdir(parents=True)
    project.paths.captions.mkdir(parents=True)
    inputs = [project.paths.archives / "data.bin", project.paths.captions / "train.json"]
    for path in (*inputs, project.paths.captions / "test.json"):
        path.write_text("{}")
    written = SETTINGS["generated"] | {"captioner": "trained_coca", "revision": None}
    project = project.model_copy(update={"generated": GeneratedSettings.model_validate(written)})

    def key():
        return generate_captions.key(project, "cpu")

    choosing = {"captions", "min_similarity", "better_than"}
    for name in GeneratedSettings.model_fields:
        other = project.generated.model_copy(update={name: [9] if name == "prompts" else 9})
        changed = generate_captions.key(project.model_copy(update={"generated": other}), "cpu") != key()
        # how many captions are drawn is `captions` where `samples` is null
        assert changed == (name not in choosing - {"captions"}), name
    world = project.model_copy(update={"data": project.data.model_copy(update={"world": {"seed": 99}})})
    assert generate_captions.key(world, "cpu") != key()
    assert files(key, [*inputs, project.paths.captions / "test.json"]) == set(inputs)
    reader = expanded(pipeline.closure(f"datasets/{project.data.dataset}.py", pipeline.NEUTRAL))
    assert source_files(key, monkeypatch) == listed("generate_captions") | reader


def test_without_a_captioner_every_picture_has_none(params):
    params.generated = None
    generate_captions.main(params)
    assert written(params)["captions"] == [[]] * 6 and not Scripted.asked


def test_generated_captions_become_perspectives_and_change_no_other_s_cache(params):
    params.generated = None
    embed.main(params)
    folder = params.paths.embeddings
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
    params.generated = scripted()
    generate_captions.main(params)
    embed.main(params)
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}
    assert {name: after[name] for name in before} == before
    joined = {"generated_joined_2", "generated_joined_5"}
    assert {path.stem for path in after.keys() - before.keys()} == {f"generated_{k}" for k in range(1, 6)} | joined

    params.perspectives, params.mixed_any = ("mixed_any", "generated_2"), (1.0, 3.0)
    pack.main(params, "experiment")
    train, test = (Packed.load(params.paths.packed("experiment"), split) for split in ("train", "test"))
    assert train.vectors["mixed_any"].shape[1] == 2 + 5
    np.testing.assert_allclose(train.choices["mixed_any"][0], [1 / 8] * 2 + [3 / 20] * 5, rtol=1e-6)
    assert not test.choices and test.variant["perspectives"][1] == {"name": "generated_2", "dim": 16}


def test_a_perspective_is_refused_where_nothing_was_generated(params):
    embed_nothing = SimpleNamespace(**vars(params) | {"generated": None})
    embed.main(embed_nothing)
    for name in ("generated_1", "mixed_any"):
        params.perspectives = (name,)
        with pytest.raises(
            CondmixError, match=f'no perspective "{name}".*it has: caption_1, caption_2, caption_joined_2, '
        ):
            pack.main(params, "experiment")


def test_a_captioner_is_trained_once_and_lies_beside_what_it_wrote(params, monkeypatch):
    training = {"steps": 2, "batch_size": 10}
    params.generated = settings("trained_coca", COCA, training=training, captions=2, batch_size=10)
    generate_captions.main(params)
    first = written(params)
    assert first["captioner"]["captioner"] == "trained_coca" and any(first["captions"])
    assert (params.paths.generated / "captioner" / "vocabulary.json").exists()
    monkeypatch.setattr(plugin("captioners", "trained_coca"), "train", None)
    generate_captions.main(params)
    assert written(params) == first


def test_a_damaged_captioner_is_trained_again(params):
    training = {"steps": 2, "batch_size": 10}
    params.generated = settings("trained_coca", COCA, training=training, captions=2, batch_size=10)
    generate_captions.main(params)
    first = written(params)
    (weights,) = (project_root() / ".checkpoints").glob("captions-*/captioner/open_clip_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8] + bytes(8))
    generate_captions.main(params)
    assert weights.read_bytes() == whole and written(params) == first
