"""The stage pack: exactly the perspectives of a variant, and a hash of its fusion's code."""

import hashlib
import json

import numpy as np
import pytest
import torch

from clip_helpers import colour_params
from condmix import CondmixError, pipeline
from condmix.data.embeddings import cache_key, read_cache, write_cache
from condmix.data.packed import Packed
from condmix.settings.load import VARIANTS
from condmix.settings.perspectives import another, misled
from condmix.settings.variants import REFERENCES, resolve
from condmix.stages import pack

COUNTS = {"train": 8, "test": 5}
DIMS = {"image": 6, "class": 3, "caption_1": 6, "caption_2": 6}


@pytest.fixture
def params(tmp_path):
    """Parameters with random caches of four perspectives."""
    params = colour_params(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name, dim in DIMS.items():
            key = cache_key(name, split, ("clip A", "p"), "d", count)
            write_cache(cache(params, split, name), rng.normal(size=(count, dim)), rng.random(count) < 0.8, key)
    return params


def cache(params, split, name):
    return params.paths.embeddings / split / f"{name}.safetensors"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_gets_its_perspectives_in_its_order(params, variant):
    pack.main(params, variant)
    chosen = resolve(variant, params.fusion, params.perspectives)
    for split in COUNTS:
        packed = Packed.load(params.paths.packed(variant), split)
        assert tuple(packed.vectors) == chosen.perspectives
        for i, name in enumerate(chosen.perspectives):
            vectors, present, _ = read_cache(cache(params, split, name), None)
            assert torch.equal(packed.vectors[name], vectors) and torch.equal(packed.present[:, i], present)
        if split == "test" and "image" in chosen.perspectives:
            expected = read_cache(cache(params, "test", "caption_1"), None)[:2]
            assert all(torch.equal(*pair) for pair in zip(packed.prompt, expected, strict=True))
        else:
            assert packed.prompt is None
    card = Packed.load(params.paths.packed(variant), "test").variant
    written = json.loads((params.paths.packed(variant) / "variant.json").read_text())
    assert written["sha256"] == {
        split: hashlib.sha256((params.paths.packed(variant) / f"{split}.safetensors").read_bytes()).hexdigest()
        for split in COUNTS
    }
    assert card == {
        "variant": variant,
        "fusion": chosen.fusion,
        "fusion_sha256": pack.fusion_sha256(chosen.fusion),
        "perspectives": [{"name": name, "dim": DIMS[name]} for name in chosen.perspectives],
        "dim": 6,
        "encoder": "clip A",
    }


def test_controls_read_the_captions_they_are_named_after(params):
    names = ("caption_1", "caption_1_again", "caption_2_of_another", "caption_any")
    params.perspectives = names
    pack.main(params, "experiment")
    train, test = (Packed.load(params.paths.packed("experiment"), split) for split in COUNTS)
    first, second = (read_cache(cache(params, "train", name), None) for name in ("caption_1", "caption_2"))
    assert torch.equal(train.vectors["caption_1_again"], first[0])
    others = another(COUNTS["train"])
    assert torch.equal(train.vectors["caption_2_of_another"], second[0][others])
    assert torch.equal(train.present[:, 2], second[1][others])
    assert torch.equal(test.vectors["caption_any"], test.vectors["caption_1"]) and not test.choices
    assert torch.equal(train.present[:, 3], first[1] | second[1])

    both = train.choices["caption_any"].all(1).nonzero()[:, 0]
    for draw, expected in ((0.0, first), (0.49, first), (0.5, second), (0.99, second)):
        drawn, _ = train.batch(both, draws=torch.full((len(both), 1), draw))
        assert torch.equal(drawn["caption_any"], expected[0][both].float())
    only_second = (~first[1] & second[1]).nonzero()[:, 0]
    assert len(only_second)
    drawn, mask = train.batch(only_second, draws=torch.zeros(len(only_second), 1))
    assert torch.equal(drawn["caption_any"], second[0][only_second].float()) and mask[:, 3].all()


def test_a_source_is_wrong_for_its_share_of_the_training_pictures_and_right_in_evaluation(params):
    params.perspectives = ("caption_2", "caption_2_of_another", "caption_2_wrong_60")
    pack.main(params, "experiment")
    train, test = (Packed.load(params.paths.packed("experiment"), split) for split in COUNTS)
    wrong = torch.from_numpy(misled(COUNTS["train"], 60))
    assert 0 < wrong.sum() < len(wrong)
    vectors = {name: train.vectors[f"caption_2{name}"] for name in ("", "_of_another", "_wrong_60")}
    assert torch.equal(vectors["_wrong_60"], vectors["_of_another"].where(wrong[:, None], vectors[""]))
    assert torch.equal(train.present[:, 2], train.present[:, 1].where(wrong, train.present[:, 0]))
    assert torch.equal(test.vectors["caption_2_wrong_60"], test.vectors["caption_2"])


def test_several_captions_in_one_slot_are_there_where_all_of_them_are(params):
    for split, count in COUNTS.items():
        key = cache_key("caption_joined_2", split, ("clip A", "p"), "d", count)
        write_cache(cache(params, split, "caption_joined_2"), np.eye(count, 6) + 0.1, np.arange(count) % 2 == 0, key)
    params.perspectives = ("caption_joined_2", "caption_mean_2", "caption_1")
    pack.main(params, "experiment")
    for split, count in COUNTS.items():
        packed = Packed.load(params.paths.packed("experiment"), split)
        joined, present, _ = read_cache(cache(params, split, "caption_joined_2"), None)
        assert torch.equal(packed.vectors["caption_joined_2"], joined) and torch.equal(packed.present[:, 0], present)
        first, second = (read_cache(cache(params, split, name), None) for name in ("caption_1", "caption_2"))
        both = first[1] & second[1]
        assert torch.equal(packed.present[:, 1], both) and 0 < both.sum() < count
        sums = first[0].float() + second[0].float()
        expected = sums / sums.norm(dim=1, keepdim=True) * both[:, None]
        torch.testing.assert_close(
            packed.vectors["caption_mean_2"].float().where(both[:, None], 0), expected.where(both[:, None], 0),
            atol=1e-3, rtol=0,
        )  # fmt: skip
        assert not packed.vectors["caption_mean_2"][~both].any()
    params.perspectives = ("caption_mean_3",)
    with pytest.raises(CondmixError, match='has no perspective "caption_mean_3"'):
        pack.main(params, "experiment")


def test_the_centre_of_every_vector_that_a_model_may_be_asked_with_is_packed(params):
    centres = {}
    for split, count in COUNTS.items():
        for i, name in enumerate(("image", "caption_1", "caption_2")):
            centres[name] = torch.full((6,), 0.01 * (i + 1))
            key, rows = cache_key(name, split, ("clip A", "p"), "d", count), np.eye(count, 6) + 0.1
            write_cache(cache(params, split, name), rows, np.ones(count, bool), key, centre=centres[name])
    for perspectives, expected in (
        (("image", "class"), {"image", "caption_1"}),  # and the words that may stand in the image's place
        (("caption_mean_2",), {"caption_1", "caption_2"}),
        (("caption_any", "caption_2_of_another"), {"caption_1", "caption_2"}),
    ):
        params.perspectives = perspectives
        pack.main(params, "experiment")
        packed = Packed.load(params.paths.packed("experiment"), "train")
        assert packed.centres.keys() == expected
        assert all(torch.equal(centre, centres[name]) for name, centre in packed.centres.items())


def test_a_random_set_holds_different_captions(params):
    names = ("caption_any_2", "caption_any")
    params.perspectives = names
    pack.main(params, "experiment")
    train, test = (Packed.load(params.paths.packed("experiment"), split) for split in COUNTS)
    first, second = (read_cache(cache(params, "train", name), None) for name in ("caption_1", "caption_2"))
    both = (first[1] & second[1]).nonzero()[:, 0]
    for draw, one, other in ((0.0, first, second), (0.5, second, first)):
        drawn, mask = train.batch(both, draws=torch.tensor([[draw, 0.99]]).expand(len(both), 2))
        assert torch.equal(drawn["caption_any"], one[0][both].float())
        assert torch.equal(drawn["caption_any_2"], other[0][both].float())
        assert mask.all()
    assert torch.equal(train.present, torch.stack([first[1] & second[1], first[1] | second[1]], dim=1))
    assert torch.equal(test.vectors["caption_any_2"], read_cache(cache(params, "test", "caption_2"), None)[0])


def test_pseudo_is_of_pictures_in_training_and_of_words_in_evaluation(params):
    params.perspectives = ("pseudo",)
    pack.main(params, "experiment")
    train, test = (Packed.load(params.paths.packed("experiment"), split) for split in COUNTS)
    for packed, split, source in ((train, "train", "image"), (test, "test", "caption_1")):
        vectors, present, _ = read_cache(cache(params, split, source), None)
        assert torch.equal(packed.vectors["pseudo"], vectors) and torch.equal(packed.present[:, 0], present)
    assert train.variant["perspectives"] == [{"name": "pseudo", "dim": 6, "of": "caption"}]
    for split in COUNTS:  # data without any caption can train it
        for name in ("caption_1", "caption_2"):
            cache(params, split, name).unlink()
    pack.main(params, "experiment")
    assert not Packed.load(params.paths.packed("experiment"), "test").present.any()


def test_mixed_any_draws_true_and_generated_captions_by_their_weights(params):
    for split, count in COUNTS.items():
        key = cache_key("generated_1", split, ("clip A", "p"), "d", count)
        write_cache(cache(params, split, "generated_1"), np.eye(count, 6) + 0.1, np.arange(count) % 2 == 0, key)
    true = torch.stack([read_cache(cache(params, "train", f"caption_{k}"), None)[1] for k in (1, 2)], dim=1)
    present = torch.cat([true, (torch.arange(8) % 2 == 0)[:, None]], dim=1)

    params.perspectives = ("mixed_any", "caption_any")
    pack.main(params, "experiment")
    alike = Packed.load(params.paths.packed("experiment"), "train")
    assert torch.equal(alike.choices["mixed_any"], present.float())

    for weights in ((1.0, 3.0), (0.0, 1.0)):
        params.mixed_any = weights
        pack.main(params, "experiment")
        train, test = (Packed.load(params.paths.packed("experiment"), split) for split in COUNTS)
        assert torch.equal(test.vectors["mixed_any"], test.vectors["caption_any"])  # the first caption
        draws = (torch.arange(4000) + 0.5) / 4000
        for row in range(8):
            index = torch.full((4000,), row)
            drawn, mask = train.batch(index, draws=draws[:, None].expand(4000, 2))
            of_kind = torch.tensor([weights[0]] * 2 + [weights[1]]) * present[row]
            count = torch.tensor([*[present[row, :2].sum()] * 2, 1]).clamp(min=1)
            expected = of_kind / count
            assert mask[:, 0].all() == mask[:, 0].any() == bool(expected.sum() > 0)
            if expected.sum() > 0:
                options = train.vectors["mixed_any"][row].float()
                share = (drawn["mixed_any"][:, None] == options[None]).all(2).float().mean(0)
                torch.testing.assert_close(
                    share[expected > 0], (expected / expected.sum())[expected > 0], atol=1e-3, rtol=0
                )
        # another perspective's draws are what they were
        before, after = (
            packed.batch(torch.arange(8), draws=torch.linspace(0, 0.99, 8)[:, None].expand(8, 2))
            for packed in (alike, train)
        )
        assert torch.equal(before[0]["caption_any"], after[0]["caption_any"])


def test_reference_variants_are_the_report_s():
    assert (REFERENCES["class_v1"].perspectives, REFERENCES["class_v1"].fusion) == (("image", "class"), "concat")
    assert (REFERENCES["class_v2"].perspectives, REFERENCES["class_v2"].fusion) == (("image", "class"), "additive")
    assert (REFERENCES["caption"].perspectives, REFERENCES["caption"].fusion) == (("caption_1",), "additive")
    with pytest.raises(CondmixError, match='no variant "class_v3"; found: class_v1, class_v2, caption, experiment'):
        resolve("class_v3", "mean", ("image",))


def test_packing_again_gives_the_same_bytes_and_no_stale_files(params):
    def content():
        return {path.name: path.read_bytes() for path in params.paths.packed("experiment").iterdir()}

    pack.main(params, "experiment")
    before = content()
    (params.paths.packed("experiment") / "stale.safetensors").write_bytes(b"")
    pack.main(params, "experiment")
    assert content() == before
    assert [path.name for path in params.paths.packed("experiment").parent.iterdir()] == ["experiment"]


def test_a_perspective_that_the_data_lack_is_named(params):
    for split in COUNTS:
        cache(params, split, "class").unlink()
    with pytest.raises(CondmixError) as error:
        pack.main(params, "class_v1")
    assert str(error.value) == (
        'profile colours has no perspective "class" (variant class_v1 needs it); it has: caption_1, caption_2, image'
    )
    assert not params.paths.packed("class_v1").exists()


def test_a_damaged_cache_leaves_the_packed_folder_as_it_was(params):
    pack.main(params, "caption")
    path = cache(params, "test", "caption_1")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CondmixError, match="is damaged"):
        pack.main(params, "caption")
    assert len(Packed.load(params.paths.packed("caption"), "test")) == 5
    assert [path.name for path in params.paths.packed("caption").parent.iterdir()] == ["caption"]


def test_caches_of_different_data_are_refused(params):
    key = cache_key("image", "train", ("clip A", "p"), "d", 6)
    write_cache(cache(params, "train", "image"), np.eye(6), np.ones(6, bool), key)
    with pytest.raises(CondmixError, match=r"different images \(image 6, class 8\)"):
        pack.main(params, "class_v1")


def test_the_fusion_hash_is_of_its_own_file_and_the_shared_base():
    files = pipeline.closure("fusions/film.py", pipeline.NEUTRAL)
    assert files == ["fusions/__init__.py", "fusions/film.py"]
    assert pack.fusion_sha256("film") == pipeline.code_sha256(files) != pack.fusion_sha256("gated")
