"""The fit of scenes: right on every real picture, least squares by a library's solver, blind to nothing but jitter."""

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import lsq_linear

from condmix.datasets._scenes import (
    ATTRIBUTES,
    BACKGROUND_COLOURS,
    COLOUR_JITTER,
    COMBINATIONS,
    COUNTS,
    OBJECT_COLOURS,
    SIDE,
    Dice,
    picture,
    values_of,
)  # fmt: skip
from condmix.evaluation.scene_fit import fit_for, fit_scenes, legal_coverages


def scenes(count, size, seed=0):
    """Real pictures and their values: every combination before any comes twice."""
    numbers = np.random.default_rng(seed).permutation(COMBINATIONS)[:count]
    values = np.array([values_of(int(number)) for number in numbers])
    drawn = [picture(of_one, Dice(seed, 0, row)) for row, of_one in enumerate(values)]
    return np.stack([resized(one, size) for one in drawn]), values


def resized(one, size):
    image = Image.fromarray(one)
    return np.asarray(image.reduce(SIDE // size) if SIDE % size == 0 else image.resize((size, size), Image.LANCZOS))


@pytest.mark.parametrize("size", [8, 16, 24, 32, 64])
def test_every_real_picture_is_read_right(size):
    pictures, values = scenes(300, size)
    shown, residual = fit_scenes(pictures)
    if size == 8:  # where a quarter of the side is left, neighbouring places and shapes may be one
        assert (shown == values).all(1).mean() > 0.95
    else:
        assert (shown == values).all() and residual.max() < (1 if SIDE % size == 0 else 5)  # clipped overshoots
    assert shown.dtype == np.int64 and residual.mean() < 0.5


def test_noise_and_blur_do_not_mislead_it_and_are_its_residual():
    pictures, values = scenes(100, 16)
    noise = np.random.default_rng(1).normal(0, 20, pictures.shape)
    shown, residual = fit_scenes(np.clip(pictures + noise, 0, 255).round().astype(np.uint8))
    assert (shown == values).all(1).mean() > 0.95
    assert 15 < residual.mean() < 20.5  # clipping takes a part of the noise away


def test_it_is_the_least_squares_fit_of_a_solver_with_bounds():
    pictures = scenes(4, 16)[0]
    noise = np.random.default_rng(2).normal(0, 40, pictures.shape)
    pictures = np.clip(pictures + noise, 0, 255).astype(np.uint8)
    shown, residual = fit_scenes(pictures)
    coverages, known = legal_coverages(16)
    colours, backgrounds = (np.array(list(table.values())) for table in (OBJECT_COLOURS, BACKGROUND_COLOURS))

    def error(one, coverage, pair):
        def cost(channel):
            bounds = pair[:, channel] - COLOUR_JITTER, pair[:, channel] + COLOUR_JITTER
            return lsq_linear(np.stack([coverage, 1 - coverage], 1), one[..., channel].ravel(), bounds).cost

        return np.sqrt(2 * sum(map(cost, range(3))) / one.size)

    for one, values, least in zip(pictures, shown, residual, strict=True):
        own = np.array([colours[values[1]], backgrounds[values[4]]])
        places = [
            coverage
            for coverage, scene in zip(coverages, known, strict=True)
            if tuple(scene) == tuple(values[[0, 2, 3]])
        ]
        assert least == pytest.approx(min(error(one, coverage, own) for coverage in places), rel=1e-4)
        others = [
            error(one, coverage, np.array([colour, background]))
            for coverage in coverages[::7] for colour in colours[::2] for background in backgrounds[::2]
        ]  # fmt: skip
        assert least <= min(others) * (1 + 1e-4)


def test_any_number_of_pictures_and_parts_of_a_batch_are_read_alike():
    pictures, _ = scenes(300, 16)
    whole, residual = fit_scenes(pictures)
    np.testing.assert_array_equal(whole[257], fit_scenes(pictures[257:258])[0][0])
    np.testing.assert_allclose(residual[:5], fit_scenes(pictures[:5])[1], atol=1e-6)


def test_the_columns_are_the_attributes_and_only_a_world_of_known_rules_has_a_fit():
    values, _ = fit_scenes(scenes(200, 16)[0])
    assert values.shape == (200, len(ATTRIBUTES)) and (values.max(0) < COUNTS).all() and (values.min(0) == 0).all()
    assert fit_for("demo") is fit_scenes and fit_for("cifar10") is None
