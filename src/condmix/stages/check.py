"""Stage check: everything that can be known before the first stage works, so that none stops at it later.

The settings themselves are checked wherever they are read (condmix.settings.load). Here what they name is opened, and
each network runs once: files and folders by their checksums, open_clip's names, CLIPs, text encoders, timm's networks,
the networks that judge, imported vectors. The models are built as they will be trained. data/params.ok says that all is
well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condmix import CondmixError
from condmix.clip.weights import refuse_code
from condmix.data.imported import read_splits
from condmix.datasets import Dataset
from condmix.files.atomic import write_text
from condmix.settings.load import Params, plugin
from condmix.settings.perspectives import parse
from condmix.settings.schema import Content, Settings
from condmix.settings.variants import resolve

SENTENCES = ["a small red ring in the upper left, on grey", "a ring"]  # of different lengths


def main(params: Params) -> None:
    """Write data/params.ok, or raise CondmixError with the first thing that is wrong."""
    conf = f"conf/{params.profile}.yaml"
    try:
        plugin("datasets", params.data.dataset).check_settings(params.data.world)
        for setting, content in contents(params):
            path = content.verified(setting)
            if path.is_dir():
                refuse_code(path)
        if params.generated:
            plugin("captioners", params.generated.captioner).check(params.generated)
        widths = open_encoders(params)
        check_judges(params)
        check_models(params, widths, known_classes(params))
    except CondmixError as error:
        raise CondmixError(f"{conf}: {error}") from None
    # Constant, so that a change of params.yaml does not make everything behind this stage run again.
    write_text(params.paths.params_ok, "params.yaml and conf/ name things that exist\n")


def contents(section: Settings, key: str = "") -> Iterator[tuple[str, Content]]:
    """Every file and folder that the settings name by checksum, with its key."""
    for name, value in section:
        here = f"{key}.{name}" if key else name
        several = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for item in several:
            if isinstance(item, Content):
                yield here, item
            elif isinstance(item, Settings):
                yield from contents(item, here)


# The CLIP


def check_clip(params: Params) -> int:
    """Opens and runs what `clip` names: a folder, weights, two towers, or an architecture. Returns the vectors' width.

    What would be downloaded first is looked up by its name alone.
    """
    clip = params.clip
    model: Any = clip.model  # a tag's is a name, an architecture is not null: the settings' own check has seen to it
    if clip.weights and clip.weights.place.is_dir():
        if clip.model or clip.pretrained:
            raise CondmixError(
                f"clip.weights: {clip.weights.path} is a folder, which says itself what model it holds: write "
                "`model: null` and `pretrained: null`, or give the weights' file"
            )
        return open_clip_folder(clip.weights, "clip.weights")
    if clip.weights:
        from condmix.clip.openclip import load_pretrained

        opened, config, tokenizer = load_pretrained(clip.model, clip.pretrained, clip.weights.place)
        run_towers(opened, tokenizer, clip.weights.place)
        return int(config["embed_dim"])
    if clip.towers:
        from condmix.clip.backbone import Pixels
        from condmix.clip.towers import new_locked_clip

        towers = clip.towers
        pixels = Pixels(towers.mean, towers.std)
        with silent_transformers():
            opened, config, tokenizer = new_locked_clip(model, towers.image.place, towers.text.place, pixels)
        run_towers(opened, tokenizer, towers.text.place)
        return int(config["embed_dim"])
    from condmix.clip.openclip import check_architecture, check_name, check_tag

    if isinstance(model, str):
        check_name(model)
    if clip.pretrained:
        check_tag(model, clip.pretrained)
    else:
        check_architecture(model)
    if isinstance(model, str):
        from open_clip import get_model_config

        model = get_model_config(model)
    return int(model["embed_dim"])


def open_clip_folder(content: Content, setting: str) -> int:
    """Opens and runs the CLIP in a folder that a setting names; returns the width of its vectors."""
    from condmix.clip.folder import CONFIG, WEIGHTS, load_clip

    place = content.place
    if missing := [name for name in (CONFIG, WEIGHTS) if not (place / name).is_file()]:
        raise CondmixError(
            f"{setting}: {content.path} is not the folder of a CLIP in open_clip's format, for it has no {missing[0]}"
        )
    clip = load_clip(place)
    run_towers(clip.model, clip.tokenizer, place)
    return clip.dim


def run_towers(model: Any, tokenizer: Any, place: Path) -> None:
    """CondmixError where a CLIP that opens can't take captions of different lengths, or a picture of its own size."""
    import torch

    from condmix.clip.huggingface import explained

    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    with explained(place, "holds a CLIP that does not run"), torch.no_grad():
        model.eval().encode_text(tokenizer(SENTENCES))
        model.encode_image(torch.zeros(1, 3, height, width))


# All encoders


class Widths(NamedTuple):
    """How wide the vectors of each perspective will be."""

    clip: int
    others: Mapping[str, int]  # of what is not CLIP's, by the perspective's kind, or by the name of an imported one

    def of(self, name: str, classes: int) -> int:
        """A perspective's width. What is unknown before it is downloaded counts as CLIP's: it adds least to a model."""
        perspective = parse(name)
        if perspective.kind == "class":
            return classes
        return self.others.get(perspective.sources[0], self.others.get(perspective.kind, self.clip))


def open_encoders(params: Params) -> Widths:
    """Opens and runs everything that makes vectors."""
    return Widths(check_clip(params), check_encoders(params) | check_imports(params))


def check_encoders(params: Params) -> dict[str, int]:
    """Opens and runs the networks of `embed.t5`, `embed.timm` and `judge.probe`: {perspective's kind: its width}.

    A text encoder on the hub is left to the stage embed, which downloads it.
    """
    widths, t5 = {}, params.embed.t5
    if t5 and isinstance(t5.model, Content):
        with silent_transformers():
            encoder = plugin("encoders", "t5_text").open(params.paths.clip, (), settings=t5)
        widths["t5"] = encoder.dim
    probe = [("probe", params.judge.probe)] if params.judge.probe else []
    for name, settings in [*probe, *params.embed.timm.items()]:
        encoder = plugin("encoders", "timm_image").open(params.paths.clip, (), name=name, settings=settings)
        widths[f"image_{name}"] = encoder.dim
    return widths


@contextmanager
def silent_transformers() -> Iterator[None]:
    """Without the bars and the reports of transformers, which would bury a sentence of ours."""
    try:
        from transformers.utils import logging
    except ImportError:  # what needs it says so
        yield
        return
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_imports(params: Params) -> dict[str, int]:
    """Reads the files of vectors that somebody else computed: {perspective's kind: its width}."""
    widths = {}
    for perspective in dict.fromkeys(one.perspective for one in params.embed.imports):
        own: dict[str, Path] = {one.split: one.place for one in params.embed.imports if one.perspective == perspective}
        files = read_splits(own, perspective, params.embed.captions)
        for file in files.values():
            useless = np.flatnonzero(~np.isfinite(file.vectors).all(axis=1) | ~file.vectors.any(axis=1))
            if len(useless):
                raise CondmixError(
                    f"{file.path} has {len(useless)} vectors with NaN or infinity, or of zeros only, first of the "
                    f"picture {file.ids[useless[0]]}: leave them out, and those pictures lack the perspective"
                )
        widths[perspective] = next(iter(files.values())).width
    return widths


# What judges


def check_judges(params: Params) -> None:
    """The networks that evaluation opens last of all."""
    evaluate, size = params.evaluate, params.data.image_size
    if params.judge.weights:
        from condmix.evaluation.judges import load_resnet56

        judge = load_resnet56(params.judge.weights.place)
        if judge.image_size != size:
            raise CondmixError(
                f"judge.weights {params.judge.weights.path} judges pictures of {judge.image_size}x{judge.image_size} "
                f"pixels, but data.image_size is {size}; write `weights: null` to train a judge"
            )
    if evaluate.inception_weights and "inception" in evaluate.features:
        from condmix.evaluation.features import check_inception

        check_inception(evaluate.inception_weights.place, evaluate.inception_weights.sha256)
    if evaluate.scorer:
        open_clip_folder(evaluate.scorer, "evaluate.scorer")


# What is trained


def known_classes(params: Params) -> int:
    """How many classes the data set has, as far as that is known before it is fetched: at least one."""
    names = plugin("datasets", params.data.dataset).class_names
    return len(names) if isinstance(names, list) else 1


def check_models(params: Params, widths: Widths, classes: int) -> None:
    """Builds the network of each variant as the stage train will, on data of so many classes, without its weights.

    So one that cannot be widened to `model.match_parameters`, or not be built, is refused in train's own words.
    """
    import torch

    from condmix.diffusion.model import ConditionalModel
    from condmix.training.trainer import architecture

    for name in params.variants:
        variant = resolve(name, params.fusion, params.perspectives)
        perspectives = [{"name": one, "dim": widths.of(one, classes)} for one in variant.perspectives]
        packed = {"fusion": variant.fusion, "perspectives": perspectives, "dim": widths.clip}
        with torch.device("meta"):
            ConditionalModel(architecture(params, packed))


# What is known when the data is


def check_models_of(params: Params, data: Dataset) -> None:
    """`check_models` once more where the number of classes decides: a learned vector of each is part of a model."""
    if params.model.match_parameters is not None and data.class_names:
        check_models(params, open_encoders(params), len(data.class_names))


def check_judge_of(params: Params, data: Dataset) -> None:
    """Whether `judge.weights` judge what the data shows."""
    from condmix.evaluation.judges import CIFAR10_CLASSES

    heads = data.attributes or ({"class": data.class_names} if data.class_names else {})
    if params.judge.weights and heads and heads != {"class": CIFAR10_CLASSES}:
        raise CondmixError(
            f"judge.weights {params.judge.weights.path} judges CIFAR-10's classes, but this data has "
            f"{', '.join(heads) if data.attributes else 'other ones'}; write `weights: null` to train a judge"
        )


WITH_DATA = (check_models_of, check_judge_of)  # for `condmix data check`
