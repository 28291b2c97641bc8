"""Captioners: each reads its own format through the real loader; decoding against the definition; one is trained."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from captioner_helpers import COCA, pictures, save_tiny_blip, save_tiny_coca, save_tiny_florence2, settings
from clip_helpers import Colours, save_tiny_clip
from condmix import CondmixError
from condmix.captioners import Captioner, TrainedCaptioner
from condmix.captioners._coca import nucleus
from condmix.settings.load import plugin, plugins
from profiles import content

SAVE = {"blip": save_tiny_blip, "coca": save_tiny_coca, "florence2": save_tiny_florence2}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    pytest.importorskip("transformers")
    made = {name: tmp_path_factory.mktemp(name) for name in SAVE}
    for name, folder in made.items():
        SAVE[name](folder)
    return made


def opened(name, folder, **changes):
    return plugin("captioners", name).open(settings(name, content(folder), **changes), None)


def test_every_captioner_keeps_the_contract():
    assert set(SAVE) | {"trained_coca"} == set(plugins("captioners"))
    for name in plugins("captioners"):
        kind = plugin("captioners", name)
        base = TrainedCaptioner if kind.trained else Captioner
        assert issubclass(kind, base) and not kind.__abstractmethods__ and kind.__doc__ and kind.prompts
        for method in base.__abstractmethods__:
            own, promised = (list(inspect.signature(getattr(one, method)).parameters) for one in (kind, base))
            assert own == promised


@pytest.mark.parametrize("name", SAVE)
def test_a_folder_in_the_real_format_gives_captions_that_follow_the_seed(folders, name):
    captioner = opened(name, folders[name])
    seen = captioner.see(pictures(4))
    first, again, other = (captioner.caption(seen, captioner.prompts[0], seed) for seed in (1, 1, 2))
    assert len(first) == 4 and all(isinstance(text, str) for text in first) and any(first)
    assert first == again != other
    state = torch.get_rng_state()
    captioner.caption(seen, captioner.prompts[0], 1)
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's draws change
    greedy = opened(name, folders[name], top_p=0)
    assert greedy.caption(seen, greedy.prompts[0], 1) == greedy.caption(seen, greedy.prompts[0], 2)
    assert captioner.facts["model"] == str(folders[name]) and captioner.facts["revision"] is None


@pytest.mark.parametrize("name", SAVE)
def test_the_weights_hash_is_that_of_the_weights(folders, name, tmp_path):
    def facts(folder):
        return opened(name, folder).facts["weights_sha256"]

    SAVE[name](tmp_path, seed=1)
    assert len(facts(folders[name])) == 64 and facts(tmp_path) != facts(folders[name]) == facts(folders[name])


@pytest.mark.parametrize("name", ["blip", "coca"])
def test_a_prompt_is_how_the_caption_begins(folders, name):
    captioner = opened(name, folders[name])
    assert all(text.startswith("a photo of") for text in captioner.caption(captioner.see(pictures()), "a photo of", 0))


def test_florence2_asks_for_three_lengths(folders):
    captioner = opened("florence2", folders["florence2"])
    assert captioner.prompts == ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
    asked = [captioner.processor(images=captioner.see(pictures(1)), text=[prompt]) for prompt in captioner.prompts]
    assert len({str(one.input_ids) for one in asked}) == 3


def test_decoding_greedily_takes_the_likeliest_token_each_time():
    from condmix.captioners._coca_training import new_coca

    torch.manual_seed(0)
    model = new_coca(COCA, 30)[0].eval()
    pixels, words = torch.randn(5, 3, 8, 8), SimpleNamespace(eot_token_id=2)
    made = SimpleNamespace(max_tokens=11, top_p=0.0, temperature=1.0)
    greedy = plugin("captioners", "trained_coca")(made, model, None, words)
    with torch.no_grad():
        rows = greedy.continued(model._encode_image(pixels), [1], seed=0)
        for picture, row in zip(pixels, rows, strict=True):
            written = torch.tensor([[1, *row]])
            likeliest = model(picture[None], written, output_labels=False)["logits"][0].argmax(dim=1).tolist()
            assert likeliest[: len(row)] == row and 2 not in row
            assert len(row) == 11 or likeliest[-1] == 2  # it ended itself, or was cut


def test_the_nucleus_is_the_fewest_tokens_that_have_the_probability_asked_for():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]).log()
    expected = torch.tensor([[0.5, 0.3, 0.0, 0.0], [0.0, 0.0, 0.3, 0.5]]) / 0.8
    torch.testing.assert_close(nucleus(logits, 0.6), expected)
    torch.testing.assert_close(nucleus(logits, 1.0), logits.exp())
    torch.testing.assert_close(nucleus(logits, 0.0), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))


def train_colours(folder, seed=0, steps=80):
    folder.mkdir()
    data = Colours((120, 40))
    made = settings(
        "trained_coca", COCA, seed=seed, max_tokens=12, top_p=0.5,
        training={"steps": steps, "batch_size": 40, "lr": 5e-3},
    )  # fmt: skip
    kind = plugin("captioners", "trained_coca")
    kind.train(made, list(data.images("train")), data.captions("train"), folder, "cpu")
    return kind.open(made, folder), data


def test_a_captioner_that_is_trained_says_what_pictures_show_in_the_words_of_the_captions(tmp_path):
    captioner, data = train_colours(tmp_path / "captioner")
    seen = captioner.see(list(data.images("test")))
    said = [text for seed in range(5) for text in captioner.caption(seen, "", seed)]
    known = {text for texts in data.captions("train") for text in texts}
    assert sum(text in known for text in said) > 0.8 * len(said)
    right = [text in texts for text, texts in zip(said, data.captions("test") * 5, strict=True) if text in known]
    assert np.mean(right) > 0.7  # by chance 5 of 12
    with pytest.raises(CondmixError, match='"a zebra" has "zebra", which no training caption has'):
        captioner.caption(seen, "a zebra", 0)


def test_training_again_gives_the_same_weights_and_another_seed_others(tmp_path):
    hashes = [
        train_colours(tmp_path / str(i), seed, steps=2)[0].facts["weights_sha256"] for i, seed in enumerate((0, 0, 1))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_is_no_captioner_is_refused_in_one_sentence(folders, tmp_path):
    save_tiny_clip(tmp_path / "clip")
    for name, folder, changes, sentence in [
        ("coca", tmp_path / "clip", {}, "is a CLIP and no CoCa, so it writes no captions"),
        ("blip", folders["florence2"], {}, "holds a florence2 model, not blip"),
        ("florence2", folders["blip"], {}, "holds a blip model, not florence2"),
    ]:
        with pytest.raises(CondmixError, match=sentence):
            opened(name, folder, **changes)


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    pytest.importorskip("transformers")
    save_tiny_blip(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "crossattention.self.query.weight" in name)
    save_file({key: value for key, value in weights.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(CondmixError, match=f"lacks 1 weights of its blip, such as {name}"):
        opened("blip", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CondmixError, match="read as safetensors only"):
        opened("blip", tmp_path)


def test_an_architecture_that_open_clip_cannot_build_is_named(tmp_path):
    made = settings("trained_coca", {"embed_dim": 16}, training={"steps": 1})
    with pytest.raises(CondmixError, match="generated.model is not a CoCa that open_clip can build"):
        plugin("captioners", "trained_coca").train(made, pictures(2), [["a"], ["a"]], tmp_path, "cpu")
    assert not list(tmp_path.iterdir())
