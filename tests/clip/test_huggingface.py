"""Folders of transformers: what a batch of texts is cut to."""

import torch

from condmix.clip.huggingface import without_padding


def test_padding_is_what_no_text_uses():
    tokens = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0]])
    assert without_padding(tokens, 0).tolist() == [[5, 6, 0], [7, 8, 9]]
    assert without_padding(tokens[:, 3:], 0).shape == (2, 1)
