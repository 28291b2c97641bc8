"""Caches of vectors: what is written comes back, and anything doubtful is refused by name."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from condmix import CondmixError
from condmix.data.embeddings import (
    cache_key,
    centre_of,
    centred,
    cut_facts,
    cut_sentence,
    mean,
    read_cache,
    read_centre,
    read_metadata,
    write_cache,
)

PRESENT = np.array([True, True, False, True, True, True])


def key(count=6, **changes):
    fields = {"perspective": "image", "split": "train", "encoder": ("clip A", "p"), "data": "d"}
    return cache_key(**fields | changes, count=count)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(3, 2, (6, 4)).astype(np.float32)


def test_a_mean_points_between_its_unit_vectors_and_has_unit_norm():
    unit = torch.nn.functional.normalize(torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = mean(unit)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(5))
    sums = unit.sum(dim=1)
    torch.testing.assert_close((found * sums).sum(dim=-1), sums.norm(dim=-1))  # the same direction
    torch.testing.assert_close(mean(unit[:, :1]), unit[:, 0])
    assert mean(unit.half()).dtype == torch.float32
    assert mean(torch.stack([unit[0, 0], -unit[0, 0]])).isfinite().all()


def test_centred_vectors_are_unit_vectors_about_the_mean_of_unit_vectors(tmp_path, vectors):
    centre = centre_of(vectors[PRESENT])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(centre, unit[PRESENT].mean(axis=0), atol=1e-6)
    path = tmp_path / "image.safetensors"
    write_cache(path, 7 * vectors, PRESENT, key(), centre=centre)  # their norms do not matter
    read, _, _ = read_cache(path, key())
    moved = unit - unit[PRESENT].mean(axis=0)
    expected = moved / np.linalg.norm(moved, axis=1, keepdims=True) * PRESENT[:, None]
    np.testing.assert_allclose(read.float(), expected, atol=1e-3)
    assert torch.equal(read_centre(path), centre)
    torch.testing.assert_close(centred(torch.tensor(unit[0]), centre), read[0].float(), atol=1e-3, rtol=0)
    write_cache(path, vectors, PRESENT, key())
    assert read_centre(path) is None and not centre_of(np.zeros((0, 4))).any()


def test_a_centre_belongs_to_the_checksum(tmp_path, vectors):
    path = tmp_path / "image.safetensors"
    write_cache(path, vectors, PRESENT, key(), centre=centre_of(vectors))
    tensors, metadata = load_file(path), read_metadata(path)
    save_file(tensors | {"centre": tensors["centre"] + 1}, path, metadata)
    with pytest.raises(CondmixError, match="its content does not match its checksum"):
        read_centre(path)


def test_vectors_that_are_all_alike_have_no_direction_when_centred(tmp_path):
    same = np.ones((6, 4), np.float32)
    with pytest.raises(CondmixError, match=r"image \(train\) hold a vector that is the mean of all, so that nothing"):
        write_cache(tmp_path / "c", same, PRESENT, key(), centre=centre_of(same))


def test_what_was_cut_is_counted_and_said_where_it_was():
    facts = cut_facts([0, 3, 0, 8], 48)
    assert cut_sentence(facts) == (
        "2 of 4 texts are longer than the 48 tokens that the encoder reads, and were cut by 5.5 tokens on average, "
        "8 at most"
    )
    assert cut_sentence(cut_facts([0, 0], 48)) is cut_sentence(cut_facts([], 48)) is cut_sentence({}) is None


def test_vectors_come_back_with_unit_norm_and_their_direction(tmp_path, vectors):
    path = tmp_path / "new" / "image.safetensors"
    write_cache(path, vectors, PRESENT, key())
    read, present, metadata = read_cache(path, key())
    assert read.dtype == torch.float16 and np.array_equal(present, PRESENT)
    norms = np.linalg.norm(vectors, axis=1)
    expected = np.where(PRESENT[:, None], vectors / norms[:, None], 0)
    np.testing.assert_allclose(read.float(), expected, atol=1e-3)
    assert float(metadata["norm_mean"]) == pytest.approx(norms[PRESENT].mean(), rel=1e-5)
    assert float(metadata["norm_sd"]) == pytest.approx(norms[PRESENT].std(), rel=1e-5)
    assert metadata["dim"] == "4" and metadata.items() >= key().items()
    assert os.listdir(path.parent) == ["image.safetensors"]


def test_equal_vectors_are_equal_bytes(tmp_path, vectors):
    for name in "abcd":
        write_cache(tmp_path / name, vectors, PRESENT, key(), {"of": "image"})
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_one_hots_are_kept_exactly(tmp_path):
    write_cache(tmp_path / "c", np.eye(6), np.ones(6, bool), key())
    assert torch.equal(read_cache(tmp_path / "c", None)[0], torch.eye(6).half())


@pytest.mark.parametrize("value, problem", [(np.nan, "NaN or infinite"), (np.inf, "infinite"), (0, "only zeros")])
def test_a_bad_row_is_refused_by_its_number(tmp_path, vectors, value, problem):
    vectors[2] = value  # absent: does not matter
    write_cache(tmp_path / "c", vectors, PRESENT, key())
    vectors[4] = vectors[5] = value
    with pytest.raises(CondmixError, match=rf"image \(train\) hold .*{problem}.* in 2 rows, first in row 4"):
        write_cache(tmp_path / "d", vectors, PRESENT, key())
    assert os.listdir(tmp_path) == ["c"]


def test_wrong_counts_and_shapes_are_refused(tmp_path, vectors):
    with pytest.raises(CondmixError, match="have 6 rows, but there are 7 images"):
        write_cache(tmp_path / "c", vectors, PRESENT, key(7))
    with pytest.raises(CondmixError, match=r"shape \(N, D\), not \(6,\)"):
        write_cache(tmp_path / "c", vectors[:, 0], PRESENT, key())
    with pytest.raises(CondmixError, match=r"6 booleans, not \(5,\) of bool"):
        write_cache(tmp_path / "c", vectors, PRESENT[:5], key())
    with pytest.raises(CondmixError, match=r"6 booleans, not \(6,\) of int64"):
        write_cache(tmp_path / "c", vectors, PRESENT.astype(np.int64), key())
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("field", ["perspective", "split", "encoder", "preprocessing", "data", "count", "code"])
def test_a_cache_of_something_else_is_refused_naming_both(tmp_path, vectors, field):
    write_cache(tmp_path / "c", vectors, PRESENT, key())
    asked = key() | {field: "other"}
    with pytest.raises(CondmixError, match=f"{field} {key()[field]}, but other is needed"):
        read_cache(tmp_path / "c", asked)


def test_a_safetensors_file_of_something_else_is_no_cache(tmp_path, vectors):
    write_cache(tmp_path / "c", vectors, PRESENT, key())
    save_file(load_file(tmp_path / "c"), tmp_path / "d")
    with pytest.raises(CondmixError, match="metadata lack perspective"):
        read_metadata(tmp_path / "d")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, vectors, monkeypatch):
    write_cache(tmp_path / "c", vectors, PRESENT, key())
    old = (tmp_path / "c").read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("condmix.files.atomic.os.replace", fail)
    with pytest.raises(OSError):
        write_cache(tmp_path / "c", -vectors, PRESENT, key())
    assert (tmp_path / "c").read_bytes() == old and os.listdir(tmp_path) == ["c"]
