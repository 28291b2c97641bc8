"""A CLIP's text tower whose token table has only the words that its model was trained on, for small copies of models.

Of the 49,408 rows of CLIP's table a model of few words ever reads some dozens. `vocabulary.json` beside the weights
lists the tokens whose rows are left, ascending, so that the end of a text keeps the highest number, by which the tower
finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict

from condmix import CondmixError, shown
from condmix.clip.folder import CARD, CONFIG, WEIGHTS, Clip, load_clip, read_config
from condmix.files.artifacts import read_json
from condmix.files.atomic import write_json
from condmix.pipeline import tree_sha256

FILE = "vocabulary.json"
# Stands for the image tower, which text does not pass: open_clip knows no CLIP without one.
NO_IMAGES = {"image_size": 8, "patch_size": 8, "width": 8, "head_width": 8, "layers": 1}


class Vocabulary(TypedDict):
    """vocabulary.json."""

    tokens: list[int]
    words: list[str]  # of the captions, for people: a word can be several tokens


class KnownWords:
    """open_clip's tokenizer with rows of the smaller table in place of its numbers; other words are refused."""

    def __init__(self, tokenizer: Any, known: Vocabulary):
        self.tokenizer = tokenizer
        self.context_length: int = tokenizer.context_length
        self.words = known["words"]
        self._rows = {token: row for row, token in enumerate(known["tokens"])}

    def encode(self, text: str) -> list[int]:
        """Tokens as CLIP numbers them, without those that begin and end a text."""
        return self.tokenizer.encode(text)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Rows (B, context) of the table; CondmixError where a text has a word that is not in it."""
        for text in texts:
            if not self._knows(text):
                strange = [word for word in text.split() if not self._knows(word)]
                raise CondmixError(
                    f'"{shown((strange or [text])[0])}" is not among the words of this small copy of a model, which '
                    f"knows the words of its captions only: {', '.join(self.words)}"
                )
        return self.tokenizer(texts).apply_(lambda token: self._rows[token])

    def _knows(self, text: str) -> bool:
        return self._rows.keys() >= set(self.encode(text))


def with_known_words(clip: Clip, folder: Path) -> Clip:
    """The CLIP of `folder`, with the tokenizer that belongs to its table."""
    if not (folder / FILE).is_file():
        return clip
    known: Vocabulary = read_json(folder / FILE, Vocabulary, "condmix export again")
    return clip._replace(tokenizer=KnownWords(clip.tokenizer, known))


@torch.no_grad()
def save_text_tower(clip: Path, out: Path, texts: Iterable[str]) -> str:
    """Write the text tower of the CLIP in `clip` to `out`, in fp16, its table cut to the tokens of `texts`; its id."""
    from open_clip.model import CLIP

    whole, cfg = load_clip(clip), read_config(clip)
    if not hasattr(whole.tokenizer, "encode"):
        raise CondmixError(f"{clip} has a tokenizer of its own, and only CLIP's can be cut to the words of captions")
    texts = set(texts)
    tokens = _tokens(whole, texts)
    words = sorted({word for text in texts for word in re.findall(r"\w+", text.lower())})
    small_cfg = {**cfg, "vision_cfg": NO_IMAGES, "text_cfg": {**cfg["text_cfg"], "vocab_size": len(tokens)}}
    small = CLIP(small_cfg["embed_dim"], small_cfg["vision_cfg"], small_cfg["text_cfg"])
    weights = {name: torch.zeros_like(tensor) for name, tensor in small.state_dict().items()}
    weights |= {name: tensor for name, tensor in whole.model.state_dict().items() if not name.startswith("visual.")}
    weights["token_embedding.weight"] = weights["token_embedding.weight"][tokens]
    small.load_state_dict(weights)
    out.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in small.half().state_dict().items()}, out / WEIGHTS)
    preprocess_cfg = json.loads((clip / CONFIG).read_text(encoding="utf-8"))["preprocess_cfg"]
    write_json(out / CONFIG, {"model_cfg": small_cfg, "preprocess_cfg": preprocess_cfg})
    write_json(out / FILE, Vocabulary(tokens=tokens, words=words))
    sha256 = tree_sha256(out, CARD)
    write_json(out / CARD, {"sha256": sha256})
    return whole._replace(sha256=sha256).id


def _tokens(clip: Clip, texts: Iterable[str]) -> list[int]:
    """The tokens of these texts, those that begin and end one, and 0, with which they are filled up."""
    tokenizer: Any = clip.tokenizer  # open_clip's, of whose methods `Clip` names the call alone
    found = {token for text in texts for token in tokenizer.encode(text)}
    return sorted({0, tokenizer.sot_token_id, tokenizer.eot_token_id, *found})
