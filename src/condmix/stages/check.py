"""Stage check: everything that can be known before the first stage works, so that none stops at it later.

The settings themselves are checked wherever they are read (condmix.settings.load). Here what they name is opened: files
and folders by their checksums, open_clip's names, the networks that judge, imported vectors. data/params.ok says that
all is well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from condmix import CondmixError
from condmix.clip.weights import refuse_code
from condmix.data.imported import read_splits
from condmix.files.atomic import write_text
from condmix.settings.load import Params, plugin
from condmix.settings.schema import Content, Settings
from condmix.settings.variants import resolve


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
        check_clip(params)
        check_judges(params)
        check_text_encoder(params)
        check_backbones(params)
        check_imports(params)
        check_parameters(params)
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


def check_clip(params: Params) -> None:
    """A name and tag that open_clip knows, a folder that says itself what it holds, or an architecture to build."""
    clip = params.clip
    if clip.weights and clip.weights.place.is_dir():
        if clip.model or clip.pretrained:
            raise CondmixError(
                f"clip.weights: {clip.weights.path} is a folder, which says itself what model it holds: write "
                "`model: null` and `pretrained: null`, or give the weights' file"
            )
        return
    if clip.weights:
        from condmix.clip.openclip import load_pretrained

        load_pretrained(clip.model, clip.pretrained, clip.weights.place)
        return
    if clip.towers:
        from condmix.clip.backbone import Pixels
        from condmix.clip.towers import new_locked_clip

        towers = clip.towers
        pixels = Pixels(towers.mean, towers.std)
        architecture: Any = clip.model  # not null beside towers: the settings' own check has seen to it
        new_locked_clip(architecture, towers.image.place, towers.text.place, pixels)
        return
    from condmix.clip.openclip import check_architecture, check_name, check_tag

    model: Any = clip.model  # a tag's is a name, an architecture is not null: the settings' own check has seen to it
    if isinstance(model, str):
        check_name(model)
    if clip.pretrained:
        check_tag(model, clip.pretrained)
    if not clip.pretrained and not clip.weights:
        check_architecture(model)


def check_text_encoder(params: Params) -> None:
    """The folder of the text encoder, which is opened only after CLIP was trained: all but its weights."""
    t5 = params.embed.t5
    if not t5 or not isinstance(t5.model, Content):
        return
    import torch

    from condmix.clip.huggingface import explained, require_safetensors

    place = t5.model.place
    require_safetensors(place)
    try:
        from transformers import AutoConfig, AutoModelForTextEncoding, AutoTokenizer
    except ImportError as error:
        raise CondmixError('embed.t5 needs transformers: pip install "condmix[t5]"') from error
    own = {"local_files_only": True, "trust_remote_code": False}
    with explained(place, "does not hold a text encoder that transformers can load"), torch.device("meta"):
        AutoTokenizer.from_pretrained(place, **own)
        AutoModelForTextEncoding.from_config(AutoConfig.from_pretrained(place, **own), trust_remote_code=False)


def check_backbones(params: Params) -> None:
    """The image networks of timm."""
    from condmix.clip.backbone import open_backbone

    probe = [params.judge.probe] if params.judge.probe else []
    for settings in [*params.embed.timm.values(), *probe]:
        open_backbone(settings.model, settings.weights.place)


def check_imports(params: Params) -> None:
    """The files of vectors that somebody else computed."""
    for perspective in dict.fromkeys(one.perspective for one in params.embed.imports):
        own: dict[str, Path] = {one.split: one.place for one in params.embed.imports if one.perspective == perspective}
        read_splits(own, perspective, params.embed.captions)


def check_parameters(params: Params) -> None:
    """Whether a model can be widened to `model.match_parameters`: what the vectors' width adds is known later."""
    wanted = params.model.match_parameters
    if wanted is None:
        return
    import torch

    from condmix.diffusion.unet import UNet, UNetConfig

    config = UNetConfig(image_size=params.data.image_size, **params.model.model_dump(exclude={"match_parameters"}))
    for name in params.variants:
        fusion = resolve(name, params.fusion, params.perspectives).fusion
        width = plugin("fusions", fusion).time_width_for(1, 4 * params.model.channels)
        with torch.device("meta"):
            unet = UNet(3, config, width)
        own = sum(parameter.numel() for parameter in unet.parameters())
        if wanted <= own:
            raise CondmixError(
                f"model.match_parameters is {wanted:,}, but the U-Net of {name} alone has {own:,}: ask for more"
            )


def check_judges(params: Params) -> None:
    """The networks that evaluation opens last of all."""
    evaluate = params.evaluate
    if params.judge.weights:
        from condmix.evaluation.judges import load_resnet56

        load_resnet56(params.judge.weights.place)
    if evaluate.inception_weights and "inception" in evaluate.features:
        from condmix.evaluation.features import check_inception

        check_inception(evaluate.inception_weights.place, evaluate.inception_weights.sha256)
    if evaluate.scorer:
        from condmix.clip.folder import load_clip

        load_clip(evaluate.scorer.place)
