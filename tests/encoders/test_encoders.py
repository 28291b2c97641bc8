"""Encoders: one contract for every file, and CLIPs through open_clip's own folder format."""

import json

import numpy as np
import pytest
import torch

from clip_helpers import TINY, save_tiny_clip, save_tiny_siglip
from condmix import CondmixError
from condmix.clip.folder import CARD, CONFIG, WEIGHTS, load_clip, save_clip
from condmix.encoders.clip_text import encode_short
from condmix.settings.load import plugin, plugins
from t5_helpers import save_tiny_t5, t5_settings
from tower_helpers import backbone_settings, save_tiny_backbone

CLASSES = ["cat", "dog", "frog"]
RNG = np.random.default_rng(0)
BATCHES = {
    "images": [RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(5)],
    "captions": ["a cat", "a dog on a log", "", "a frog", "an owl"],
    "labels": np.array([0, 2, 1, 0, 1]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder)
    return folder


@pytest.fixture(scope="module")
def opened(folder, tmp_path_factory):
    """Opens an encoder by name, one that has settings of its own with those of a tiny model."""

    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    save_tiny_backbone(path)
    tiny_backbone = backbone_settings(path)

    def opened(name):
        if name == "timm_image":
            return plugin("encoders", name).open(folder, CLASSES, name="tiny", settings=tiny_backbone)
        if name != "t5_text":
            return plugin("encoders", name).open(folder, CLASSES)
        pytest.importorskip("transformers")
        t5 = tmp_path_factory.mktemp("t5")
        save_tiny_t5(t5)
        return plugin("encoders", name).open(folder, CLASSES, settings=t5_settings(t5))

    return opened


def test_leaving_out_the_empty_places_of_a_caption_changes_nothing(folder):
    clip = load_clip(folder)
    tokens = clip.tokenizer(["a cat", "", "a dog"])
    lengths = []
    clip.model.transformer.register_forward_hook(lambda module, given, made: lengths.append(made.shape[1]))
    with torch.no_grad():
        short, whole = encode_short(clip.model, tokens), clip.model.encode_text(tokens)
    torch.testing.assert_close(short, whole, atol=1e-6, rtol=1e-5)
    assert lengths[0] < lengths[1] == tokens.shape[1]


@pytest.mark.parametrize("name", plugins("encoders"))
def test_every_encoder_keeps_the_contract(name, opened):
    encoder = opened(name)
    batch = BATCHES[encoder.reads]
    vectors = encoder.encode(batch)
    assert vectors.shape == (5, encoder.dim) and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(5))
    parts = torch.cat([encoder.encode(batch[:2]), encoder.encode(batch[2:])])
    torch.testing.assert_close(parts, vectors)
    again = opened(name)
    assert (again.id, again.preprocessing) == (encoder.id, encoder.preprocessing)
    assert encoder.perspective.format(k=1)


@pytest.mark.parametrize("name", ["clip_text", "t5_text"])
def test_what_is_beyond_the_limit_does_not_count_and_all_before_it_does(name, opened):
    encoder = opened(name)
    encoder.limit = min(encoder.limit, 12)
    texts = [" ".join(["cat", "dog"] * 7)[: 4 * n - 1] for n in range(1, 14)]
    counts = encoder.tokens(texts)
    assert counts == sorted(set(counts)) and counts[0] < encoder.limit < counts[-1]
    cut = [vector for vector, count in zip(encoder.encode(texts), counts, strict=True) if count >= encoder.limit]
    read = [vector for vector, count in zip(encoder.encode(texts), counts, strict=True) if count <= encoder.limit]
    assert len(cut) > 1 and len(cut) + len(read) == len(texts) + 1
    for vector in cut[1:]:
        torch.testing.assert_close(vector, cut[0])
    distances = torch.cdist(torch.stack(read), torch.stack(read)) + torch.eye(len(read))
    assert distances.min() > 1e-4


def test_perspectives_do_not_collide():
    names = [plugin("encoders", name).perspective for name in plugins("encoders")]
    assert len(set(names)) == len(names)


def test_open_clip_itself_reads_what_save_clip_wrote(tmp_path):
    import open_clip

    model = save_tiny_clip(tmp_path)
    theirs, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    clip = load_clip(tmp_path)
    tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a cat"])
    assert torch.equal(tokens, clip.tokenizer(["a cat"])) and tokens.shape == (1, 12)
    for other in (theirs.eval(), clip.model):
        assert torch.equal(other.encode_text(tokens), model.encode_text(tokens))
    assert str(preprocess) == str(clip.preprocess)


def test_activation_and_preprocessing_survive_the_folder(tmp_path):
    model = save_tiny_clip(tmp_path, quick_gelu=True)
    model.visual.preprocess_cfg |= {"interpolation": "bilinear", "resize_mode": "squash"}
    model.visual.image_mean, model.visual.image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    save_clip(tmp_path, model, TINY | {"quick_gelu": True}, None)
    clip = load_clip(tmp_path)
    assert type(clip.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    expected = {"size": (8, 8), "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    assert clip.model.visual.preprocess_cfg.items() >= (expected | {"resize_mode": "squash"}).items()


def test_both_towers_of_a_siglip_are_open_clip_s(tmp_path):
    pytest.importorskip("transformers")
    from PIL import Image

    model = save_tiny_siglip(tmp_path)
    texts, image = (
        plugin("encoders", "clip_text").open(tmp_path, []),
        plugin("encoders", "clip_image").open(tmp_path, []),
    )
    captions = ["a red dog", "A dog, on a log!", "an owl"]
    tokens = texts.clip.tokenizer(captions)
    wide = RNG.integers(0, 256, (40, 90, 3), dtype=np.uint8)
    squashed = np.asarray(Image.fromarray(wide).resize((160, 160), Image.Resampling.BICUBIC)) / 255
    pixels = torch.tensor(squashed, dtype=torch.float32).permute(2, 0, 1)[None] * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(texts.features(captions), model.encode_text(tokens))
        torch.testing.assert_close(image.features([wide]), model.encode_image(pixels), atol=1e-4, rtol=1e-4)
    assert texts.tokens(captions) == (tokens != tokens[0, -1]).sum(dim=1).tolist()  # what is no padding
    assert tokens.shape == (3, 10) and tokens[1].tolist()[:6] == [3, 6, 9, 3, 10, 1]  # lower case, no punctuation


def test_the_id_follows_the_weights(tmp_path):
    save_tiny_clip(tmp_path / "a", seed=0)
    save_tiny_clip(tmp_path / "b", seed=1)
    save_tiny_clip(tmp_path / "c", seed=0)
    a, b, c = (load_clip(tmp_path / name).id for name in "abc")
    assert a == c != b


def test_pictures_of_any_size_enter_as_open_clip_preprocesses_them(folder):
    from PIL import Image

    encoder = plugin("encoders", "clip_image").open(folder, [])
    wide = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
    clip = load_clip(folder)
    with torch.no_grad():
        expected = clip.model.encode_image(clip.preprocess(Image.fromarray(wide))[None])
    torch.testing.assert_close(encoder.features([wide, wide]), expected.expand(2, -1))


@pytest.mark.parametrize("name, old, new", [(WEIGHTS, -9, None), (CONFIG, b'"bicubic"', b'"bilinear"')])
def test_a_clip_that_was_changed_is_refused(tmp_path, name, old, new):
    save_tiny_clip(tmp_path)
    content = (tmp_path / name).read_bytes()
    changed = content.replace(old, new) if new else content[:old] + bytes([content[old] ^ 1]) + content[old + 1 :]
    assert changed != content
    (tmp_path / name).write_bytes(changed)
    with pytest.raises(CondmixError, match=f"{tmp_path} is damaged .its content does not match the checksum"):
        load_clip(tmp_path)


def test_a_missing_or_damaged_clip_is_one_sentence(tmp_path):
    with pytest.raises(CondmixError, match="make the CLIP first"):
        load_clip(tmp_path)
    save_tiny_clip(tmp_path)
    weights = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(weights[:-100])
    with pytest.raises(CondmixError, match="make it again"):
        load_clip(tmp_path)
    (tmp_path / CARD).unlink()  # as in a folder that others wrote
    with pytest.raises(CondmixError, match="does not hold a CLIP that open_clip can load .*make it again"):
        load_clip(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(weights)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 32
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CondmixError, match="make it again"):
        load_clip(tmp_path)
