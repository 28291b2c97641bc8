"""Drawing from a start picture (SDEdit), and previews on the way."""

import numpy as np
import pytest
import torch

import condmix
from condmix.diffusion.schedule import Schedule
from condmix.samplers import SampleNoise
from condmix.sampling.loaded import slerp


@pytest.fixture
def calls(monkeypatch):
    """What samplers are called with; nothing is drawn."""
    made = []

    def spy(denoise, x_T, path, noise):
        made.append((x_T, path))
        return x_T

    monkeypatch.setattr("condmix.sampling.sample.plugin", lambda kind, name: spy)
    return made


@pytest.mark.parametrize("strength", [0.001, 0.25, 0.6, 1.0])
def test_sampling_begins_at_the_noised_start_picture(drawing, calls, strength):
    model = condmix.load("experiment")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    model(start=pixels, strength=strength, n=2, seed=4, steps=20)
    (x, path), schedule = calls[0], Schedule("cosine")
    times = round(strength * 1000)
    assert path[0].t == times - 1 and len(path) == max(1, round(20 * strength))
    assert path[0].a_bar == schedule.alpha_bar[times - 1]
    x_0 = torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1
    noise = SampleNoise([4, 5], (3, 8, 8))()
    a_bar = schedule.alpha_bar[times - 1]
    torch.testing.assert_close(x, (a_bar.sqrt() * x_0 + (1 - a_bar).sqrt() * noise).float())


def test_a_start_picture_is_cropped_to_its_central_square(drawing, calls):
    model = condmix.load("experiment")
    wide = np.zeros((8, 20, 3), np.uint8)
    wide[:, 6:14] = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    model(start=wide, strength=0.5)
    model(start=np.ascontiguousarray(wide[:, 6:14]), strength=0.5)
    assert torch.equal(calls[0][0], calls[1][0])


def test_previews_show_every_step_of_every_batch_and_change_nothing(drawing):
    model = condmix.load("experiment")
    request = {"captions": ["red"], "n": drawing.evaluate.batch_size + 1, "steps": 4, "sampler": "ddim"}
    seen = []
    pictures = model.checked(**request)(lambda share, estimate: seen.append((share, estimate)))
    assert [share for share, _ in seen] == [0.25, 0.5, 0.75, 1.0] * 2
    assert [len(estimate) for _, estimate in seen] == [drawing.evaluate.batch_size] * 4 + [1] * 4
    assert np.array_equal(pictures, model.draw(**request))
    assert np.array_equal(seen[3][1], pictures[:-1])  # at the last step the estimate is the picture


def test_an_exception_of_the_watcher_ends_drawing(drawing):
    def stop(share, estimate):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        condmix.load("experiment").checked()(stop)


def test_a_great_circle_has_unit_vectors_at_equal_angles():
    start, end = torch.nn.functional.normalize(torch.randn(2, 1, 16, dtype=torch.float64), dim=-1)
    way = slerp(start, end, torch.linspace(0, 1, 5, dtype=torch.float64)[:, None])
    torch.testing.assert_close(way.norm(dim=-1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(way[[0, -1]], torch.cat([start, end]))
    steps = (way[1:] * way[:-1]).sum(dim=-1).acos()
    torch.testing.assert_close(steps, steps[:1].expand(4))


def test_the_way_from_a_vector_to_itself_or_its_opposite_is_finite():
    vector = torch.nn.functional.normalize(torch.randn(1, 16), dim=-1)
    way = torch.linspace(0, 1, 5)[:, None]
    torch.testing.assert_close(slerp(vector, vector, way), vector.expand(5, -1))
    assert slerp(vector, -vector, way).isfinite().all()
