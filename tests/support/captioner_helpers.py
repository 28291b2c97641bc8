"""Captioners of a few thousand random weights, in the folder formats of open_clip and transformers."""

import numpy as np
import torch

from profiles import section

WORDS = ["a", "cat", "dog", "on", "red", "blue", "ring", "in", "the", "left", "photo", "of", "what", "does", "image"]
COCA = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 8, "layers": 1, "width": 16, "patch_size": 4, "head_width": 8, "attentional_pool": True,
        "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 12, "width": 16, "heads": 2, "layers": 1, "embed_cls": True, "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip


def settings(captioner, model, **changes):
    """A profile's section `generated`."""
    return section("generated", captioner=captioner, model=model, **{"max_tokens": 8} | changes)


def pictures(count=3, side=20):
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8))


def save_tiny_coca(folder, seed=0):
    """A CoCa with all of CLIP's words; returns the model."""
    from condmix.captioners._coca_training import new_coca
    from condmix.clip.folder import save_clip

    torch.manual_seed(seed)
    model, model_cfg = new_coca(COCA, 49408)
    save_clip(folder, model.eval(), model_cfg, None)
    return model


def save_tiny_blip(folder, seed=0):
    import transformers as hf

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = hf.BertTokenizerFast(str(folder / "vocab.txt"))
    hf.BlipProcessor(hf.BlipImageProcessor(size={"height": 16, "width": 16}), tokenizer).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    numbers = {"vocab_size": len(words), "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **numbers, "encoder_hidden_size": 16, "max_position_embeddings": 32}
    config = hf.BlipConfig(
        text_config=text, vision_config=sizes | {"image_size": 16, "patch_size": 8}, projection_dim=8
    )
    torch.manual_seed(seed)
    model = hf.BlipForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    return model


def save_tiny_florence2(folder, seed=0):
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    names["extra_special_tokens"] = {"image_token": "<image>"}
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, **names)
    images = hf.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False)
    images.image_seq_length = 2  # the picture's one place, and the mean over places
    hf.Florence2Processor(images, tokenizer).save_pretrained(folder)
    text = {
        "model_type": "bart", "vocab_size": len(words.get_vocab()), "d_model": 16, "encoder_layers": 1,
        "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16, "max_position_embeddings": 64, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "embed_dim": [8, 8], "num_heads": [2, 2], "num_groups": [2, 2], "depths": [1, 1], "window_size": 4,
        "patch_size": [7, 3], "patch_stride": [4, 8], "patch_padding": [3, 1], "patch_prenorm": [False, True],
        "projection_dim": 16, "drop_path_rate": 0.0,
    }  # fmt: skip
    torch.manual_seed(seed)
    config = hf.Florence2Config(text_config=text, vision_config=vision, image_token_id=4, pad_token_id=1)
    model = hf.Florence2ForConditionalGeneration(config).eval()
    model.save_pretrained(folder)
    return model
