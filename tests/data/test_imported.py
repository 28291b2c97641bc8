"""Vectors that someone else computed: files are read, checked, put into the data set's order, and packed."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clip_helpers import Colours, colour_params, save_tiny_clip, use_data, write_all_captions
from condmix import CondmixError
from condmix.clip.probes import zero_shot
from condmix.data.embeddings import read_cache
from condmix.data.imported import read_embeddings
from condmix.datasets._cifar_format import write_cifar
from condmix.settings.load import plugin
from condmix.settings.schema import Import
from condmix.stages import embed, pack
from real_data import shared
from t5_helpers import save_tiny_t5, t5_settings

FACTS = {"perspective": "dino_1", "split": "test", "encoder": "DINO v9", "of": "image"}
RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(20, 6)).astype(np.float32)


def write(path, vectors=VECTORS, ids=None, **facts):
    """An embedding file as docs/embeddings.md describes it; returns the line of embed.imports that names it."""
    facts = {name: value for name, value in (FACTS | facts).items() if value is not None}
    ids = np.arange(len(vectors)) if ids is None else np.array(ids)
    if path.suffix == ".npz":
        np.savez(path, vectors=vectors, ids=ids, **facts)
    else:
        save_file({"vectors": torch.as_tensor(vectors), "ids": torch.from_numpy(ids)}, path, facts)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    one = {"perspective": facts["perspective"], "split": facts["split"]} if len(facts) == len(FACTS) else FACTS
    return Import(perspective=one["perspective"], split=one["split"], path=str(path), sha256=sha256)


def read(one):
    return read_embeddings(one.verified("embed.imports"), one.perspective, one.split)


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_both_formats_give_what_was_written_in_the_data_set_s_order(tmp_path, name):
    file = read(write(tmp_path / name, ids=RNG.permutation(20) + 100))
    assert (file.encoder, file.of, file.width) == ("DINO v9", "image", 6)
    ids = list(range(90, 125))
    vectors, present = file.ordered(ids)
    assert present.tolist() == [100 <= id_ < 120 for id_ in ids]
    for row, id_ in enumerate(file.ids):
        assert np.array_equal(vectors[ids.index(id_)], VECTORS[row])


def test_half_precisions_are_read(tmp_path):
    for dtype in (torch.float16, torch.bfloat16):
        half = torch.from_numpy(VECTORS).to(dtype)
        assert np.array_equal(read(write(tmp_path / "a.safetensors", half)).vectors, half.float().numpy())


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"encoder": None}, "lacks encoder"),
        ({"perspective": "dino_2"}, "of perspective dino_2, but .* says dino_1"),
        ({"split": "train"}, "of split train, but .* says test"),
        ({"of": "sound"}, 'of is "sound", but vectors are made of image, caption, class'),
        ({"vectors": VECTORS[0]}, r"floats \(N, D\), not float32 \(6,\)"),
        ({"vectors": np.ones((3, 2), np.int64)}, "must be floats"),
        ({"ids": [0, 1, 2]}, "ids must be 20 integers"),
        ({"ids": [*range(19), 3]}, "several vectors of picture 3"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_refused(tmp_path, changes, says):
    one = write(tmp_path / "a.npz", **changes)
    with pytest.raises(CondmixError, match=says):
        read_embeddings(Path(one.path), "dino_1", "test")


def test_other_files_are_refused(tmp_path):
    pickled = tmp_path / "b.npz"
    np.savez(pickled, vectors=np.array([{"a": 1}], dtype=object))
    for path in (pickled, tmp_path / "c.npz", tmp_path / "c.safetensors", tmp_path / "c.pt"):
        if not path.exists():
            path.write_bytes(b"no vectors")
        with pytest.raises(CondmixError, match=r"is damaged|are imported from \.safetensors or \.npz"):
            read_embeddings(path, "dino_1", "test")


# In the pipeline


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The parameters of a data set in memory, with its captions, ready for the stage embed."""
    params, data = colour_params(tmp_path), Colours()
    save_tiny_clip(params.paths.clip)
    write_all_captions(params, data)
    use_data(monkeypatch, embed, lambda: data)
    return params


def test_imported_vectors_become_a_perspective_that_a_variant_reads(world, tmp_path):
    world.embed.imports = (write(tmp_path / "a.npz", VECTORS[:15], ids=range(5, 20)),)
    embed.main(world)
    vectors, present, metadata = read_cache(world.paths.embeddings / "test" / "dino_1.safetensors", None)
    assert present.tolist() == [i >= 5 for i in range(20)] and metadata["encoder"] == "DINO v9"
    expected = torch.nn.functional.normalize(torch.from_numpy(VECTORS[:15]), dim=-1)
    torch.testing.assert_close(vectors[5:].float(), expected, atol=1e-3, rtol=0)
    _, in_training, _ = read_cache(world.paths.embeddings / "train" / "dino_1.safetensors", None)
    assert len(in_training) == 60 and not in_training.any()  # no file: absent, with the same width

    world.perspectives = ("caption_1", "dino_1", "dino_1_of_another")
    pack.main(world, "experiment")
    card = json.loads((world.paths.packed("experiment") / "variant.json").read_text())
    assert card["perspectives"] == [
        {"name": "caption_1", "dim": 16},
        {"name": "dino_1", "dim": 6, "of": "image"},
        {"name": "dino_1_of_another", "dim": 6, "of": "image"},
    ]
    world.embed.imports = ()
    embed.main(world)
    assert not list(world.paths.embeddings.glob("*/dino_1.safetensors"))


def test_an_imported_file_is_written_again_when_it_changes(world, tmp_path, capsys):
    world.embed.imports = (write(tmp_path / "a.npz"),)
    embed.main(world)
    path = world.paths.embeddings / "test" / "dino_1.safetensors"
    first = path.read_bytes()
    capsys.readouterr()
    embed.main(world)
    assert f"{path}: up to date" in capsys.readouterr().out
    world.embed.imports = (write(tmp_path / "a.npz", -VECTORS),)
    embed.main(world)
    assert path.read_bytes() != first


@pytest.mark.parametrize(
    "train, says",
    [
        ({"vectors": VECTORS[:, :5]}, "dino_1 differ in width, 5 in training and 6 in the test split"),
        ({"encoder": "DINO v8"}, "differ in encoder, DINO v8 in training and DINO v9 in the test"),
        ({"of": "caption"}, "differ in of, caption in training and image"),
        ({"ids": range(50, 70)}, "10 pictures that the data set does not have, first of id 60"),
        ({"vectors": np.where(np.eye(20, 6) > 0, np.nan, VECTORS)}, r"dino_1 \(train\) hold a NaN .* in 6 rows"),
    ],
)
def test_files_that_do_not_fit_the_data_or_each_other_write_no_cache(world, tmp_path, train, says):
    world.embed.imports = (write(tmp_path / "a.npz", split="train", **train), write(tmp_path / "b.npz"))
    with pytest.raises(CondmixError, match=says):
        embed.main(world)
    assert not list(world.paths.embeddings.glob("train/dino_1*"))


def test_vectors_of_a_caption_that_no_picture_has_are_refused(world, tmp_path):
    world.embed.imports = (write(tmp_path / "a.npz", perspective="blip_3", of="caption"),)
    with pytest.raises(CondmixError, match="blip_3 is of each picture's caption number 3, but 2 are in use"):
        embed.main(world)


def test_captions_through_a_t5_are_perspectives_too(world, tmp_path):
    pytest.importorskip("transformers")
    save_tiny_t5(tmp_path / "t5")
    world.embed.t5, world.embed.encoders = t5_settings(tmp_path / "t5"), (*world.embed.encoders, "t5_text")
    embed.main(world)
    t5 = plugin("encoders", "t5_text").open(None, [], settings=world.embed.t5)
    vectors, present, metadata = read_cache(world.paths.embeddings / "test" / "t5_2.safetensors", None)
    texts = [texts[1] for texts in Colours().captions("test")]
    torch.testing.assert_close(vectors.float(), t5.encode(texts), atol=1e-3, rtol=0)
    assert present.all() and metadata["encoder"] == t5.id and metadata["of"] == "caption"
    _, _, clip = read_cache(world.paths.embeddings / "test" / "caption_2.safetensors", None)
    assert "of" not in clip  # the name says it


@pytest.mark.slow
def test_openai_s_clip_vectors_tell_the_classes_after_the_import_as_before(tmp_path):
    """Zero-shot accuracy of CLIP ViT-B/32 on the first 500 CIFAR-10 test pictures, from the caches of the stage."""
    vectors = shared("clip_vitb32_embeddings")
    pictures, classes = (np.load(vectors / f"cifar10_{name}.npz") for name in ("test500_images", "class_text"))
    params, labels = colour_params(tmp_path), pictures["labels"]
    params.data = SimpleNamespace(dataset="cifar10", world={})
    write_cifar(
        params.paths.archives,
        {"train": pictures["images"][:5], "test": pictures["images"]},
        {"train": labels[:5].tolist(), "test": labels.tolist()},
        classes["class_names"].tolist(),
    )
    params.paths.captions.mkdir(parents=True)
    for split, count in (("train", 5), ("test", 500)):
        (params.paths.captions / f"{split}.json").write_text(json.dumps({"captions": [[]] * count}))
    save_tiny_clip(params.paths.clip)
    made = {"encoder": "OpenAI CLIP ViT-B/32"}
    mixed = RNG.permutation(500)
    params.embed.imports = (
        write(tmp_path / "a.npz", pictures["image_embeds"][mixed], mixed, perspective="openai_1", **made),
        write(tmp_path / "b.npz", classes["text_embeds"][labels], perspective="label_1", of="class", **made),
    )
    embed.main(params)

    images, label_vectors = (
        read_cache(params.paths.embeddings / "test" / f"{name}.safetensors", None)[0].float()
        for name in ("openai_1", "label_1")
    )
    truth = plugin("datasets", "cifar10")(params.paths.archives, {}).labels("test")
    prompts = torch.stack([label_vectors[list(truth).index(number)] for number in range(10)])
    assert zero_shot(images, prompts, torch.from_numpy(truth)) == pytest.approx(0.896, abs=0.002)
    others = torch.from_numpy(RNG.permutation(truth))
    assert zero_shot(images, prompts, others) < 0.2  # chance is 0.1
