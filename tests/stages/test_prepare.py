"""Prepare: square crops, exact block means, arrays that Split.load reads back and damage that it notices."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from condmix import CondmixError
from condmix.data.prepared import Split
from condmix.datasets import Dataset
from condmix.datasets.demo import Demo
from condmix.settings.load import Paths
from condmix.stages import prepare
from profiles import section


class Few(Dataset):
    """Three pictures per split, of different sizes; the attributes under test are set from outside."""

    class_names = ["a", "b"]

    def __init__(self, pictures):
        self.pictures = pictures

    def ids(self, split):
        return [10, 20, 30]

    def images(self, split):
        return iter(self.pictures)

    def labels(self, split):
        return np.array([0, -1, 1])


@pytest.fixture
def few():
    rng = np.random.default_rng(0)
    return Few([rng.integers(0, 256, shape, np.uint8) for shape in [(32, 48, 3), (50, 30, 3), (16, 16, 3)]])


def test_integer_factors_give_block_means():
    picture = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    blocks = picture.reshape(16, 3, 16, 3, 3).astype(float).mean((1, 3))
    assert abs(prepare.square(picture, 16) - blocks).max() < 0.6  # Pillow rounds ninths to within 5/9


@pytest.mark.parametrize("shape", [(40, 40, 3), (40, 61, 3), (57, 40, 3)])
def test_the_crop_is_central(shape):
    """Whatever is painted outside of the central square does not reach the result."""
    height, width, _ = shape
    top, left = (height - 40) // 2, (width - 40) // 2
    picture = np.full(shape, 255, np.uint8)
    picture[top : top + 40, left : left + 40] = np.arange(40)[:, None, None]
    rows = prepare.square(picture, 20)
    assert rows.shape == (20, 20, 3) and rows.max() < 40
    np.testing.assert_array_equal(prepare.square(picture, 40), picture[top : top + 40, left : left + 40])


@pytest.mark.parametrize("size", [7, 16, 64])
def test_a_uniform_picture_stays_uniform(size):
    assert (prepare.square(np.full((37, 41, 3), 93, np.uint8), size) == 93).all()


def test_fine_stripes_average_out():
    """A filter without antialiasing would show stripes of its own."""
    picture = np.zeros((63, 63, 3), np.uint8)
    picture[::2] = 200
    inner = prepare.square(picture, 16)[2:-2]
    assert abs(inner.astype(int) - 100).max() < 12


def test_round_trip(few, tmp_path):
    folder = tmp_path / "deep" / "dataset"
    prepare.prepare(few, "few", 16, folder)
    for name in ("train", "test"):
        split = Split.load(folder, name)
        assert split.images.shape == (3, 16, 16, 3) and isinstance(split.images, np.memmap)
        for image, picture in zip(split.images, few.pictures, strict=True):
            np.testing.assert_array_equal(image, prepare.square(picture, 16))
        assert split.ids.tolist() == [10, 20, 30] and split.labels.tolist() == [0, -1, 1]
        assert split.attributes is None and split.mentions is None
        assert split.class_names == ["a", "b"] and split.attribute_names == {}


def test_the_stage_on_the_demo_world(tmp_path):
    paths = Paths(tmp_path, "demo")
    Demo.draw(paths.archives, {"train": 8, "test": 4, "seed": 1})
    prepare.main(SimpleNamespace(paths=paths, data=section("data")))
    demo, split = Demo(paths.archives, {}), Split.load(paths.dataset, "test")
    np.testing.assert_array_equal(split.attributes, demo.attribute_values("test"))
    np.testing.assert_array_equal(split.mentions, demo.mentions("test"))
    np.testing.assert_array_equal(split.labels, demo.labels("test"))
    assert split.attribute_names == demo.attributes
    blocks = np.array(list(demo.images("test"))).reshape(4, 16, 2, 16, 2, 3).astype(float).mean((2, 4))
    assert abs(split.images - blocks).max() <= 0.5 + 1e-9


def test_preparing_again_with_any_number_of_threads_gives_the_same_bytes(few, tmp_path):
    for name, threads in (("one", 1), ("two", 2)):
        prepare.prepare(few, "few", 16, tmp_path / name, threads)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_meta_names_the_pixels(few, tmp_path):
    prepare.prepare(few, "few", 16, tmp_path / "one")
    few.pictures[1] = few.pictures[1] // 2
    prepare.prepare(few, "few", 16, tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "meta.json").read_text()) for name in ("one", "two"))
    assert one["splits"]["train"]["images_sha256"] != two["splits"]["train"]["images_sha256"]
    assert one["dataset"] == "few" and one["image_size"] == 16 and one["splits"]["test"]["count"] == 3


def test_a_failure_leaves_what_was_there(few, tmp_path):
    folder = tmp_path / "dataset"
    prepare.prepare(few, "few", 16, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def broken(split):
        yield few.pictures[0]
        raise CondmixError("val2017.zip: 7.jpg does not decode")

    few.images = broken
    with pytest.raises(CondmixError, match="does not decode"):
        prepare.prepare(few, "few", 8, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_columns_that_do_not_fit(few, tmp_path):
    few.pictures.pop()
    with pytest.raises(CondmixError, match="train_images.npy was to hold 3 pictures, but 2 came"):
        prepare.prepare(few, "few", 16, tmp_path / "dataset")
    few.labels = lambda split: np.zeros(5, np.int64)
    with pytest.raises(CondmixError, match="3 pictures but 5 rows of labels"):
        prepare.prepare(few, "few", 16, tmp_path / "dataset")


@pytest.fixture
def folder(few, tmp_path):
    prepare.prepare(few, "few", 16, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_unknown_split(folder):
    with pytest.raises(CondmixError, match="no split 'valid' .*found: train, test"):
        Split.load(folder, "valid")
