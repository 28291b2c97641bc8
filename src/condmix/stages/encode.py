"""Stage: the CLIP whose towers embed, trained on the training split or loaded, and what its vectors carry.

Whatever it comes from, it ends in models/clip in open_clip's folder format, and everything after reads that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from condmix import CondmixError
from condmix.clip.backbone import Pixels
from condmix.clip.contrastive import Captioned, Recipe, draw_text, train_clip
from condmix.clip.folder import load_clip, read_config, save_clip
from condmix.clip.huggingface import without_padding
from condmix.clip.openclip import load_pretrained, new_clip
from condmix.clip.probes import linear_probe, recall_at, zero_shot
from condmix.clip.towers import (
    TowerFeatures,
    new_locked_clip,
    train_projections,
    without_projections,
)
from condmix.data.captions import read_captions, tidy
from condmix.encoders.clip_image import ClipImage
from condmix.encoders.clip_text import ClipText
from condmix.files.artifacts import write_checked_json
from condmix.files.atomic import scratch
from condmix.files.npy import write_pixels
from condmix.runtime.prefetch import prefetch
from condmix.runtime.processes import join_group, spawn, threads
from condmix.settings.load import Params, plugin
from condmix.tracking.runs import environment

MEASURED = 2000  # pictures of each split that the accuracies below are measured on, with all their captions
BATCH = 250
TOWER_BATCH = 64  # pictures that a pretrained tower sees at once
JOINED = 2  # texts of each picture that join several captions, between pretrained towers
RANKS = (1, 5, 10)  # of recall
PIXELS, CAPTIONS, TRAINED, LOSS = "pixels.npy", "captions.json", "trained.safetensors", "loss.json"  # while it trains
PROMPT = "a photo of a {}."  # Radford et al.; where the profile has class templates, these are averaged instead


def main(params: Params) -> None:
    """Write models/clip and metrics/encode.json."""
    paths, settings = params.paths, params.clip
    dataset = plugin("datasets", params.data.dataset)(paths.archives, params.data.world)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weights = settings.weights.verified("clip.weights") if settings.weights else None
    if weights and weights.is_dir():
        model, model_cfg, tokenizer = load_folder(weights)
        conditions = {"source": str(weights)}
    elif settings.pretrained or weights:
        model, model_cfg, tokenizer = load_pretrained(settings.model, settings.pretrained, weights)
        conditions = {"source": settings.pretrained or str(weights)}
    elif settings.towers:
        model, model_cfg, tokenizer = open_towers(settings)
        conditions = {"source": f"projections trained on {params.profile}"}
        conditions |= train_between_towers(params, dataset, model, tokenizer)
    else:
        assert settings.model is not None  # `condmix check` refuses a profile that gives no CLIP
        model, model_cfg, tokenizer = new_clip(settings.model)
        conditions = {"source": f"trained on {params.profile}"} | train(params, dataset, model)
    save_clip(paths.clip, model, model_cfg, tokenizer)
    clip = load_clip(paths.clip)
    sentence = ["A small red ring in the upper left, on grey."]
    if not torch.equal(clip.tokenizer(sentence), tokenizer(sentence)):
        raise CondmixError(f"open_clip's folder format does not keep the tokenizer of {settings.model}: use another")

    clip_image, clip_text = (kind.open(paths.clip, dataset.class_names, device) for kind in (ClipImage, ClipText))
    metrics = measure(dataset, clip_image, clip_text, params.captions.templates)
    name = settings.model if settings.model and isinstance(settings.model, str) else "custom"
    metrics |= {"model": name, **conditions, "encoder": clip.id, "split": "test", "seed": params.clip.seed}
    trained_by = (
        1 if settings.pretrained or weights or settings.towers else settings.processes
    )  # CLIP is trained in fp32
    metrics["environment"] = environment("fp32", trained_by, threads(trained_by))
    write_checked_json(paths.metrics / "encode.json", metrics)
    if shares := [f"{name} {share:.1%}" for name, share in metrics.get("zero_shot_accuracy", {}).items()]:
        print(f"zero-shot accuracy on {metrics['n']:,} test pictures: {', '.join(shares)}")


# Where a CLIP comes from


def load_folder(folder: Path) -> tuple[Any, dict[str, Any], Any]:
    """Like `load_pretrained`, from a folder in open_clip's format, as its models lie on the Hugging Face hub.

    It holds open_clip_config.json (architecture and preprocessing), open_clip_model.safetensors and, where that is not
    CLIP's own, the tokenizer's files.
    """
    clip = load_clip(folder)
    return clip.model, read_config(folder), clip.tokenizer


def open_towers(settings: Any) -> tuple[Any, dict[str, Any], Any]:
    """The untrained CLIP between the two towers of `clip.towers`; `clip.seed` draws its projections."""
    towers = settings.towers
    torch.manual_seed(settings.seed)
    image, text = towers.image.verified("clip.towers.image"), towers.text.verified("clip.towers.text")
    return new_locked_clip(settings.model, image, text, Pixels(towers.mean, towers.std))


def recipe_of(params: Params) -> Recipe:
    """How the profile says a CLIP is trained."""
    settings = params.clip
    return Recipe(
        steps=settings.steps,
        batch_size=settings.batch_size,
        lr=settings.lr,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        optimizer=settings.optimizer,
        joined=settings.joined,
        flip=params.data.flip,
    )


def training_captions(params: Params) -> tuple[list[bool], list[list[str]]]:
    """Which training pictures have captions (N,), and the captions of those that do."""
    captions = [[text for text in texts if text] for texts in read_captions(params.paths.captions, "train")]
    captioned = [bool(texts) for texts in captions]
    if not any(captioned):
        raise CondmixError(f"profile {params.profile} has no captions to train a CLIP on: give clip.pretrained")
    return captioned, list(compress(captions, captioned))


def train_between_towers(params: Params, dataset: Any, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Give the projections of `model` what training on the training split's captioned pictures ends with.

    Returns the conditions.
    """
    recipe, seed = recipe_of(params), params.clip.seed
    captioned, captions = training_captions(params)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    start = time.monotonic()
    with without_projections(model) as projections:
        images = image_features(model, compress(dataset.images("train"), captioned), sum(captioned), recipe.flip)
        texts, alone, joined = drawn_texts(captions, recipe.joined, seed)
        seen = TowerFeatures(images, text_features(model, tokenizer, texts), alone, joined)
        asked = time.monotonic()
        loss = train_projections(projections, seen, recipe, seed)
    return {
        "train_images": len(captions),
        **asdict(recipe),
        "parameters": sum(p.numel() for p in projections.parameters()),
        "seconds": round(time.monotonic() - asked, 1),
        "seconds_towers": round(asked - start, 1),
        "threads": torch.get_num_threads(),
        "loss": round(loss, 4),
    }


@torch.no_grad()
def image_features(model: Any, images: Iterator[np.ndarray], count: int, flip: bool) -> Tensor:
    """What the image tower of a model without projections says: (V, N, F), of the mirrored pictures too if `flip`."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    shown = prefetch(lambda image: preprocess(Image.fromarray(image)), images, torch.get_num_threads(), 2 * TOWER_BATCH)
    device, found = model.logit_scale.device, []
    model.visual.to(memory_format=torch.channels_last)  # on CPUs convolutions take a third less time so
    with tqdm(total=count, desc="clip: pictures", unit="img", mininterval=1.0) as progress:
        while batch := list(islice(shown, TOWER_BATCH)):
            pixels = torch.stack(batch).to(device, memory_format=torch.channels_last)
            views = [pixels, pixels.flip(-1)] if flip else [pixels]
            found.append(torch.stack([model.encode_image(view) for view in views]))
            progress.update(len(batch))
    return torch.cat(found, dim=1)


def drawn_texts(
    captions: Sequence[Sequence[str]], joined: float, seed: int
) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """Each caption and, if `joined`, JOINED texts a picture that join several: texts, and the rows of each picture's.

    The text tower costs most of the time, so a step draws from these and not from all that could be joined.
    """
    rng = np.random.default_rng(seed)
    draws = JOINED if joined else 0
    several = [[draw_text(own, 1.0, rng) for _ in range(draws)] if len(own) > 1 else [] for own in captions]
    place = {text: row for row, text in enumerate(dict.fromkeys(chain.from_iterable([*captions, *several])))}
    alone, together = ([[place[text] for text in own] for own in texts] for texts in (captions, several))
    return list(place), alone, together


@torch.no_grad()
def text_features(model: Any, tokenizer: Any, texts: Sequence[str]) -> Tensor:
    """What the text tower of a model without projections says: (M, G). Texts of like length go together."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    device, found = model.logit_scale.device, []
    for start in tqdm(range(0, len(texts), BATCH), "clip: texts", unit="batch", mininterval=1.0):
        tokens = tokenizer([texts[row] for row in order[start : start + BATCH]])
        found.append(model.encode_text(without_padding(tokens, model.text.config.pad_token_id).to(device)))
    features = torch.cat(found)
    return torch.empty_like(features).index_copy_(0, torch.tensor(order, device=device), features)


def train(params: Params, dataset: Any, model: Any) -> dict[str, Any]:
    """Give `model` the weights that training on the training split's captioned pictures ends with.

    Returns the conditions. The processes that train build the same model for themselves.
    """
    from open_clip.transform import PreprocessCfg, image_transform_v2

    settings, recipe = params.clip, recipe_of(params)
    architecture: Any = settings.model
    captioned, captions = training_captions(params)
    preprocess = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    with scratch(params.paths.models / ".clip_training") as folder:
        images = compress(dataset.images("train"), captioned)
        shrink(images, sum(captioned), preprocess, model, folder / PIXELS)
        (folder / CAPTIONS).write_text(json.dumps(captions))
        start = time.monotonic()
        processes = 1 if torch.cuda.is_available() else settings.processes
        if processes == 1:
            train_member(folder, architecture, recipe, params.clip.seed)
        else:
            spawn(processes, train_member, folder, architecture, recipe, params.clip.seed)
        seconds = time.monotonic() - start
        model.load_state_dict(load_file(folder / TRAINED))
        loss = json.loads((folder / LOSS).read_text())
    return {
        "train_images": sum(captioned),
        **asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "loss": round(loss, 4),
    }


def train_member(folder: Path, model_settings: str | dict[str, Any], recipe: Recipe, seed: int) -> None:
    """In each process: train on what lies in `folder`, and leave the weights and the loss there."""
    torch.manual_seed(seed)  # a model's first weights come from the global generator
    model, _, tokenizer = new_clip(model_settings)
    group = join_group()
    images = Captioned(np.load(folder / PIXELS, mmap_mode="r"), json.loads((folder / CAPTIONS).read_text()))
    loss = train_clip(group, model, tokenizer, images, recipe, seed)
    if group.is_main_process:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / TRAINED)
        (folder / LOSS).write_text(json.dumps(loss))


def shrink(images: Iterator[np.ndarray], count: int, preprocess: Any, model: Any, path: Path) -> None:
    """Pictures of any size -> (count, 3, S, S) uint8 at the model's size, in an .npy file."""
    mean, std = (torch.tensor(model.visual.preprocess_cfg[key])[:, None, None] for key in ("mean", "std"))

    def small(image: np.ndarray) -> np.ndarray:
        # Undoes the last step of preprocessing; after the resize the picture consists of bytes, so this is exact.
        pixels: Tensor = ((preprocess(Image.fromarray(image)) * std + mean) * 255).round()
        return pixels.to(torch.uint8).numpy()

    size = model.visual.preprocess_cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size
    progress = tqdm(images, "resize for CLIP", total=count, unit="img", mininterval=0.5)
    write_pixels(path, (count, 3, height, width), map(small, progress))


# Measuring


def measure(dataset: Any, clip_image: Any, clip_text: Any, templates: Sequence[str]) -> dict[str, Any]:
    """What held-out vectors tell: attributes where they are known, classes, retrieval among human captions."""
    test = list(islice(dataset.images("test"), MEASURED))
    images = encode_all(clip_image, test)
    metrics: dict[str, Any] = {"n": len(images)}
    labels = dataset.labels("test")
    if dataset.attributes:
        metrics |= measure_attributes(dataset, clip_image, clip_text, images)
    elif labels is not None and (known := torch.from_numpy(labels[: len(images)] >= 0)).any():
        truth = torch.from_numpy(labels[: len(images)])[known]
        prompts = class_prompts(clip_text, dataset.class_names, templates or [PROMPT])
        metrics["zero_shot_accuracy"] = {"class": zero_shot(images[known], prompts, truth)}
    captions = dataset.captions("test")
    many_fit = dataset.attributes or dataset.every_answer_counts  # many pictures fit a caption equally well
    if captions is not None and not many_fit:
        metrics |= measure_retrieval(clip_text, images, list(map(tidy, captions[: len(images)])))
    return metrics


def measure_retrieval(clip_text: Any, images: Tensor, captions: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Recall at 1, 5 and 10 among all captioned pictures and all their captions, as Karpathy & Fei-Fei 2015 count it.

    A picture is right with any of its captions, a caption with its picture alone. Empty where nothing is captioned.
    """
    rows = [row for row, texts in enumerate(captions) if texts]
    if not rows:
        return {}
    seen, texts = images[rows], encode_all(clip_text, [text for row in rows for text in captions[row]])
    own = torch.tensor([len(captions[row]) for row in rows])
    fits = torch.arange(len(rows))[:, None] == torch.arange(len(rows)).repeat_interleave(own)
    recall = {
        "image_to_text": recall_at(RANKS, seen, texts, fits),
        "text_to_image": recall_at(RANKS, texts, seen, fits.T),
    }
    return {"recall_at": {**recall, "images": len(rows), "captions": len(texts)}}


def measure_attributes(dataset: Any, clip_image: Any, clip_text: Any, test_images: Tensor) -> dict[str, Any]:
    """Per attribute: zero-shot accuracy against a prompt per value, and linear probes of both towers.

    The probe of the text tower asks for what a caption names. It is fitted on training captions.
    """
    train_images = encode_all(clip_image, list(islice(dataset.images("train"), MEASURED)))
    values = {split: torch.from_numpy(dataset.attribute_values(split)[:MEASURED]) for split in ("train", "test")}
    # One row per caption: its vector, whether it names each attribute, and the picture's values.
    texts, named, meant = {}, {}, {}
    for split in ("train", "test"):
        captions = dataset.captions(split)[:MEASURED]
        texts[split] = encode_all(clip_text, [text for row in captions for text in row])
        named[split] = torch.tensor(dataset.mentions(split)[:MEASURED]).flatten(0, 1)
        meant[split] = values[split].repeat_interleave(len(captions[0]), dim=0)
    accuracy: dict[str, dict[str, float]] = {"zero_shot_accuracy": {}, "probe_image": {}, "probe_text": {}}
    for column, (name, words) in enumerate(dataset.attributes.items()):
        prompts = encode_all(clip_text, words)
        truth = values["test"][:, column]
        rows = {split: named[split][:, column] for split in ("train", "test")}
        spoken = {split: meant[split][rows[split], column] for split in ("train", "test")}
        accuracy["zero_shot_accuracy"][name] = zero_shot(test_images, prompts, truth)
        accuracy["probe_image"][name] = linear_probe(train_images, values["train"][:, column], test_images, truth)
        accuracy["probe_text"][name] = linear_probe(
            texts["train"][rows["train"]], spoken["train"], texts["test"][rows["test"]], spoken["test"]
        )
    return accuracy


def class_prompts(clip_text: Any, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One vector per class (C, D): the mean over the templates, as CLIP's authors ensemble prompts."""
    prompts = [[template.replace("{}", name) for template in templates] for name in class_names]
    return torch.stack([encode_all(clip_text, several).mean(dim=0) for several in prompts])


def encode_all(encoder: Any, items: Sequence[Any]) -> Tensor:
    """Unit vectors (N, D) on the CPU, N >= 1."""
    return torch.cat([encoder.encode(items[i : i + BATCH]).cpu() for i in range(0, len(items), BATCH)])
