"""The stage embed on a tiny CLIP and a data set in memory."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clip_helpers import Colours, colour_params, save_tiny_clip, use_data, write_all_captions
from condmix import CondmixError, pipeline
from condmix.data.embeddings import read_cache, read_centre
from condmix.encoders.timm_image import TimmImage
from condmix.settings.load import plugin
from condmix.stages import embed
from tower_helpers import backbone_settings, save_tiny_backbone
from what_counts import listed, source_files


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Parameters, the data set that the stage will open, and the perspectives it encoded since the last look."""
    params = colour_params(tmp_path)
    save_tiny_clip(params.paths.clip)
    holder = SimpleNamespace(params=params, dataset=Colours(), encoded=[])
    encode_shards = embed.encode_shards

    def counted(job, shards, work, shown):
        holder.encoded.append((job.what, job.column.count))
        return encode_shards(job, shards, work, shown)

    monkeypatch.setattr(embed, "encode_shards", counted)
    use_data(monkeypatch, embed, lambda: holder.dataset)
    holder.run = lambda: run(holder)
    return holder


def run(holder):
    """Write the captions as the stage before does, run the stage, return what it encoded."""
    write_all_captions(holder.params, holder.dataset)
    holder.encoded.clear()
    embed.main(holder.params)
    return dict(holder.encoded)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


COUNTS = {"train": 60, "test": 20}
VECTORS = [f"{split}/{name}.safetensors" for split in COUNTS for name in ("image", "caption_1", "caption_joined_2")]
PERSPECTIVES = ["caption_1", "caption_2", "caption_joined_2", "class", "image"]


def test_every_perspective_of_every_split_is_what_its_encoder_says(world):
    encoded = world.run()
    paths = world.params.paths
    assert files(paths.embeddings) == [f"{s}/{p}.safetensors" for s in ("test", "train") for p in PERSPECTIVES]
    data = world.dataset
    content = {
        "image": ("clip_image", list(data.images("test"))),
        "caption_2": ("clip_text", [texts[1] for texts in data.captions("test")]),
        "caption_joined_2": ("clip_text", [f"{first}. {second}." for first, second in data.captions("test")]),
        "class": ("class_label", data.labels("test")),
    }
    for perspective, (name, items) in content.items():
        encoder = plugin("encoders", name).open(paths.clip, data.class_names)
        vectors, present, metadata = read_cache(paths.embeddings / "test" / f"{perspective}.safetensors", None)
        assert present.all() and metadata["encoder"] == encoder.id
        torch.testing.assert_close(vectors.float(), encoder.encode(items), atol=1e-3, rtol=0)
    assert encoded["train image"] == 60 and encoded["train caption_1"] == 3  # three different captions


def test_each_image_network_makes_a_perspective_of_its_own(world, tmp_path):
    embed_settings = world.params.embed
    embed_settings.encoders = ("clip_image", "timm_image")
    embed_settings.timm = {}
    for seed, name in enumerate(("first", "second")):
        save_tiny_backbone(tmp_path / f"{name}.safetensors", seed)
        embed_settings.timm[name] = backbone_settings(tmp_path / f"{name}.safetensors")
    encoded = world.run()
    assert {name for name in encoded if "test" in name} == {"test image", "test image_first", "test image_second"}
    read = {name: read_cache(world.params.paths.embeddings / "test" / f"{name}.safetensors", None) for name in
            ("image_first", "image_second")}  # fmt: skip
    pictures = list(world.dataset.images("test"))
    for name, (vectors, present, metadata) in read.items():
        own = TimmImage(name, embed_settings.timm[name.removeprefix("image_")], "cpu")
        assert present.all() and metadata["of"] == "image"  # so that evaluation knows it for an oracle
        torch.testing.assert_close(vectors.float(), own.encode(pictures), atol=1e-3, rtol=0)
    assert not torch.equal(read["image_first"][0], read["image_second"][0])


def test_nothing_is_encoded_twice(world):
    world.run()
    before = {path: path.stat().st_mtime_ns for path in world.params.paths.embeddings.rglob("*.safetensors")}
    assert world.run() == {}
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_only_what_changed_is_encoded_again(world):
    world.run()
    captions = {split: world.dataset.captions(split) for split in ("train", "test")}
    captions["train"] = [[first, f"{second}!"] for first, second in captions["train"]]
    world.dataset.captions = captions.get
    assert set(world.run()) == {"train caption_2", "train caption_joined_2"}
    save_tiny_clip(world.params.paths.clip, seed=1)
    assert set(world.run()) == {f"{s} {p}" for s in ("train", "test") for p in PERSPECTIVES if p != "class"}
    (world.params.paths.archives / "data.bin").write_bytes(b"other pixels")
    assert set(world.run()) == {"train image", "test image"}
    damaged = world.params.paths.embeddings / "test" / "class.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert set(world.run()) == {"test class"}


def test_a_reader_that_decodes_differently_is_noticed(world):
    world.run()
    images = Colours.images
    world.dataset.images = lambda split: (255 - image for image in images(world.dataset, split))
    assert set(world.run()) == {"train image", "test image"}


def test_a_change_of_the_readers_code_is_noticed_whichever_pictures_it_touches(world, monkeypatch):
    world.run()
    monkeypatch.setattr(pipeline, "reader_sha256", lambda name: f"another {name}")
    assert set(world.run()) == {"train image", "test image"}


@pytest.mark.parametrize(
    ("encoder", "own"),
    [
        ("class_label", set()),
        ("clip_image", {"clip/folder.py"}),
        ("clip_text", {"clip/folder.py", "clip/huggingface.py"}),
        ("timm_image", {"clip/backbone.py", "clip/huggingface.py"}),
        ("t5_text", {"clip/huggingface.py"}),
    ],
)
def test_a_cache_s_key_has_the_code_of_the_stage_and_of_its_own_encoder(encoder, own, monkeypatch):
    module = f"encoders/{encoder}.py"
    found = source_files(lambda: embed.code_sha256(module), monkeypatch)
    of_encoders = {name for name in listed("embed") if name.startswith(("encoders/", "clip/"))}
    assert found == listed("embed") - of_encoders | {"encoders/__init__.py", module} | own


def test_missing_captions_and_labels_are_absent_not_zero_vectors(world):
    data = world.dataset
    labels = data.labels("train")
    labels[3] = -1
    data.labels = {"train": labels, "test": np.full(20, -1)}.get
    data.captions = lambda split: [["a", "b"][: 1 + (i % 2 == 0 and split == "train")] for i in data.ids(split)]
    world.run()
    folder = world.params.paths.embeddings
    present = {name: read_cache(folder / name, None)[1] for name in files(folder)}
    assert (~present["train/class.safetensors"]).nonzero().tolist() == [[3]]
    for name in ("caption_2", "caption_joined_2"):  # which a picture with one caption lacks too
        assert present[f"train/{name}.safetensors"].tolist() == [i % 2 == 0 for i in range(60)]
    assert not present["test/caption_2.safetensors"].any()  # so that both splits have the same perspectives
    assert not present["test/class.safetensors"].any()


def test_texts_that_the_encoder_cuts_are_counted_and_said_every_time(world, capsys):
    words = {split: [["red", " ".join(["red"] * (9 + i % 3))] for i in range(n)] for split, n in COUNTS.items()}
    world.dataset.captions = words.get  # of 11 to 13 tokens; joined, two more tokens and two full stops: 14 to 16
    for _ in range(2):
        world.run()
        printed = capsys.readouterr().out
        assert "test caption_2: 1 of 3 texts are longer than the 12 tokens that the encoder reads" in printed
        assert "train caption_joined_2: 3 of 3 texts are" in printed
        assert "were cut by 3.0 tokens on average, 4 at most" in printed
        assert "caption_1:" not in printed
    metadata = read_cache(world.params.paths.embeddings / "train" / "caption_joined_2.safetensors", None)[2]
    assert (metadata["texts"], metadata["texts_cut"], metadata["tokens_cut_most"]) == ("3", "3", "4")


def test_centred_vectors_are_about_the_training_splits_mean_in_both_splits(world):
    world.run()
    plain = {name: read_cache(world.params.paths.embeddings / name, None)[0].float() for name in VECTORS}
    world.params.embed.centre = True
    assert set(world.run()) == {f"{s} {p}" for s in COUNTS for p in PERSPECTIVES if p != "class"}  # one-hot stays
    for name in VECTORS:
        path, mean = world.params.paths.embeddings / name, plain[f"train/{name.partition('/')[2]}"].mean(dim=0)
        torch.testing.assert_close(read_centre(path), mean, atol=1e-3, rtol=0)
        moved = torch.nn.functional.normalize(plain[name] - read_centre(path), dim=1)
        torch.testing.assert_close(read_cache(path, None)[0].float(), moved, atol=0.02, rtol=0)  # fp16 before, not here
    assert world.run() == {}
    captions = {split: world.dataset.captions(split) for split in COUNTS}
    captions["train"] = [[first, f"{second}!"] for first, second in captions["train"]]
    world.dataset.captions = captions.get  # other training captions: another mean for the test split too
    assert set(world.run()) == {f"{s} caption_{k}" for s in COUNTS for k in ("2", "joined_2")}


def test_perspectives_no_longer_made_are_deleted(world):
    world.run()
    world.params.embed.captions = 1
    assert world.run() == {}
    assert "train/caption_2.safetensors" not in files(world.params.paths.embeddings)


def test_a_data_set_that_gives_another_number_of_pictures_is_refused(world):
    images = Colours.images
    world.dataset.images = lambda split: list(images(world.dataset, split))[:-1]
    with pytest.raises(CondmixError, match="gave 59 images, but announced 60"):
        world.run()
    world.dataset.images = lambda split: [*images(world.dataset, split)] * 2
    with pytest.raises(CondmixError, match="more than the 60 images"):
        world.run()
    assert not files(world.params.paths.embeddings)


def test_captions_of_another_data_set_are_refused(world):
    world.dataset.captions = lambda split: [["a"]] * 5
    with pytest.raises(CondmixError, match="captions for 5 images, but the split train has 60"):
        world.run()
