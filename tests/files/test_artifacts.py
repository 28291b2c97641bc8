"""Every file of ours, damaged in every way, ends in one sentence that names it and the command that makes it again.

A tiny project is written once with all its artefacts; each case copies one folder of it, damages one file and reads.
"""

import functools
import hashlib
import json
import operator
import os
import shutil
import struct
import zipfile
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from condmix import CondmixError
from condmix.clip.shifted_diffusion import Shape, ShiftedPrior, load_prior, save_prior
from condmix.data.captions import read_captions, read_claims, read_generated, write_captions
from condmix.data.embeddings import cache_key, numbered, read_cache, write_cache
from condmix.data.imported import read_embeddings
from condmix.data.packed import Packed
from condmix.data.prepared import Split
from condmix.diffusion.model import Architecture, ConditionalModel, load_model, save_model
from condmix.evaluation import reference
from condmix.evaluation.judges import Judge
from condmix.experiments import findings
from condmix.experiments.evidence import Finished, Origin
from condmix.experiments.grid import Cost
from condmix.files.artifacts import (
    read_array,
    read_arrays,
    read_checked_json,
    write_checked_json,
    write_checked_tensors,
)
from condmix.files.atomic import write_json
from condmix.results.details import Details
from condmix.results.rows import read_metrics
from condmix.stages import embed, generate_captions
from condmix.stages.train import run
from condmix.training.trainer import Trainer
from fake_results import change_card, image_variant
from fake_results import project as write_results
from tiny_project import write_dataset, write_packed

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the artefacts: how each is written, the file to damage, and how it is read ----


def dataset(folder):
    write_dataset(folder / "dataset", train=6, test=2)
    return lambda: Split.load(folder / "dataset", "train")


def packed(folder):
    write_packed(folder / "experiment", "experiment", "concat", ["image", "class", "caption_1"], train=6, test=4)
    return lambda: Packed.load(folder / "experiment", "test")


def captions(folder):
    write_captions(folder / "captions" / "train.json", [["a", "b"], []], "human")
    return lambda: read_captions(folder / "captions", "train")


def generated(folder):
    rows = [[{"text": "a", "prompt": None, "seed": 1, "similarity": 0.5}], []]
    generate_captions.write_generated(folder / "generated" / "train.json", rows, {"model": "m"}, [[[0, -1]], []])
    return lambda: (read_generated(folder / "generated", "train"), read_claims(folder / "generated", "train"))


def model(folder):
    made = Architecture(
        fusion="concat", perspectives={"caption_1": 4, "class": 3}, dim=4,
        image_size=8, channels=8, multipliers=(1, 2), blocks=1, attention=(4,),
    )  # fmt: skip
    torch.manual_seed(0)
    card = {
        "variant": "experiment", "fusion": "concat", "perspectives": "caption_1+class", "architecture": asdict(made),
        "encoder": "clip", "class_names": ["a", "b", "c"], "diffusion.schedule": "cosine", "diffusion.steps": 10,
        "diffusion.prediction": "v", "train.ema": 0.9,
    }  # fmt: skip
    save_model(folder / "experiment", ConditionalModel(made).state_dict(), card)
    return lambda: load_model(folder / "experiment")


def judge(folder):
    torch.manual_seed(0)
    Judge("small_cnn", {"shape": ["round", "long"]}, 8).save(folder / "judge", {"accuracy": {"shape": 0.9}, "n": 4})
    return lambda: Judge.load(folder / "judge")


def prior(folder):
    (folder / "prior").mkdir()
    facts = {"encoder": "clip", "sample_steps": 4, "guidance": 1.5}
    save_prior(folder / "prior", ShiftedPrior(Shape(dim=4, clusters=2, width=8, blocks=1)), facts)
    return lambda: load_prior(folder / "prior", "clip")


def cache(folder):
    vectors, present = torch.ones(5, 4), torch.tensor([True] * 4 + [False])
    path = folder / "embeddings" / "image.safetensors"
    write_cache(path, vectors, present, cache_key("image", "train", ("clip", "p"), "d", 5))
    return lambda: read_cache(path, {"perspective": "image"})


def results(folder):
    params = write_results(folder, image_variant("class_v1"))
    return lambda: [Details.read(params, facts) for facts in read_metrics(params)]


def finished(folder):
    arrays = {
        "ids": np.arange(4), "right": np.ones((4, 2), bool), "mentions": np.ones((4, 5, 2), bool),
        "attribute_names": np.array(["shape", "colour"]), "caption_ranks": np.ones((4, 5)),
        "told": np.zeros((4, 5), bool), "right shuffled": np.ones((2, 2), bool),
    }  # fmt: skip
    np.savez_compressed(folder / "pictures.npz", **arrays)
    sample = {"id": 1, "captions": ["a"], "condition_captions": ["a"], "class": None, "seed": 3}
    facts = {"condition": "captions"}
    write_json(folder / "details.json", {"metrics": facts, "card": {"seconds": 1.0}, "samples": [sample]})
    return lambda: findings.read_run(Finished("a", 0, facts, folder, Origin("", {})))


def cost(folder):
    write_checked_json(folder / "model.json", {"profile": "demo", "images_seen": 100, "seconds": 4.5})
    return lambda: read_checked_json(folder / "model.json", Cost, "dvc repro train@caption")


ARTEFACTS = {
    "dataset/meta.json": (dataset, "dvc repro prepare"),
    "dataset/train_images.npy": (dataset, "dvc repro prepare"),
    "dataset/train_ids.npy": (dataset, "dvc repro prepare"),
    "dataset/train_labels.npy": (dataset, "dvc repro prepare"),
    "dataset/train_attributes.npy": (dataset, "dvc repro prepare"),
    "dataset/train_mentions.npy": (dataset, "dvc repro prepare"),
    "experiment/variant.json": (packed, "dvc repro pack@experiment"),
    "experiment/test.safetensors": (packed, "dvc repro pack@experiment"),
    "captions/train.json": (captions, "dvc repro captions"),
    "generated/train.json": (generated, "dvc repro generate_captions"),
    "experiment/model.json": (model, "dvc repro train@experiment"),
    "experiment/model.safetensors": (model, "dvc repro train@experiment"),
    "judge/model.json": (judge, "dvc repro judge"),
    "judge/model.safetensors": (judge, "dvc repro judge"),
    "prior/prior.json": (prior, "dvc repro prior"),
    "prior/model.safetensors": (prior, "dvc repro prior"),
    "embeddings/image.safetensors": (cache, "dvc repro embed"),
    "metrics/class_v1.json": (results, "dvc repro evaluate@class_v1"),
    "metrics/details/class_v1/details.json": (results, "dvc repro --force evaluate@class_v1"),
    "metrics/details/class_v1/real.npy": (results, "dvc repro --force evaluate@class_v1"),
    "metrics/losses/class_v1.csv": (results, "dvc repro train@class_v1"),
    "pictures.npz": (finished, "condmix experiments report"),
    "details.json": (finished, "condmix experiments report"),
    "model.json": (cost, "dvc repro train@caption"),
}
# Files that only people look at hold no checksum of themselves.
CHECKED = [name for name in ARTEFACTS if name.endswith((".npy", ".safetensors", ".npz")) and "details" not in name]


def of_kind(*endings):
    return [name for name in ARTEFACTS if name.endswith(endings)]


# ---- the damages ----


def npy(path, header):
    """Replace an array's header, which is text in Python's syntax."""
    text = header.encode() + b"\n"
    data = path.read_bytes()[-8:]
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def loop_instead(path):
    path.unlink()
    path.symlink_to(path)


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def cast(path, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)


ANY = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": folder_instead,
    "a loop": loop_instead,
    "a pipe": pipe_instead,
}
JSON = {
    "UTF-16": lambda path: path.write_text(path.read_text(), encoding="utf-16"),
    "a number": lambda path: path.write_text("5"),
    "a text": lambda path: path.write_text('"text"'),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[]"),
    "an empty mapping": lambda path: path.write_text('{"x": 1}'),
    "deep": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "NaN": lambda path: path.write_text(path.read_text().rstrip()[:-1] + ', "loss": NaN}'),
    "too large a number": lambda path: path.write_text(path.read_text().rstrip()[:-1] + ', "loss": 1e999}'),
}
ARRAY = {
    "no Python in the header": lambda path: npy(path, "{'descr': ("),
    "a negative shape": lambda path: npy(path, "{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 8, 8, 3), }"),
    "a huge shape": lambda path: npy(path, "{'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 10**9), }"),
    "a huge number": lambda path: npy(path, f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({10**30},), }}"),
    "pickled": lambda path: np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "another type": lambda path: np.save(path, np.load(path).astype(np.float64)),
    "a row too few": lambda path: np.save(path, np.load(path)[1:]),
    "column by column": lambda path: np.save(path, np.zeros((5, 5), order="F")),
    "bytes behind its end": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}
TENSORS = {
    "8-bit floats": lambda path: cast(path, torch.float8_e4m3fn),
    "a huge header": lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]),
    "a tensor too few": lambda path: save_file(dict(list(load_file(path).items())[1:]), path),
    "a pickle": lambda path: torch.save({"a": torch.ones(3)}, path),
    "bytes behind its end": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
}
CASES = [
    *((name, kind, damage) for name in ARTEFACTS for kind, damage in ANY.items()),
    # a model's cost is known from any mapping
    *((name, kind, damage) for name in of_kind(".json") for kind, damage in JSON.items()
      if (name, kind) != ("model.json", "an empty mapping")),
    *((name, kind, damage) for name in of_kind(".npy") for kind, damage in ARRAY.items()),
    *((name, kind, damage) for name in of_kind(".safetensors") for kind, damage in TENSORS.items()),
    *((name, "a flipped bit", flip) for name in CHECKED if not name.endswith(".npz")),
]  # fmt: skip


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """Each group of artefacts by the name of its function: the folder it was written to, a copy, and its reader."""
    made = {}
    for write in {write for write, _ in ARTEFACTS.values()}:
        folder, copy = (tmp_path_factory.mktemp(write.__name__) / name for name in ("project", "copy"))
        folder.mkdir()
        reader = write(folder)
        reader()
        made[write.__name__] = folder, shutil.copytree(folder, copy), reader
    return made


@pytest.fixture
def damage(templates):
    """damage(name, how): damages the file in its folder, which is whole before, and returns its path and the reader."""

    def prepared(name, how):
        folder, copy, reader = templates[ARTEFACTS[name][0].__name__]
        shutil.rmtree(folder)
        shutil.copytree(copy, folder)
        how(folder / name)
        return folder / name, reader

    return prepared


@pytest.mark.parametrize("name, kind, how", CASES, ids=[f"{name}: {kind}" for name, kind, _ in CASES])
def test_damage_ends_in_a_sentence_with_the_file_and_what_makes_it_again(damage, name, kind, how):
    path, reader = damage(name, how)
    with pytest.raises(CondmixError) as error:
        reader()
    sentence = str(error.value)
    assert str(path) in sentence and ARTEFACTS[name][1] in sentence and "\n" not in sentence
    assert ("is missing" in sentence) == (kind == "missing")
    assert ("damaged" in sentence) == (kind not in ("missing", "a folder", "a loop", "a pipe"))


@pytest.mark.parametrize("name", of_kind(".json"))
def test_any_value_of_another_type_is_refused_or_makes_no_difference(damage, name):
    """Each key of each JSON file, absent and of each wrong type: a CondmixError or a result, never another error."""
    path, reader = damage(name, lambda path: None)
    content = json.loads(path.read_text())
    refused = 0
    for place in places(content):
        for value in (None, 5, -1, 10**30, "text", [], {}, [[]], {"x": "y"}, [5], True, 0.5):
            path.write_text(json.dumps(changed(content, place, value)))
            try:
                reader()
            except CondmixError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > len(list(places(content)))


def places(content, above=()):
    """The way to every value, three levels deep, one element of each list."""
    entries = content.items() if isinstance(content, dict) else enumerate(content[:1])
    for key, value in entries:
        yield (*above, key)
        if isinstance(value, dict | list) and len(above) < 2:
            yield from places(value, (*above, key))


def changed(content, place, value):
    """A copy with another value at this place, or for None without it."""
    copy = json.loads(json.dumps(content))
    *way, last = place
    inner = functools.reduce(operator.getitem, way, copy)
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return copy


# ---- what only one kind of file can have ----


def rewrite(path, **tensors):
    """Change a model's weights and its card's checksum with them."""
    save_file({**load_file(path), **tensors}, path)
    card = path.with_name("prior.json" if path.parent.name == "prior" else "model.json")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    change_card(card, {"sha256": sha256})


@pytest.mark.parametrize(
    "name", ["experiment/variant.json", "experiment/model.json", "judge/model.json", "prior/prior.json", "model.json"]
)
def test_a_card_that_was_changed_is_refused(damage, name):
    """Though it still fits its schema, which allows further keys."""

    def changed(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"further": 1}))

    path, reader = damage(name, changed)
    with pytest.raises(CondmixError, match=f"{path} is damaged .its content does not match its checksum"):
        reader()


def test_a_card_of_an_earlier_version_says_what_to_run(damage):
    def old(path):
        card = json.loads(path.read_text())
        del card["content_sha256"]
        path.write_text(json.dumps(card))

    path, reader = damage("experiment/model.json", old)
    with pytest.raises(CondmixError, match=f"{path} is damaged .it lacks content_sha256.* dvc repro train@experiment"):
        reader()


@pytest.mark.parametrize("name", ["experiment/model.safetensors", "judge/model.safetensors", "prior/model.safetensors"])
@pytest.mark.parametrize(
    "change, says",
    [
        (lambda tensor: torch.full_like(tensor, torch.nan), "holds NaN or infinity"),
        (lambda tensor: tensor[..., None], "of shape"),
        (lambda tensor: tensor.double(), "float64"),
    ],
)
def test_weights_that_are_no_weights_are_refused(damage, name, change, says):
    def altered(path):
        first = next(name for name, tensor in load_file(path).items() if tensor.is_floating_point())
        rewrite(path, **{first: change(load_file(path)[first])})

    path, reader = damage(name, altered)
    with pytest.raises(CondmixError, match=f"{path} is damaged .*{says}"):
        reader()


def test_a_network_that_cannot_be_built_is_refused(damage):
    def odd(path):
        card = json.loads(path.read_text())
        change_card(path, {"architecture": card["architecture"] | {"fusion": "magic"}})

    path, reader = damage("experiment/model.json", odd)
    with pytest.raises(CondmixError, match=f'{path} is damaged .no fusion "magic"; found: '):
        reader()


def altered_array(name, change):
    """Change a prepared array and the checksum in meta.json with it."""

    def how(path):
        array = change(np.load(path))
        np.save(path, array)
        meta = json.loads((path.parent / "meta.json").read_text())
        meta["splits"]["train"]["sha256"][name] = hashlib.sha256(array).hexdigest()
        (path.parent / "meta.json").write_text(json.dumps(meta))

    return how


@pytest.mark.parametrize("name", ["labels", "attributes"])
@pytest.mark.parametrize("value", [3, -2])
def test_labels_out_of_range_are_refused(damage, name, value):
    path, reader = damage(f"dataset/train_{name}.npy", altered_array(name, lambda array: np.full_like(array, value)))
    with pytest.raises(CondmixError, match=f"{path} is damaged .it holds {value} to {value}, .* names 3 values"):
        reader()


def test_a_prepared_array_that_meta_does_not_list_is_not_dropped_in_silence(damage):
    def unlisted(path):
        meta = json.loads(path.read_text())
        del meta["splits"]["train"]["sha256"]["attributes"]
        path.write_text(json.dumps(meta))

    path, reader = damage("dataset/meta.json", unlisted)
    with pytest.raises(CondmixError, match=f"{path} is damaged .it does not list train_attributes.npy"):
        reader()


def repacked(change):
    """Change a packed split and its checksum in variant.json with it."""

    def how(path):
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        card = json.loads((path.parent / "variant.json").read_text())
        sums = card["sha256"] | {"test": hashlib.sha256(path.read_bytes()).hexdigest()}
        change_card(path.parent / "variant.json", {"sha256": sums})

    return how


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda tensors: tensors.pop("image"), 'it lacks "image"'),
        (lambda tensors: tensors.pop("image.present"), 'it lacks "image.present"'),
        (lambda tensors: tensors.update(image=tensors["image"][:2].clone()), '"image.present" is torch.bool of shape'),
        (lambda tensors: tensors.update(image=tensors["image"][:, :3].clone()), r"of shape \(4, 3\), not"),
        (lambda tensors: tensors.update(image=tensors["image"].double()), "float64"),
        (
            lambda tensors: tensors.update(
                {name: tensors[name][:2].clone() for name in ("class", "class.present")},
            ),
            "its perspectives have 2 and 4 rows",
        ),
    ],
)
def test_packed_tensors_that_do_not_fit_are_refused(damage, change, says):
    path, reader = damage("experiment/test.safetensors", repacked(change))
    with pytest.raises(CondmixError, match=f"{path} is damaged .*{says}"):
        reader()


def test_another_file_beside_the_caches_is_no_perspective(tmp_path):
    for name in ("caption_2", "caption_10", "caption_x", "caption_01", "caption_1_again"):
        (tmp_path / f"{name}.safetensors").touch()
    assert numbered(tmp_path, "caption") == ["caption_2", "caption_10"]


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: archive.replace(b"\x00\x00\x00\x08\x00", b"\x00\x00\x00\x63\x00"),  # an unknown compression
        lambda archive: archive[:80] + bytes(40) + archive[120:],  # inside a compressed array
        lambda archive: archive[: len(archive) // 2],
    ],
)
def test_a_damaged_archive_of_arrays(tmp_path, change):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, vectors=np.random.default_rng(0).normal(size=(20, 6)), ids=np.arange(20))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CondmixError, match=f"{path} is damaged .*run it again"):
        read_arrays(path, "it again")
    with pytest.raises(CondmixError, match=f"{path} is damaged .*docs/embeddings.md"):
        read_embeddings(path, "dino_1", "test")


def test_imported_vectors_of_8_bits_are_read_or_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    vectors = torch.ones(3, 4).to(torch.float8_e4m3fn)
    facts = {"perspective": "dino_1", "split": "test", "encoder": "d", "of": "image"}
    save_file({"vectors": vectors, "ids": torch.arange(3)}, path, facts)
    read = read_embeddings(path, "dino_1", "test")
    assert np.array_equal(read.vectors, np.ones((3, 4), np.float32))


def test_an_array_of_length_zero_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 3), np.int64))
    assert read_array(tmp_path / "a.npy", np.int64, (0, 3), "again").shape == (0, 3)


# ---- partial results: a damaged shard is made again ----


def every_damage(path, kinds):
    """Damage the file in each way, whole again in between."""
    whole = path.read_bytes()
    for how in kinds.values():
        path.write_bytes(whole)
        how(path)
        yield
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    path.write_bytes(whole)


def test_a_damaged_shard_of_captions_counts_as_not_written(tmp_path):
    path, caption = tmp_path / "train-0.json", {"text": "a", "prompt": None, "seed": 1, "similarity": 0.5}
    shard = {"rows": [[caption], []], "mismatched": [0.25], "seconds": 1.5}
    write_checked_json(path, shard)
    assert generate_captions.read_shard(path, 2) == shard
    assert generate_captions.read_shard(path, 3) is None
    kinds = {**ANY, **JSON, "a flipped letter": lambda path: path.write_text(path.read_text().replace('"a"', '"b"'))}
    for _ in every_damage(path, kinds):
        assert generate_captions.read_shard(path, 2) is None
    for rows in (5, [5], [[{**caption, "similarity": "text"}], []]):  # with a right checksum
        write_checked_json(path, shard | {"rows": rows})
        assert generate_captions.read_shard(path, 2) is None
        with pytest.raises(CondmixError, match="is damaged"):
            read_checked_json(path, generate_captions.Shard, "again")


def test_a_damaged_shard_of_embeddings_counts_as_not_written(tmp_path):
    path = tmp_path / "00000.safetensors"
    job = SimpleNamespace(column=SimpleNamespace(count=3), encoder=SimpleNamespace(dim=2))
    write_checked_tensors(path, {embed.FEATURES: torch.ones(3, 2)}, {})
    assert embed._is_whole(job, path, slice(0, None))
    assert not embed._is_whole(job, path, slice(0, 2))  # of other rows
    for _ in every_damage(path, {**ANY, **TENSORS, "a flipped bit": flip}):
        assert not embed._is_whole(job, path, slice(0, None))


def test_damaged_reference_features_are_made_again(tmp_path):
    path = tmp_path / "judge.safetensors"
    write_checked_tensors(path, {"features": torch.ones(3, 2)}, {"n": "3"})
    assert torch.equal(reference._cached(path, {"n": "3"})["features"], torch.ones(3, 2))
    assert reference._cached(path, {"n": "4"}) is None
    for _ in every_damage(path, {**ANY, **TENSORS, "a flipped bit": flip}):
        assert reference._cached(path, {"n": "3"}) is None


# ---- checkpoints ----


@pytest.fixture
def trained(project, monkeypatch):
    """The trainer of a run that was trained to its end, and its checkpoint's file."""
    monkeypatch.setenv("CONDMIX_TRACKING", "off")
    run(project, "experiment")
    trainer = Trainer(project, "experiment", Accelerator(cpu=True))
    return trainer, trainer.checkpoint.path


def test_a_damaged_checkpoint_is_refused_with_what_to_do(trained):
    trainer, path = trained
    kinds = {name: how for name, how in ANY.items() if name != "missing"}
    for _ in every_damage(path, {**kinds, **TENSORS, "a flipped bit": flip, "in the note": lambda p: flip(p, 60)}):
        if path.is_symlink():
            continue  # a loop does not exist, so training starts anew
        with pytest.raises(CondmixError) as error:
            trainer.resume()
        assert str(path) in str(error.value) and "trains from the start" in str(error.value)
    trainer.resume()


def saved(trainer):
    tensors, note = trainer.checkpoint.load()
    return dict(tensors), dict(note)


def without_optimiser(tensors, note):
    for name in [name for name in tensors if name.startswith("optimizer")]:
        del tensors[name]


FOREIGN = [
    (lambda tensors, note: tensors.pop("average.0"), 'it lacks "average.0"'),
    (lambda tensors, note: tensors.pop("model.fusion.null"), 'it lacks "fusion.null"'),
    (lambda tensors, note: tensors.pop("optimizer.0.3.exp_avg"), 'it lacks "optimizer.0.3.exp_avg"'),
    (without_optimiser, 'it lacks "optimizer.0.0.step"'),
    (lambda tensors, note: tensors.pop("optimizer.1.3.momentum"), 'it lacks "optimizer.1.3.momentum"'),
    (lambda tensors, note: tensors.update({"average.0": torch.ones(3)}), "of shape"),
    (lambda tensors, note: tensors.update({"model.extra": torch.ones(3)}), "which the network does not have"),
    (lambda tensors, note: note.update(step=13), "it is of step 13, but the run has 12 steps"),
    (lambda tensors, note: note.update(step="12"), "step: "),
    (lambda tensors, note: note.update(step=0), "step: "),
    (lambda tensors, note: note.pop("step"), "it lacks step"),
    (lambda tensors, note: note.update(rows=[]), "its loss curve is empty"),
    (lambda tensors, note: note.update(rows=[[1, 2]]), "rows.0"),
    (lambda tensors, note: note.update(seconds=0), "seconds: "),
]


def test_a_checkpoint_of_another_run_is_refused(trained):
    trainer, path = trained
    for change, says in FOREIGN:
        tensors, note = saved(trainer)
        change(tensors, note)
        whole = path.read_bytes()
        trainer.checkpoint.save(tensors, note)  # with a right checksum
        with pytest.raises(CondmixError, match=f"{path} is damaged .*{says}.*: delete it and run"):
            trainer.resume()
        path.write_bytes(whole)
    trainer.checkpoint.save(saved(trainer)[0], [1, 2])
    with pytest.raises(CondmixError, match="is damaged"):
        trainer.resume()


@pytest.mark.parametrize("content", [b"", b"noise"])
def test_an_npz_entry_that_is_no_array_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    np.savez(path, ids=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vectors.npy", content)
    with pytest.raises(CondmixError, match=f'{path} is damaged .its entry "vectors" is not an array'):
        read_arrays(path, "again")
