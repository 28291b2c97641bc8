"""`condmix export`: a trained variant -> a folder that stands alone, for the Hugging Face hub or a friend.

condmix.sampling.setup says what the folder holds; `condmix.load` reads it, from here or from the hub. A small one has
half-precision weights and, of CLIP, the text tower alone with the words of the profile's captions, which makes the demo
that comes with condmix:

    condmix export experiment src/condmix/demo_model --small --replace
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from condmix import CondmixError, __version__
from condmix.clip.folder import CARD
from condmix.clip.vocabulary import save_text_tower
from condmix.data.captions import one_text, read_captions
from condmix.datasets import SPLITS
from condmix.diffusion.model import read_card, save_model
from condmix.files.artifacts import read_checked_json, read_tensors
from condmix.files.atomic import remove_folder, write_json, write_text
from condmix.pipeline import tree_sha256
from condmix.results.rows import Metrics
from condmix.sampling.setup import CONFIG, FORMAT, Exported, exported_setup, is_exported, setup_of
from condmix.settings.load import VARIANTS, Params, unknown
from condmix.sharing.model_card import model_card

FILES = ("model.json", "model.safetensors", CONFIG, "metrics.json", "README.md")
FOLDERS = ("clip", "prior")


def main(params: Params, variant: str, folder: Path, small: bool = False, replace: bool = False) -> int:
    """Write the folder, a new or empty one; how many bytes it has.

    With `replace` it may hold an earlier export, whose files give way to the new ones; what else lies there stays.
    """
    if variant not in VARIANTS:
        raise CondmixError(unknown("variant", variant, list(VARIANTS)))
    source = params.paths.model(variant)
    if not (source / "model.json").is_file():
        raise CondmixError(f"{variant} is not trained yet: run dvc repro train@{variant}")
    card = read_card(source)
    if card.get("profile", params.profile) != params.profile:
        raise CondmixError(
            f"{variant} was trained under profile {card['profile']}, but params.yaml names {params.profile}, whose "
            "data and settings the export would describe: set the profile back"
        )
    check_folder(folder, replace)
    check_clip(params.paths.clip, card["encoder"], variant)
    if small and "image" in card["architecture"]["perspectives"]:
        raise CondmixError(f"--small leaves out CLIP's image tower, and {variant} sees pictures through it")
    metrics = params.paths.metrics / f"{variant}.json"
    facts = read_checked_json(metrics, Metrics, f"dvc repro evaluate@{variant}") if metrics.is_file() else None
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # beside what is there under no name of anyone's, and on the same disk, so that what is whole is only renamed
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        part = Path(scratch)
        if small:
            card = save_small(params, card, part)
        else:
            for name in ("model.json", "model.safetensors"):
                shutil.copyfile(source / name, part / name)
            shutil.copytree(params.paths.clip, part / "clip", copy_function=shutil.copyfile)
            if "image" in card["architecture"]["perspectives"] and (params.paths.prior / "prior.json").is_file():
                shutil.copytree(params.paths.prior, part / "prior", copy_function=shutil.copyfile)
        write_json(part / CONFIG, config_of(params, variant))
        if facts is not None:
            write_json(part / "metrics.json", facts)
        write_text(part / "README.md", model_card(params, card, facts, small))
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        for name in (*FILES, *FOLDERS):
            (folder / name).unlink(missing_ok=True) if name in FILES else remove_folder(folder / name)
            if (part / name).exists():
                os.replace(part / name, folder / name)
    return size


def save_small(params: Params, card: dict, folder: Path) -> dict:
    """Write model.safetensors, model.json and clip/ as a small copy has them; its card."""
    captions = [texts for split in SPLITS for texts in read_captions(params.paths.captions, split) if texts]
    encoder = save_text_tower(params.paths.clip, folder / "clip", map(one_text, captions))
    source = params.paths.model(card["variant"])
    weights, _ = read_tensors(source / "model.safetensors", f"dvc repro train@{card['variant']}", card["sha256"])
    small = {**card, "encoder": encoder, "precision": "fp16", "copy_of": card["sha256"]}
    return {**small, "sha256": save_model(folder, {name: tensor.half() for name, tensor in weights.items()}, small)}


def config_of(params: Params, variant: str) -> Exported:
    """config.json."""
    return Exported(
        library_name="condmix",
        format=FORMAT,
        condmix=__version__,
        variant=variant,
        defaults=setup_of(params).defaults,
    )


def check_folder(folder: Path, replace: bool) -> None:
    """CondmixError where anything would be replaced, but for an export with `replace`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CondmixError(f"{folder} is there already and is no folder: give another name")
    if not any(folder.iterdir()):
        return
    if not replace:
        raise CondmixError(
            f"{folder} is there already and is not empty: give another name, or --replace if it is an earlier export, "
            "whose README.md is then written anew too"
        )
    if not is_exported(folder):
        raise CondmixError(
            f"{folder} is no folder that condmix exported, so nothing in it is replaced: give another name"
        )
    exported_setup(folder)  # refuses what only looks like one


def check_clip(clip: Path, encoder: str, variant: str) -> None:
    """CondmixError where the CLIP that lies here is not the one that the model was trained with."""
    here = f"clip sha256:{tree_sha256(clip, CARD)}"
    if here != encoder:
        raise CondmixError(
            f"{variant} was trained on vectors of {encoder}, but {clip} holds {here}: check out the CLIP that belongs "
            "to the model (dvc checkout), or train it again (dvc repro)"
        )
