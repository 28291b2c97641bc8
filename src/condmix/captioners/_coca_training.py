"""Pictures and their captions -> a trained CoCa (Yu et al. 2022), with open_clip's model and loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from condmix import CondmixError
from condmix.clip.contrastive import Recipe, batches, clamp_scale, make_optimizers, normaliser
from condmix.clip.folder import save_clip
from condmix.clip.weights import check_text_tower
from condmix.training.loop import fit

CAPTIONING, CONTRAST = 2.0, 1.0  # weights of the two losses; Yu et al., section 4.1


def train_and_save(
    settings: Any,
    pictures: np.ndarray,
    tokens: Sequence[Sequence[Sequence[int]]],
    words: int,
    folder: Path,
    device: str,
) -> None:
    """Train the CoCa of `settings.model` and leave it in `folder` in open_clip's format.

    pictures (N, H, W, 3) uint8; tokens[i] are the captions of picture i, numbers below `words`.
    """
    torch.manual_seed(settings.seed)  # the first weights come from the global generator
    model, model_cfg = new_coca(settings.model, words)
    size, length = model.visual.image_size, model.context_length
    resized = (
        np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC)) for picture in pictures
    )
    pixels = np.stack([picture.transpose(2, 0, 1) for picture in resized])
    rows = [[padded(caption, length) for caption in captions] for captions in tokens]
    train(model.to(device), pixels, rows, settings.training, settings.seed)
    save_clip(folder, model, model_cfg, None)


def new_coca(architecture: dict[str, Any], words: int) -> tuple[Any, dict[str, Any]]:
    """An untrained CoCa with a vocabulary of `words`, and its configuration."""
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg

    model_cfg = {**copy.deepcopy(architecture), "custom_text": True}
    check_text_tower(model_cfg, "generated.model")
    try:
        for tower in ("text_cfg", "multimodal_cfg"):
            model_cfg[tower]["vocab_size"] = words
        model = open_clip.CoCa(**{name: value for name, value in model_cfg.items() if name != "custom_text"})
        preprocess_cfg = asdict(PreprocessCfg(size=model.visual.image_size))
    except Exception as error:  # whatever the wrong value leads to
        raise CondmixError(f"generated.model is not a CoCa that open_clip can build: {error!r}") from error
    # open_clip leaves this one as the memory happens to be
    nn.init.normal_(model.text_decoder.text_projection, std=model.text_decoder.text_projection.shape[0] ** -0.5)
    set_model_preprocess_cfg(model, preprocess_cfg)
    return model, model_cfg


def padded(caption: Sequence[int], length: int) -> Tensor:
    """(length,) with zeros at the end; a longer caption loses its end."""
    row = torch.zeros(length, dtype=torch.long)
    row[: min(len(caption), length)] = torch.tensor(caption[:length])
    return row


def train(model: Any, pixels: np.ndarray, captions: Sequence[Sequence[Tensor]], training: Any, seed: int) -> None:
    """Train in place on pixels (N, 3, S, S) uint8 and the captions (L,) of each, one of which each step draws.

    Same seed, machine and threads: same weights.
    """
    from open_clip.loss import CoCaLoss

    recipe = Recipe(
        training.steps, training.batch_size, lr=training.lr, warmup=training.warmup, weight_decay=training.weight_decay
    )
    rng, device = np.random.default_rng(seed), model.logit_scale.device
    criterion = CoCaLoss(CAPTIONING, CONTRAST, pad_id=0)
    normalise, drawn = normaliser(model, device), batches(len(pixels), recipe.batch_size, rng)

    def loss_of() -> Tensor:
        index = next(drawn)
        images = normalise(torch.from_numpy(pixels[index]))
        texts = torch.stack([captions[i][int(rng.integers(len(captions[i])))] for i in index])
        longest = int((texts != 0).sum(dim=1).max())
        output = model(images, texts[:, :longest].to(device, non_blocking=True))
        return sum(criterion(**output))

    model.train()
    plan = recipe.plan("captioner", "generated.training.lr")
    fit(plan, make_optimizers(model, recipe), loss_of, after=lambda: clamp_scale(model))
    model.eval()
