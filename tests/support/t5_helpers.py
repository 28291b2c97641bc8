"""A T5 encoder of a few thousand random weights, with a tokenizer, in the folder format of transformers."""

from types import SimpleNamespace

import torch

from profiles import content

WORDS = ["<pad>", "</s>", "<unk>", "a", "an", "cat", "dog", "frog", "owl", "on", "log", "red", "green", "blue"]


def save_tiny_tokenizer(folder):
    """Write the files of a tokenizer of whole words that ends every text as T5's does into `folder`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_tiny_t5(folder, seed=0):
    """Write config.json, model.safetensors and the tokenizer's files into `folder`; returns the model."""
    from transformers import T5Config, T5EncoderModel

    save_tiny_tokenizer(folder)
    torch.manual_seed(seed)
    sizes = {"d_model": 24, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_heads": 2}
    model = T5EncoderModel(T5Config(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, **sizes)).eval()
    model.save_pretrained(folder)
    return model


def t5_settings(folder, **changes):
    """A profile's embed.t5."""
    model = {"model": content(folder), "revision": None}
    return SimpleNamespace(**model | {"max_tokens": 128, "precision": "fp32"} | changes)


def save_tiny_bert(folder, seed=0):
    """Write config.json, model.safetensors and the tokenizer's files of a BERT into `folder`; returns the model."""
    from transformers import BertConfig, BertModel

    save_tiny_tokenizer(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(WORDS), pad_token_id=0, **sizes), add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    return model
