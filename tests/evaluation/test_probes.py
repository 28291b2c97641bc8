"""The second judge: a linear probe, beside scikit-learn's own predictions."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from condmix import CondmixError
from condmix.evaluation.features import TimmFeatures
from condmix.evaluation.probes import STRENGTH, Probe, read_card
from condmix.files.artifacts import write_checked_json
from tower_helpers import backbone_settings, save_tiny_backbone

HEADS = {"colour": ["red", "green", "blue"], "size": ["small", "large"], "only": ["this", "never"]}


@pytest.fixture
def seen():
    """Features (90, 6) whose first columns tell the values (90, 3); a few values are unknown."""
    random = np.random.default_rng(0)
    targets = np.stack([random.integers(0, 3, 90), random.integers(0, 2, 90), np.zeros(90, int)], axis=1)
    features = random.normal(size=(90, 6))
    features[:, 0] += 3 * targets[:, 0]
    features[:, 1] += 3 * targets[:, 1]
    targets[::9, 0] = -1
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets)


def test_a_probe_is_logistic_regression_over_standardised_features(seen):
    features, targets = seen
    probe = Probe(HEADS, 6)
    probe.fit(features, targets)
    x = StandardScaler().fit_transform(features.double().numpy())
    for column, name in enumerate(("colour", "size")):
        known = targets[:, column] >= 0
        oracle = LogisticRegression(C=STRENGTH, max_iter=1000).fit(x[known], targets[known, column])
        logits = probe.of(features)[name].double().numpy()
        expected = oracle.decision_function(x)
        if name == "size":  # of two values, scikit-learn gives the second's alone
            logits, expected = logits[:, 1] - logits[:, 0], expected
        else:  # up to what all logits of a picture share
            logits, expected = (one - one.mean(1, keepdims=True) for one in (logits, expected))
        np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_a_value_that_no_picture_shows_is_never_the_answer(seen):
    features, targets = seen
    probe = Probe(HEADS, 6)
    probe.fit(features, targets)
    assert (probe.of(100 * torch.randn(500, 6))["only"].argmax(1) == 0).all()
    targets[targets[:, 0] == 1, 0] = -1
    probe.fit(features, targets)
    answers = probe.of(100 * torch.randn(500, 6))["colour"].argmax(1)
    assert set(answers.tolist()) == {0, 2}
    targets[:, 0] = -1  # nothing is known of it
    probe.fit(features, targets)
    assert probe.of(features)["colour"].isfinite().all()


@pytest.fixture
def saved(seen, tmp_path):
    """A probe over a tiny network's features, its folder, and pictures."""
    save_tiny_backbone(tmp_path / "image.safetensors")
    settings = backbone_settings(tmp_path / "image.safetensors")
    pictures = torch.randint(0, 256, (90, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = TimmFeatures("probe", settings)
    features = network(pictures)
    probe = Probe(HEADS, features.shape[1])
    probe.fit(features, seen[1])
    probe.network = network
    folder = tmp_path / "judge"
    folder.mkdir()
    probe.save(folder, settings, {"accuracy": {"colour": 0.5}})
    return probe, folder, pictures


def test_a_saved_probe_answers_as_before(saved):
    probe, folder, pictures = saved
    loaded = Probe.load(folder)
    assert loaded.heads == HEADS and loaded.accuracy == {"colour": 0.5}
    for name, logits in probe(pictures).items():
        torch.testing.assert_close(loaded(pictures)[name], logits)


def test_without_a_probe_there_is_none(tmp_path):
    assert Probe.load(tmp_path) is None


@pytest.mark.parametrize("damage", ["weights", "card", "network", "settings"])
def test_what_is_damaged_is_refused(saved, damage):
    _, folder, _ = saved
    if damage == "weights":
        path = folder / "probe.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        says = "probe.safetensors"
    elif damage == "card":
        path = folder / "probe.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"width": 7}))
        says = "probe.json"
    elif damage == "network":
        path = folder.parent / "image.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        says = "judge.probe.weights: .*image.safetensors has sha256"
    else:
        card = read_card(folder)
        del card["network"]["mean"]
        write_checked_json(folder / "probe.json", card)
        says = "probe.json is damaged .*dvc repro judge"
    with pytest.raises(CondmixError, match=says):
        Probe.load(folder)
