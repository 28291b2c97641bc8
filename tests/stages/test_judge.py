"""Judges and the stage that trains them, on squares that the test draws; the ResNet-56 on real CIFAR-10."""

import io
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from condmix import CondmixError
from condmix.evaluation.judges import CIFAR10_CLASSES, Judge, ResNet56, accuracy, load_resnet56, read_card
from condmix.evaluation.probes import Probe
from condmix.stages import judge, prepare
from profiles import content
from real_data import shared
from tiny_project import write_meta
from tower_helpers import backbone_settings, save_tiny_backbone

COLOURS = {"red": (200, 20, 20), "blue": (20, 20, 200)}
ATTRIBUTES = {"colour": list(COLOURS), "position": ["left", "right", "above", "below"]}
SETTINGS = {"weights": None, "steps": 24, "batch_size": 64, "lr": 3e-3, "seed": 0, "probe": None}
CORNERS = [(6, 1), (6, 10), (1, 6), (10, 6)]


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 16, 16, 3) of a square on noise, and their attributes (n, 2)."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 160, (n, 16, 16, 3), np.uint8)
    values = np.stack([random.integers(0, 2, n), random.integers(0, 4, n)], axis=1)
    for image, (colour, position) in zip(images, values, strict=True):
        row, column = CORNERS[position] + random.integers(-1, 2, 2)
        image[row : row + 4, column : column + 4] = list(COLOURS.values())[colour]
    return images, values


def write_dataset(folder: Path, *, attributes: bool = False, classes: bool = False, n: int = 400) -> None:
    """A prepared data set of drawn squares; its class is the colour."""
    folder.mkdir()
    meta = {"dataset": "squares", "image_size": 16, "class_names": [], "attributes": {}}
    for seed, (split, count) in enumerate({"train": n, "test": 200}.items()):
        images, values = draw(count, seed)
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_ids.npy", np.arange(count))
        if attributes:
            np.save(folder / f"{split}_attributes.npy", values)
        if classes:
            np.save(folder / f"{split}_labels.npy", np.where(np.arange(count) % 10, values[:, 0], -1))
    meta |= {"attributes": ATTRIBUTES} if attributes else {}
    meta |= {"class_names": list(COLOURS)} if classes else {}
    write_meta(folder, meta)


def parameters(root: Path, **settings) -> SimpleNamespace:
    return SimpleNamespace(
        profile="squares",
        data=SimpleNamespace(flip=True),
        judge=SimpleNamespace(**SETTINGS | settings),
        paths=SimpleNamespace(dataset=root / "dataset", judge=root / "judge", metrics=root / "metrics"),
    )


def run(root: Path, **settings) -> dict:
    """The stage's metrics."""
    judge.main(parameters(root, **settings))
    return json.loads((root / "metrics" / "judge.json").read_text())


def test_attributes_are_judged_with_places_and_the_card_says_how_well(tmp_path):
    write_dataset(tmp_path / "dataset", attributes=True)
    metrics = run(tmp_path, seed=3)
    assert metrics["accuracy"].keys() == {"colour", "position"}
    assert min(metrics["accuracy"].values()) > 0.97
    assert metrics | {"n": 200, "split": "test", "seed": 3, "steps": 24, "network": "small_cnn"} == metrics

    card = read_card(tmp_path / "judge")
    assert card["accuracy"] == metrics["accuracy"] and card["heads"] == ATTRIBUTES
    made = {"torch": torch.__version__, "precision": "fp32", "threads": torch.get_num_threads(), "processes": 1}
    assert card["environment"] == metrics["environment"] == metrics["environment"] | made
    images, values = (torch.from_numpy(array) for array in draw(200, seed=1))
    loaded = Judge.load(tmp_path / "judge")
    assert loaded.sha256 == card["sha256"]
    assert accuracy(loaded, [(images, values)]) == metrics["accuracy"]
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == ["model.json", "model.safetensors"]


def test_accuracy_over_held_out_combinations_stands_beside_that_over_all(tmp_path):
    write_dataset(tmp_path / "dataset", attributes=True)
    values = draw(200, seed=1)[1]
    np.save(tmp_path / "dataset" / "test_held_out.npy", (values == [0, 2]).all(axis=1))
    write_meta(tmp_path / "dataset", json.loads((tmp_path / "dataset" / "meta.json").read_text()))
    metrics = run(tmp_path, steps=2)
    judged = Judge.load(tmp_path / "judge")
    images, targets = (torch.from_numpy(array[(values == [0, 2]).all(axis=1)]) for array in draw(200, seed=1))
    assert metrics["accuracy_held_out"] == accuracy(judged, [(images, targets)])


def test_a_profile_may_ask_for_a_second_judge(tmp_path, capsys):
    write_dataset(tmp_path / "dataset", attributes=True)
    save_tiny_backbone(tmp_path / "image.safetensors")
    metrics = run(tmp_path, steps=2, probe=backbone_settings(tmp_path / "image.safetensors"))
    probe = Probe.load(tmp_path / "judge")
    images, values = (torch.from_numpy(array) for array in draw(200, seed=1))
    assert metrics["probe"]["accuracy"] == probe.accuracy == accuracy(probe, [(images, values)])
    assert probe.accuracy["colour"] > 0.9 and metrics["accuracy"] != probe.accuracy
    assert "the probe's: colour" in capsys.readouterr().out

    run(tmp_path, steps=2)
    assert Probe.load(tmp_path / "judge") is None


def test_classes_are_judged_where_no_attributes_are_known(tmp_path):
    write_dataset(tmp_path / "dataset", classes=True)
    metrics = run(tmp_path)
    assert metrics["accuracy"]["class"] > 0.97
    assert Judge.load(tmp_path / "judge").heads == {"class": ["red", "blue"]}


@pytest.mark.parametrize("unlabelled", [False, True])
def test_nothing_is_judged_where_neither_is_known(tmp_path, capsys, unlabelled):
    write_dataset(tmp_path / "dataset", classes=unlabelled, n=2)
    if unlabelled:  # classes that have names, but none of which any picture is known to show
        np.save(tmp_path / "dataset" / "train_labels.npy", np.full(2, -1))
        write_meta(tmp_path / "dataset", json.loads((tmp_path / "dataset" / "meta.json").read_text()))
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "probe.json").write_text("that of other data")
    metrics = run(tmp_path)
    assert metrics["accuracy"] == {}
    assert Probe.load(tmp_path / "judge") is None
    assert "neither attributes nor classes" in metrics["reason"] and metrics["reason"] in capsys.readouterr().out
    assert Judge.load(tmp_path / "judge") is None


def test_a_seed_gives_the_same_judge_and_another_seed_another(tmp_path):
    write_dataset(tmp_path / "dataset", attributes=True, n=100)
    hashes = []
    for seed in (1, 1, 2):
        run(tmp_path, seed=seed, steps=3)
        hashes.append(read_card(tmp_path / "judge")["sha256"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_loss_that_is_not_finite_stops_the_stage_and_leaves_nothing(tmp_path):
    write_dataset(tmp_path / "dataset", attributes=True, n=100)
    with pytest.raises(CondmixError, match=r"loss became .* lower judge.lr \(1e\+35\)"):
        run(tmp_path, lr=1e35)
    assert not (tmp_path / "judge").exists() and not (tmp_path / "metrics").exists()


def test_pictures_do_not_depend_on_their_batch():
    torch.manual_seed(0)
    network = Judge("small_cnn", ATTRIBUTES, 16).eval()
    images = torch.from_numpy(draw(6, seed=4)[0])
    together, alone = network(images), network(images[2:3])
    for name in ATTRIBUTES:
        torch.testing.assert_close(together[name][2:3], alone[name])
    assert network.features(images).shape == (6, 128)
    logits = network.linears[1](network.features(images))
    torch.testing.assert_close(logits, together["position"])


@pytest.mark.parametrize("images", [torch.zeros(1, 16, 16, 3), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)])
def test_other_pictures_are_refused(images):
    with pytest.raises(CondmixError, match="reads uint8 pictures of 16x16 pixels, got"):
        Judge("small_cnn", ATTRIBUTES, 16)(images)


def test_unknown_targets_do_not_count():
    network = Judge("small_cnn", {"class": ["a", "b"]}, 16).eval()
    images = torch.from_numpy(draw(4, seed=5)[0])
    answers = network(images)["class"].argmax(1)
    targets = torch.tensor([answers[0], 1 - answers[1], -1, answers[3]])[:, None]
    assert accuracy(network, [(images[:2], targets[:2]), (images[2:], targets[2:])]) == {"class": 2 / 3}
    assert accuracy(network, [(images, torch.full((4, 1), -1))]) == {}


def test_a_head_of_which_a_batch_knows_nothing_is_left_out_of_its_loss():
    images, values = (torch.from_numpy(array) for array in draw(8, seed=6))
    values[:, 1] = -1
    network = Judge("small_cnn", ATTRIBUTES, 16)
    judge.train_judge(network, judge.Plan("judge", "judge.lr", 2, 1e-3, 0.1), iter([(images, values)] * 2))
    assert network.linears[0].bias.grad.any() and not network.linears[1].bias.grad.any()


def test_moved_pictures_keep_their_content_within_an_eighth():
    images = torch.zeros(64, 16, 16, 3, dtype=torch.uint8)
    images[:, 8, 4] = 255
    shifted = judge.moved(images, flip=False, generator=torch.Generator().manual_seed(0))
    places = shifted[..., 0].nonzero()[:, 1:] - torch.tensor([8, 4])
    assert len(places) == 64 and places.abs().max() == 2 and len(places.unique(dim=0)) > 15
    mirrored = judge.moved(images, flip=True, generator=torch.Generator().manual_seed(0))[..., 0].nonzero()[:, 2]
    assert 10 < (mirrored > 7).sum() < 54  # column 4 becomes 11, give or take 2


def test_every_row_is_drawn_once_an_epoch():
    usable = torch.arange(10) != 4
    order = judge.shuffled(usable, 3, torch.Generator().manual_seed(0))
    for _ in range(2):
        epoch = torch.cat([next(order) for _ in range(3)])
        assert epoch.sort().values.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_missing_or_damaged_judge_is_refused(tmp_path):
    with pytest.raises(CondmixError, match="model.json is missing: run dvc repro judge"):
        Judge.load(tmp_path)
    Judge("small_cnn", ATTRIBUTES, 16).save(tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CondmixError, match="model.safetensors is damaged .*dvc repro judge"):
        Judge.load(tmp_path)


def write_checkpoint(path: Path) -> ResNet56:
    """A ResNet-56 with random weights in pytorch_resnet_cifar10's format."""
    torch.manual_seed(0)
    network, linear = ResNet56(), torch.nn.Linear(64, 10)
    state = network.state_dict() | {f"linear.{name}": tensor for name, tensor in linear.state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": t for name, t in state.items()}, "best_prec1": 93.6}, path)
    return network.eval()


def test_resnet56_checkpoints_load_and_survive_saving(tmp_path):
    network = write_checkpoint(tmp_path / "resnet56.th")
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 55  # and the linear layer
    loaded = load_resnet56(tmp_path / "resnet56.th")
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded.features(images), network(images.permute(0, 3, 1, 2) / 255))
    loaded.save(tmp_path / "judge", {})
    again = Judge.load(tmp_path / "judge")
    assert torch.equal(again(images)["class"], loaded(images)["class"])


def test_a_checkpoint_that_runs_code_or_is_another_network_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"state_dict": Attack()}, tmp_path / "attack.th")
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(3)}}, tmp_path / "other.th")
    for name in ("attack.th", "other.th", "absent.th"):
        with pytest.raises(CondmixError, match=f"{name} is not a ResNet-56 checkpoint"):
            load_resnet56(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_a_cifar_judge_is_refused_for_other_data(tmp_path):
    write_dataset(tmp_path / "dataset", classes=True, n=2)
    write_checkpoint(tmp_path / "resnet56.th")
    with pytest.raises(CondmixError, match="CIFAR-10's classes at 32x32 pixels, but this data has 16x16"):
        run(tmp_path, weights=content(tmp_path / "resnet56.th"))


@pytest.mark.slow
def test_the_demo_world_is_judged_almost_perfectly(tmp_path):
    from condmix.datasets.demo import Demo

    settings = {"train": 20_000, "test": 1_000, "seed": 0}
    Demo.draw(tmp_path / "archives", settings)
    prepare.prepare(Demo(tmp_path / "archives", settings), "demo", 16, tmp_path / "dataset")
    metrics = run(tmp_path, steps=400, batch_size=128, lr=2e-3)
    assert len(metrics["accuracy"]) == 6 and min(metrics["accuracy"].values()) >= 0.97


@pytest.mark.slow
def test_resnet56_is_right_on_94_percent_of_exact_cifar10_pictures():
    cifar = load_resnet56(shared("cifar10_classifier/resnet56-4bfd9763.th"))
    with np.load(shared("clip_vitb32_embeddings/cifar10_test500_images.npz")) as real:
        batch = torch.from_numpy(real["images"]), torch.from_numpy(real["labels"])[:, None]
    assert accuracy(cifar, [batch])["class"] == pytest.approx(0.94)


@pytest.mark.slow
def test_resnet56_is_right_on_83_percent_of_the_jpeg_copy():
    cifar = load_resnet56(shared("cifar10_classifier/resnet56-4bfd9763.th"))
    images, labels = [], []
    with tarfile.open(shared("cifar10/cifar10-jpeg.tar.xz")) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith("test/"):
                jpeg = Image.open(io.BytesIO(archive.extractfile(member).read()))
                images.append(np.asarray(jpeg.convert("RGB")))
                labels.append(CIFAR10_CLASSES.index(member.name.split("/")[1]))
    assert len(images) == 10_000
    batches = judge.batches(np.stack(images), torch.tensor(labels)[:, None])
    assert accuracy(cifar, batches)["class"] == pytest.approx(0.832, abs=0.01)
