"""Frozen towers and captioned pictures -> a CLIP, of which two linear maps are learned.

Zhai et al. 2022 (LiT, arXiv:2111.07991) lock a pretrained image tower and teach a text tower to match it. Here both
towers are locked, a timm backbone and a text encoder of transformers, and their projections alone are trained. Since
a locked tower says the same of a picture or text at each step, it is asked once.

Axes: N pictures, V views of each (as it is; mirrored), M texts, F and G the towers' widths, D that of the shared space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condmix import CondmixError
from condmix.clip.backbone import Pixels, check_backbone, load_backbone
from condmix.clip.contrastive import Recipe, batches, clamp_scale, make_optimizers
from condmix.clip.huggingface import explained, load_text_encoder, require_safetensors
from condmix.clip.weights import check_finite, refuse_code
from condmix.runtime.messages import reason
from condmix.training.loop import fit

FEWEST_TOKENS = 3  # a text needs room between the tokens that begin and end it


class TowerFeatures(NamedTuple):
    """What locked towers say of a training split; picture i has the texts `alone[i]`, `joined[i]` (rows of `texts`)."""

    images: Tensor  # (V, N, F)
    texts: Tensor  # (M, G)
    alone: Sequence[Sequence[int]]
    joined: Sequence[Sequence[int]]


# The towers


def new_locked_clip(
    architecture: Mapping[str, Any], image: Path, text: Path, pixels: Pixels
) -> tuple[Any, dict[str, Any], Any]:
    """An untrained CLIP between two pretrained towers: model, configuration and tokenizer.

    `architecture` is open_clip's (embed_dim, vision_cfg, text_cfg). `image` holds the weights of its timm backbone,
    `text` is a folder of transformers. The projections are random.
    """
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    refuse_code(text)
    require_safetensors(text)
    _, encoder = load_text_encoder(text)
    try:
        model, model_cfg, tokenizer = _build(architecture, text)
    except CondmixError:
        raise
    except Exception as error:  # whatever the wrong value leads to, in open_clip, timm or transformers
        raise CondmixError(
            f"open_clip can't build a CLIP of clip.model and clip.towers ({type(error).__name__}: {reason(error)})"
        ) from error
    load_backbone(model.visual.trunk, image)
    check_finite(model.visual, image)
    with explained(text, "does not hold the text tower that open_clip builds"):
        tower = encoder.encoder if encoder.config.is_encoder_decoder else encoder
        weights, own = tower.state_dict(), model.text.transformer.state_dict()  # which lacks a BERT's pooler
        model.text.transformer.load_state_dict({name: weights[name] for name in own})
    set_model_preprocess_cfg(model, asdict(PreprocessCfg(size=model.visual.image_size, **pixels._asdict())))
    return model.eval(), model_cfg, tokenizer


def _build(architecture: Mapping[str, Any], text: Path) -> tuple[Any, dict[str, Any], Any]:
    """The CLIP of this architecture with the text tower that a folder describes; all weights are random."""
    from open_clip import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer

    ours = {"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_model_pretrained": False}
    vision_cfg, text_cfg = architecture["vision_cfg"], architecture["text_cfg"] | ours
    model_cfg = {**architecture, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    if not vision_cfg.get("timm_model_name"):
        raise CondmixError("clip.towers is given, so clip.model.vision_cfg needs a timm_model_name")
    check_backbone(vision_cfg["timm_model_name"])
    length = text_cfg.get("context_length", 0)
    if length < FEWEST_TOKENS:
        raise CondmixError(f"clip.model.text_cfg.context_length is {length}; give {FEWEST_TOKENS} or more")
    model = CustomTextCLIP(**model_cfg)
    projections = {
        "vision_cfg.timm_proj": model.visual.head,
        "text_cfg.hf_proj_type": getattr(model.text, "proj", None),
    }
    for setting, projection in projections.items():
        if projection is None or not list(projection.parameters()):
            raise CondmixError(f"clip.model.{setting} must be linear or mlp: the projection is what clip.towers train")
    own = {"local_files_only": True, "trust_remote_code": False}
    return model, model_cfg, HFTokenizer(str(text), context_length=length, **own)


@contextmanager
def without_projections(model: Any) -> Iterator[Projections]:
    """Inside, `model` ends where its towers do, in features (B, F) and (B, G); yields what came after them."""
    held = Projections(model.visual.head, model.text.proj, model.logit_scale)
    model.visual.head, model.text.proj = nn.Identity(), nn.Identity()
    try:
        yield held
    finally:
        model.visual.head, model.text.proj = held.image, held.text


# Their projections


class Projections(nn.Module):
    """All of a CLIP that is learned between locked towers."""

    def __init__(self, image: nn.Module, text: nn.Module, logit_scale: nn.Parameter):
        super().__init__()
        self.image, self.text, self.logit_scale = image, text, logit_scale

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, F), (B, G) -> unit vectors (B, D) of both and the factor of their products."""
        return F.normalize(self.image(images), dim=-1), F.normalize(self.text(texts), dim=-1), self.logit_scale.exp()


def train_projections(projections: Projections, seen: TowerFeatures, recipe: Recipe, seed: int) -> float:
    """Train in place, on the features' device; returns the loss averaged over the last tenth.

    Same seed and machine: same weights.
    """
    from open_clip.loss import ClipLoss

    device, count = seen.images.device, seen.images.shape[1]
    projections.to(device).train()
    rng, criterion = np.random.default_rng(seed), ClipLoss()
    drawn = batches(count, recipe.batch_size, rng)

    def loss_of() -> Tensor:
        index = next(drawn)
        texts = [draw_row(seen.alone[i], seen.joined[i], recipe.joined, rng) for i in index]
        views = rng.integers(len(seen.images), size=len(index))
        images = seen.images[torch.from_numpy(views), torch.from_numpy(index)]
        return criterion(*projections(images, seen.texts[torch.tensor(texts)]))

    optimizers = make_optimizers(projections, recipe)
    losses = fit(recipe.plan("CLIP", "clip.lr"), optimizers, loss_of, after=lambda: clamp_scale(projections))
    projections.eval()
    return float(np.mean(losses[-max(1, recipe.steps // 10) :]))


def draw_row(alone: Sequence[int], joined: Sequence[int], share: float, rng: np.random.Generator) -> int:
    """One of a picture's texts: with probability `share` one of those that join several captions, if it has any."""
    rows = joined if joined and rng.random() < share else alone
    return rows[int(rng.integers(len(rows)))]
