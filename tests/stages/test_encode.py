"""The stage encode: training a CLIP, loading one, and what its vectors are measured to carry."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_helpers import TINY, Colours, colour_params, known_as, save_tiny_siglip, use_data
from condmix import CondmixError
from condmix.clip import openclip
from condmix.clip.contrastive import Recipe, batches, draw_text, make_optimizers, normaliser
from condmix.clip.folder import CONFIG, WEIGHTS, load_clip
from condmix.clip.probes import linear_probe, recall_at, ridge, zero_shot
from condmix.runtime.processes import spawn
from condmix.settings import schema
from condmix.stages import encode
from profiles import content
from tower_helpers import ARCHITECTURE, PIXELS, save_tiny_towers


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A function that runs the stage on `Colours` in a new folder and returns its parameters."""

    def run(name="run", seed=0, **clip):
        params = colour_params(tmp_path / name, **clip)
        params.clip.seed = seed
        params.paths.captions.mkdir(parents=True)
        captions = [["", *texts] for texts in Colours().captions("train")]
        captions[7] = []  # pictures without captions and empty captions are left out
        (params.paths.captions / "train.json").write_text(json.dumps({"captions": captions}))
        encode.main(params)
        return params

    use_data(monkeypatch, encode, Colours)
    return run


def metrics(params):
    return json.loads((params.paths.metrics / "encode.json").read_text())


# Training


def test_training_teaches_what_captions_name_and_says_so(world):
    params = world(steps=600, batch_size=20, lr=3e-3)
    result = metrics(params)
    for name in ("probe_image", "probe_text"):
        assert result[name]["colour"] > 0.95 and result[name]["side"] > 0.95
    # a bare word ("left") is no caption that training has shown: better than chance is all it must be
    assert result["zero_shot_accuracy"]["colour"] > 0.4 and result["zero_shot_accuracy"]["side"] > 0.5
    assert result["train_images"] == 59 and result["n"] == 20 and result["split"] == "test"
    assert result["encoder"] == load_clip(params.paths.clip).id
    assert result["loss"] < math.log(20)
    assert not [path for path in params.paths.models.iterdir() if path.name != "clip"]


def test_the_seed_fixes_the_weights(world):
    a, b, c = (world(name, seed).paths.clip / WEIGHTS for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()


def test_a_loss_that_is_not_finite_stops_in_one_sentence(world, tmp_path):
    with pytest.raises(CondmixError, match=r"loss became nan at step 1: lower clip.lr \(1e\+30\)"):
        world(lr=1e30, warmup=0.0)
    assert not list(tmp_path.rglob(CONFIG)) and not list(tmp_path.rglob("encode.json"))


def test_a_configuration_that_open_clip_cannot_build_is_named(world):
    with pytest.raises(CondmixError, match="clip.model is not a configuration .*text_cfg"):
        world(model={"embed_dim": 16})
    with pytest.raises(CondmixError, match='no model "ViT-B-23"; near to it are ViT-B-'):
        world("other", model="ViT-B-23")


RECIPE = Recipe(steps=100, batch_size=8, lr=1e-2, warmup=0.1, weight_decay=0.1, joined=0.5, flip=False)


def test_two_processes_train_the_clip_of_one(tmp_path, forked):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 8, 8), np.uint8)
    captions = [[f"picture {i}", f"number {i} of {i % 5}"] for i in range(32)]
    recipe = replace(RECIPE, steps=5, lr=1e-3, warmup=0.2)
    trained = []
    for processes in (1, 2):
        scratch = tmp_path / str(processes)
        scratch.mkdir()
        np.save(scratch / encode.PIXELS, pixels)
        (scratch / encode.CAPTIONS).write_text(json.dumps(captions))
        if processes == 1:
            encode.train_member(scratch, TINY, recipe, 0)
        else:
            spawn(2, encode.train_member, scratch, TINY, recipe, 0)
        trained.append(load_file(scratch / encode.TRAINED))
        assert json.loads((scratch / encode.LOSS).read_text()) > 0
    for name, tensor in trained[0].items():  # a tenth of a step: see the test of the optimizers
        torch.testing.assert_close(tensor, trained[1][name], atol=recipe.lr / 10, rtol=0, msg=name)


def test_an_epoch_of_batches_shows_every_picture_once():
    draws = batches(10, 5, np.random.default_rng(0))
    assert sorted(np.concatenate([next(draws), next(draws)])) == list(range(10))
    assert sorted(next(batches(3, 8, np.random.default_rng(0)))) == [0, 1, 2]


def test_texts_are_single_captions_or_several_joined():
    rng = np.random.default_rng(0)
    captions = ["a cat.", "a dog", "an owl"]
    assert {draw_text(captions, 0.0, rng) for _ in range(50)} == set(captions)
    for _ in range(50):
        parts = draw_text(captions, 1.0, rng).split(". ")
        assert 2 <= len(parts) == len(set(parts)) and set(parts) <= {"a cat", "a dog", "an owl"}
    assert draw_text(["alone"], 1.0, rng) == "alone"


def test_the_optimizers_agree_with_the_plain_one():
    from open_clip.loss import ClipLoss

    updated = []
    for plain in (False, True):
        torch.manual_seed(0)
        vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 8}
        model, _, tokenizer = encode.new_clip(TINY | {"vision_cfg": vision})
        optimizers = make_optimizers(model, RECIPE)
        if plain:
            model.token_embedding.sparse = False
            (table,), (decay, others) = (optimizer.param_groups for optimizer in optimizers)
            others = {**others, "params": others["params"] + table["params"]}
            optimizers = [torch.optim.AdamW([decay, others], lr=RECIPE.lr, betas=(0.9, 0.98), eps=1e-6, fused=False)]
            optimizers[0].param_groups[1]["fused"] = optimizers[0].param_groups[0]["fused"] = False
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        for _ in range(2):
            model.zero_grad()
            ClipLoss()(*model(images, tokenizer(["a", "b", "c", "d"]))).backward()
            for optimizer in optimizers:
                optimizer.step()
        updated.append(model.state_dict())
    for name, tensor in updated[0].items():
        # A tenth of one step: gradients near zero, whose sign is rounding, may go either way in Adam.
        torch.testing.assert_close(tensor, updated[1][name], atol=RECIPE.lr / 10, rtol=0, msg=name)


def test_pictures_kept_as_bytes_enter_exactly_as_preprocessed(tmp_path):
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    model, _, _ = encode.new_clip(TINY)
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    pictures = [np.random.default_rng(i).integers(0, 256, (9 + i, 12, 3), dtype=np.uint8) for i in range(3)]
    encode.shrink(iter(pictures), 3, preprocess, model, tmp_path / "pixels.npy")
    pixels = np.load(tmp_path / "pixels.npy")
    expected = torch.stack([preprocess(Image.fromarray(picture)) for picture in pictures])
    torch.testing.assert_close(normaliser(model, "cpu")(torch.from_numpy(pixels[:])), expected)


# Loading


@pytest.fixture
def known(tmp_path, monkeypatch):
    """open_clip knows the architecture "tiny-clip" with a tag "openai", as QuickGELU; its weights lie in a file."""
    import open_clip
    from open_clip import pretrained

    known_as(monkeypatch, tmp_path, "tiny-clip", TINY)
    torch.manual_seed(3)
    weights = open_clip.CLIP(**TINY, quick_gelu=True).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    torch.save(weights, tmp_path / "weights.pt")
    tag = {"file": str(tmp_path / "weights.safetensors"), "quick_gelu": True, "mean": (0.1, 0.2, 0.3)}
    monkeypatch.setitem(pretrained._PRETRAINED, "tiny-clip", {"openai": tag})
    return tmp_path


@pytest.mark.parametrize("source", ["tag", "tag with file", "tag with pt"])
def test_pretrained_weights_keep_their_activation_and_preprocessing(world, known, source):
    file = {"tag": None, "tag with file": "weights.safetensors", "tag with pt": "weights.pt"}[source]
    params = world(model="tiny-clip", pretrained="openai", weights=file and content(known / file))
    clip = load_clip(params.paths.clip)
    weights = load_file(known / "weights.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in clip.model.state_dict().items())
    assert type(clip.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert clip.model.visual.preprocess_cfg["mean"] == [0.1, 0.2, 0.3]
    result = metrics(params)
    assert result["model"] == "tiny-clip" and "steps" not in result and "probe_text" in result


def test_a_local_file_needs_no_tag(world, known):
    params = world(model="tiny-clip", weights=content(known / "weights.safetensors"))
    assert type(load_clip(params.paths.clip).model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "GELU"


def test_a_file_without_a_tag_is_preprocessed_as_all_tags_agree():
    siglip = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    assert openclip.preprocessing("ViT-B-16-SigLIP", ["webli"]) == siglip
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model("ViT-B-32")
    assert set(openclip.preprocessing("ViT-B-32", tags)) >= {"mean", "std"}
    assert openclip.preprocessing("unknown", []) == {}


def test_a_folder_of_the_hub_brings_model_preprocessing_and_tokenizer(world, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(encode, "measure", lambda *_: {})  # the vectors of this random tower are almost all the same
    (tmp_path / "siglip").mkdir()
    made = save_tiny_siglip(tmp_path / "siglip")
    params = world(model={}, weights=content(tmp_path / "siglip"))
    clip = load_clip(params.paths.clip)
    assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in clip.model.state_dict().items())
    assert clip.model.visual.preprocess_cfg.items() >= {"resize_mode": "squash", "mean": [0.5] * 3}.items()
    assert clip.tokenizer(["a cat"]).shape == (1, 10) and metrics(params)["model"] == "custom"


def test_weights_that_cannot_be_had_are_one_sentence(known, monkeypatch):
    from open_clip import pretrained

    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setitem(pretrained._PRETRAINED["tiny-clip"], "far", {"url": "https://example.invalid/w.pt"})
    with pytest.raises(CondmixError, match="tiny-clip/far could not .*not known.*give clip.weights: {path: <file>"):
        openclip.load_pretrained("tiny-clip", "far", None)
    with pytest.raises(CondmixError, match='no clip.pretrained of tiny-clip "opnai"; .* did you mean "openai"'):
        openclip.load_pretrained("tiny-clip", "opnai", None)


def test_files_that_could_run_code_or_hold_another_model_are_refused(known):
    torch.jit.script(torch.nn.Linear(2, 2)).save(known / "script.pt")
    torch.save({"a": print}, known / "code.pt")
    save_file({"a": torch.zeros(1)}, known / "other.safetensors")
    for name in ("script.pt", "code.pt", "other.safetensors"):
        with pytest.raises(CondmixError, match=f"{name} does not hold the weights of tiny-clip") as error:
            openclip.load_pretrained("tiny-clip", None, known / name)
        assert "\n" not in str(error.value)


# Measuring


def test_a_linear_probe_reads_off_what_is_linear_whatever_the_scale():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator)
    labels = (x @ torch.randn(8, 3, generator=generator)).argmax(dim=-1)
    assert linear_probe(x[:200], labels[:200], x[200:], labels[200:]) > 0.85
    moved = 1e3 * x + 5
    scaled = linear_probe(moved[:200], labels[:200], moved[200:], labels[200:])
    assert scaled == pytest.approx(linear_probe(x[:200], labels[:200], x[200:], labels[200:]))
    shuffled = labels[torch.randperm(300, generator=generator)]
    assert linear_probe(x[:200], shuffled[:200], x[200:], shuffled[200:]) < 0.6


def test_a_linear_probe_is_not_fitted_to_what_is_unknown():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 8, generator=generator)
    labels = (x @ torch.randn(8, 3, generator=generator)).argmax(dim=-1)
    some = torch.arange(200) % 2 == 0
    partly = torch.where(some, labels[:200], -1)
    expected = linear_probe(x[:200][some], labels[:200][some], x[200:], labels[200:])
    assert linear_probe(x[:200], partly, x[200:], labels[200:]) == pytest.approx(expected)


def test_ridge_solves_its_normal_equations():
    x, y = torch.randn(30, 4, dtype=torch.double), torch.randn(30, 2, dtype=torch.double)
    residual = x @ ridge(x, y, 0.0) - y
    torch.testing.assert_close(x.T @ residual, torch.zeros(4, 2, dtype=torch.double))


def test_zero_shot_ignores_length():
    prompts = torch.eye(3)
    images = torch.tensor([[5.0, 1, 0], [0, 0.2, 0.1], [0, 9, 1], [0, 0, 1]])
    assert zero_shot(images, prompts * torch.tensor([[1.0], [7], [3]]), torch.tensor([0, 1, 2, 2])) == 0.75


def test_recall_is_the_share_whose_own_is_among_the_nearest():
    own = torch.eye(4, dtype=torch.bool)
    assert recall_at([1], torch.eye(4) * 3, torch.eye(4), own) == {"1": 1.0}  # whatever the length
    assert recall_at([1], torch.eye(4), torch.eye(4).flip(0), own) == {"1": 0.0}
    queries, targets = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    fits = torch.tensor([[False, False, True, True]])  # ranks 3 and 4: the better of several counts
    assert recall_at([1, 2, 3], queries, targets, fits) == {"1": 0.0, "2": 0.0, "3": 1.0}
    same = torch.ones(4, 2)  # a tower that says the same of everything finds nothing
    assert recall_at([1, 3, 4], same, same, own) == {"1": 0.0, "3": 0.0, "4": 1.0}


def test_data_without_attributes_is_measured_by_classes_and_retrieval(tmp_path):
    dataset = Colours((3, 3), seed=1)
    dataset.attributes = {}

    class Oracle:
        """Both towers at once: the colour as a one-hot, which a caption names in one word."""

        def encode(self, batch):
            if isinstance(batch[0], str):
                found = [[name in text for name in Colours.class_names] for text in batch]
            else:
                found = [image.max(axis=(0, 1)) > 0 for image in batch]
            return torch.tensor(np.array(found)).float()

    result = encode.measure(dataset, Oracle(), Oracle(), ["a {} thing", "{}"])
    assert result["zero_shot_accuracy"] == {"class": 1.0} and result["recall_at"]["images"] == 3
    assert result["recall_at"]["captions"] == 6
    dataset.every_answer_counts = True  # a word that fits a third of the pictures finds none in particular
    assert "recall_at" not in encode.measure(dataset, Oracle(), Oracle(), ["{}"])


# Between pretrained towers


def test_projections_between_towers_are_trained_and_measured(world, tmp_path, monkeypatch):
    pytest.importorskip("transformers")

    def plain():
        data = Colours()
        data.attributes = {}  # the tiny text tower knows too few words to be probed for them
        return data

    use_data(monkeypatch, encode, plain)
    made = save_tiny_towers(tmp_path)
    towers = schema.Towers(image=content(made.image), text=content(made.text), mean=PIXELS.mean, std=PIXELS.std)
    settings = {"model": ARCHITECTURE, "towers": towers, "steps": 30, "batch_size": 20}
    params, again, other = (world(name, seed, **settings) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    result = metrics(params)
    assert result["train_images"] == 59 and result["source"] == "projections trained on colours"
    assert result["recall_at"]["images"] == 20 and result["recall_at"]["captions"] == 40
    assert result["recall_at"]["image_to_text"].keys() == {"1", "5", "10"}
    assert result["encoder"] == load_clip(params.paths.clip).id == metrics(again)["encoder"]
    assert result["encoder"] != metrics(other)["encoder"]
    kept = load_clip(params.paths.clip).model.visual.trunk.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in made.backbone.state_dict().items())


def test_the_texts_of_a_picture_are_its_captions_and_some_that_join_them():
    captions = [["a", "b", "c"], ["d"], ["a", "e"]]
    texts, alone, joined = encode.drawn_texts(captions, 0.5, seed=0)
    assert [[texts[row] for row in rows] for rows in alone] == captions and len(texts) == len(set(texts))
    assert joined[1] == [] and len(joined[0]) == len(joined[2]) == encode.JOINED
    assert all(set(texts[row].split(". ")) <= set("abc") and ". " in texts[row] for row in joined[0])
    assert encode.drawn_texts(captions, 0.0, seed=0)[2] == [[], [], []]
